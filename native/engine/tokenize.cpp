// Text to tokens and back.
#include <climits>

#include "errors.hpp"
#include "model.hpp"

namespace olm {

void check_tokens(const Model & model, const int32_t * tokens, size_t n_tokens) {
    const int n_vocab = model.n_vocab();
    for (size_t i = 0; i < n_tokens; i++) {
        if (tokens[i] < 0 || tokens[i] >= n_vocab) {
            throw Error(OLM_E_INVALID_ARGUMENT, "token " + std::to_string(tokens[i]) + " at place " +
                                                    std::to_string(i) + " is not in the vocabulary of " +
                                                    std::to_string(n_vocab));
        }
    }
}

std::vector<llama_token> tokenize(const Model & model, const char * text, size_t n_bytes, bool add_special,
                                  bool parse_special) {
    require(n_bytes < INT_MAX / 2, OLM_E_INVALID_ARGUMENT, "the text is too long to tokenize");
    require(llama_vocab_type(model.vocab()) != LLAMA_VOCAB_TYPE_NONE, OLM_E_VOCABULARY, "the model has no vocabulary");
    // Enough for most texts; the others get a second call with the size that llama.cpp tells.
    std::vector<llama_token> tokens(n_bytes / 3 + 16);
    const int                n_text = static_cast<int>(n_bytes);
    int n = llama_tokenize(model.vocab(), text, n_text, tokens.data(), static_cast<int>(tokens.size()), add_special,
                           parse_special);
    if (n < 0 && n != INT_MIN) {
        tokens.resize(-n);
        n = llama_tokenize(model.vocab(), text, n_text, tokens.data(), static_cast<int>(tokens.size()), add_special,
                           parse_special);
    }
    require(n >= 0, OLM_E_VOCABULARY, "the text could not be tokenized");
    tokens.resize(n);
    return tokens;
}

void append_piece(const Model & model, llama_token token, bool special, std::string & out) {
    char small[64];
    int  n = llama_token_to_piece(model.vocab(), token, small, sizeof small, 0, special);
    if (n >= 0) {
        out.append(small, n);
        return;
    }
    std::string large(-n, '\0');
    n = llama_token_to_piece(model.vocab(), token, large.data(), static_cast<int>(large.size()), 0, special);
    if (n > 0) {
        out.append(large, 0, n);
    }
}

}  // namespace olm

int olm_tokenize(olm_model * model, const char * text, size_t n_bytes, int add_special, int parse_special,
                 int32_t ** tokens, size_t * n_tokens) {
    return olm::guard([&] {
        olm::require(model && text && tokens && n_tokens, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        const auto found = olm::tokenize(*model->model, text, n_bytes, add_special != 0, parse_special != 0);
        *tokens   = static_cast<int32_t *>(olm::copy_bytes(found.data(), found.size() * sizeof(int32_t)));
        *n_tokens = found.size();
    });
}

int olm_detokenize(olm_model * model, const int32_t * tokens, size_t n_tokens, int special, char ** text,
                   size_t * n_bytes) {
    return olm::guard([&] {
        olm::require(model && (tokens || n_tokens == 0) && text && n_bytes, OLM_E_INVALID_ARGUMENT,
                     "a pointer is NULL");
        olm::check_tokens(*model->model, tokens, n_tokens);
        std::string out;
        for (size_t i = 0; i < n_tokens; i++) {
            olm::append_piece(*model->model, tokens[i], special != 0, out);
        }
        *text    = olm::copy_text(out);
        *n_bytes = out.size();
    });
}
