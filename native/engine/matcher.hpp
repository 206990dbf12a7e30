// Grammars over a model's vocabulary: which tokens may come next. The work is llguidance's (guidance.hpp).
#pragma once

#include <array>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "guidance.hpp"
#include "model.hpp"

namespace olm {

// One bit a token, [ceil(n_vocab / 32)].
using TokenMask = std::vector<uint32_t>;

inline bool has_bit(const TokenMask & mask, llama_token token) {
    return (mask[token / 32] >> (token % 32) & 1) != 0;
}
inline void set_bit(TokenMask & mask, llama_token token) {
    mask[token / 32] |= uint32_t(1) << (token % 32);
}

// A vocabulary as grammars see it: pieces of text, and tokens that no text can mean. Made once for a model and a set of
// plain tokens; takes about a tenth of a second for 152 k tokens. Any thread may use it.
class GrammarTokenizer {
  public:
    // plain: special tokens that count as their text in grammars, because the text of answers shows them.
    GrammarTokenizer(std::shared_ptr<Model> model, const std::set<llama_token> & plain);
    ~GrammarTokenizer();
    GrammarTokenizer(const GrammarTokenizer &) = delete;
    GrammarTokenizer & operator=(const GrammarTokenizer &) = delete;

    const LlgTokenizer * handle() const { return handle_; }
    const TokenMask & ends() const { return ends_; }      // every end token
    const TokenMask & blanks() const { return blanks_; }  // tokens of nothing but blanks
    int byte_token(uint8_t byte) const { return bytes_[byte]; }  // -1: the vocabulary has none

    // Tokens of bytes as llama.cpp would cut them, as far as they mean text here.
    std::vector<llama_token> cut(std::string_view bytes) const;

  private:
    std::string piece_of(llama_token token, bool is_special) const;
    bool is_canonical() const;

    std::shared_ptr<Model>     model_;
    std::vector<bool>          special_;
    TokenMask                  ends_;
    TokenMask                  blanks_;
    std::array<int32_t, 256>   bytes_;
    LlgTokenizer *             handle_ = nullptr;
};

// A place in a grammar. Used by one thread at a time. Functions that can fail throw INVALID_ARGUMENT with llguidance's
// reason: a grammar may turn out too complex at any token.
class Matcher {
  public:
    // kind: "json_schema", "regex", "lark" or "llguidance". Compiles the grammar, which takes up to some seconds.
    Matcher(std::shared_ptr<const GrammarTokenizer> tokenizer, const std::string & kind, const std::string & text);
    Matcher(const Matcher & other);  // a place of its own
    ~Matcher();
    Matcher & operator=(const Matcher &) = delete;

    void consume(llama_token token);
    // Goes over text as if tokens had been generated that mean it.
    void feed(std::string_view bytes);
    // Which tokens may come next; the end tokens among them if the grammar may end here.
    void mask(TokenMask & out);
    // It has been matched and allows nothing more.
    bool is_stopped() const;

    const GrammarTokenizer & tokenizer() const { return *tokenizer_; }

  private:
    void consume(const std::vector<uint32_t> & tokens);
    void check() const;
    [[noreturn]] void refuse(const std::string & reason) const;

    std::shared_ptr<const GrammarTokenizer> tokenizer_;
    const char *                            noun_;  // what it was made of, for errors
    LlgMatcher *                            handle_;
};

}  // namespace olm
