// llguidance's C interface, taken at run time from the library in its Python wheel: grammars to masks over a vocabulary.
//
// The declarations are our own, after parser/llguidance.h of llguidance 1.9. Its functions never throw; its objects may
// go from thread to thread, one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace olm {

struct LlgTokenizer;
struct LlgMatcher;

struct LlgLimits {
    size_t   max_items_in_row;
    uint64_t initial_lexer_fuel;
    uint64_t step_lexer_fuel;
    size_t   step_max_items;
    size_t   max_lexer_states;
    size_t   max_grammar_size;
    bool     precompute_large_lexemes;
    bool     verbose_errors;
};

struct LlgInit {
    const LlgTokenizer * tokenizer;
    uint32_t             log_buffer_level;
    uint32_t             log_stderr_level;
    bool                 ff_tokens_ok;
    bool                 backtrack_ok;
    LlgLimits            limits;
};

// Gives how many tokens there are; writes no more than fit.
using LlgTokenizeFn = size_t (*)(const void * user_data, const uint8_t * bytes, size_t n_bytes, uint32_t * tokens,
                                 size_t n_room);

struct LlgTokenizerInit {
    size_t               struct_size;
    uint32_t             vocab_size;
    uint32_t             tok_eos;
    const uint32_t *     token_lens;
    const uint8_t *      token_bytes;
    const char *         tokenizer_json;
    bool                 tokenize_assumes_string;
    LlgTokenizeFn        tokenize_fn;
    bool                 use_approximate_greedy_tokenize_fn;
    const void *         tokenize_user_data;
    const char * const * slices;
    const uint32_t *     tok_eos_extra;
    uint32_t             tok_eos_extra_count;
};

struct Guidance {
    const char * (*get_version)();
    void (*constraint_init_set_defaults)(LlgInit *, const LlgTokenizer *);
    LlgTokenizer * (*new_tokenizer_v2)(const LlgTokenizerInit *, char * error, size_t n_error);
    void (*free_tokenizer)(LlgTokenizer *);
    LlgMatcher * (*new_matcher)(const LlgInit *, const char * kind, const char * text);
    LlgMatcher * (*clone_matcher)(const LlgMatcher *);
    void (*free_matcher)(LlgMatcher *);
    int32_t (*matcher_compute_mask_into)(LlgMatcher *, uint32_t * mask, size_t n_bytes);
    size_t (*matcher_get_mask_byte_size)(const LlgMatcher *);
    int32_t (*matcher_consume_tokens)(LlgMatcher *, const uint32_t * tokens, size_t n_tokens);
    const char * (*matcher_get_error)(LlgMatcher *);
    bool (*matcher_is_stopped)(const LlgMatcher *);
};

// Where the library is. "" means that there is none; loading waits until somebody needs it.
void set_guidance_path(const std::string & path);

// The library, loaded at the first call. NOT_SUPPORTED when it is missing, does not load, or is another version.
const Guidance & guidance();

}  // namespace olm
