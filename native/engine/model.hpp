// A loaded model and what belongs to it. Shared: engines and chats hold it, so that it is freed after all of them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "llama.h"

namespace olm {

struct Adapter {
    llama_adapter_lora * lora;  // owned by the llama_model
    float                scale;
};

// How much each adapter of a model acts on something, in the model's order; 0: not at all.
using Scales = std::vector<float>;

struct ModelCloser {
    void operator()(llama_model * model) const { llama_model_free(model); }
};

struct Model {
    std::unique_ptr<llama_model, ModelCloser> handle;
    std::vector<Adapter>                      adapters;
    bool                                      vocab_only = false;
    bool                                      can_rank   = false;  // it has a ranking head

    llama_model * llama() const { return handle.get(); }
    const llama_vocab * vocab() const { return llama_model_get_vocab(handle.get()); }
    int n_vocab() const { return llama_vocab_n_tokens(vocab()); }
    Scales scales() const;  // as the adapters were loaded
};

// Whether one of these GGUF files has the tensor. llama.cpp does not tell.
bool has_tensor(const std::vector<std::string> & paths, const char * name);

// INVALID_ARGUMENT for a token that the vocabulary does not have: llama.cpp would not take it well.
void check_tokens(const Model & model, const int32_t * tokens, size_t n_tokens);

std::vector<llama_token> tokenize(const Model & model, const char * text, size_t n_bytes, bool add_special,
                                  bool parse_special);

// Appends the token's bytes, which need not be whole UTF-8. special: control tokens are written out.
void append_piece(const Model & model, llama_token token, bool special, std::string & out);

}  // namespace olm

struct olm_model {
    std::shared_ptr<olm::Model> model;
};
