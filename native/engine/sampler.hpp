// Choosing a token from a row of logits, for one sequence.
//
// Order, as llama-server's default chain (which Ollama runs): a constraint's mask, logit bias, penalties, DRY, top-n-sigma, top-k,
// typical-p, top-p, min-p, XTC, temperature, draw. The stages up to top-k touch a few logits or one scan here; what
// survives, usually 40 candidates, goes through llama.cpp's own samplers.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "args.hpp"
#include "matcher.hpp"
#include "model.hpp"

namespace olm {

// Ollama's defaults; the fields of olm.chat.types.Sampling.
struct SamplingOptions {
    int64_t seed              = -1;
    float   temperature       = 0.8f;
    int     top_k             = 40;
    float   top_p             = 0.9f;
    float   min_p             = 0.0f;
    float   typical_p         = 1.0f;
    float   top_n_sigma       = -1.0f;
    int     repeat_last_n     = 64;  // -1: the whole context, 0: off
    float   repeat_penalty    = 1.0f;
    float   presence_penalty  = 0.0f;
    float   frequency_penalty = 0.0f;
    int     mirostat          = 0;
    float   mirostat_tau      = 5.0f;
    float   mirostat_eta      = 0.1f;
    float   dry_multiplier    = 0.0f;
    float   dry_base          = 1.75f;
    int     dry_allowed_length = 2;
    int     dry_penalty_last_n = -1;
    float   xtc_probability   = 0.0f;
    float   xtc_threshold     = 0.1f;
    float   dynatemp_range    = 0.0f;
    float   dynatemp_exponent = 1.0f;
    bool    ignore_eos        = false;
    int     n_logprobs        = -1;  // -1: none, 0: the taken token's, n: also the n best
    std::vector<llama_logit_bias> logit_bias;

    static SamplingOptions read(const Args & args, const Model & model);
};

struct SamplerCloser {
    void operator()(llama_sampler * sampler) const { llama_sampler_free(sampler); }
};
using SamplerHandle = std::unique_ptr<llama_sampler, SamplerCloser>;

// Natural-log probability of a token under the row as the model gave it.
struct Logprob {
    llama_token token;
    float       logprob;
};
struct Taken {
    llama_token          token;
    float                logprob = 0.0f;  // only with n_logprobs >= 0
    std::vector<Logprob> top;             // n_logprobs entries, falling
};

class Sampler {
  public:
    // n_ctx bounds the windows that mean "the whole context".
    Sampler(const Model & model, SamplingOptions options, int n_ctx);

    // A prompt token or a taken one: what penalties and DRY look back at.
    void accept(llama_token token);

    // Takes a token from row [n_vocab], which it may change in place; with a mask, one of those that it allows.
    // DECODE if no logit is a number.
    Taken sample(float * row, const TokenMask * mask = nullptr);
    // Takes this token, whatever the row says.
    Taken force(const float * row, llama_token token);

  private:
    struct Edit {
        llama_token token;
        float       before;
    };

    float rank(const float * row, Taken & taken);
    void forbid(float * row, const TokenMask & mask) const;
    void bias(float * row);
    void penalize(float * row);
    void avoid_repeats(float * row);
    void add(float * row, llama_token token, float value);
    bool select(const float * row);
    void take_all(const float * row, float bound);
    void cut_mass(const float * row);
    llama_token draw(const float * row);
    float original(const float * row, llama_token token) const;

    SamplingOptions options_;
    int             n_vocab_;
    int             window_;  // of the penalties, tokens
    bool            greedy_;
    bool            cuts_mass_;  // top-p by our own scan, since there is no top-k to thin the row before

    std::vector<llama_logit_bias> biases_;
    std::deque<llama_token>       recent_;
    std::unordered_map<llama_token, int> counts_;  // of recent_

    SamplerHandle            dry_;
    std::vector<llama_token> seen_;  // distinct tokens of the sequence, which is all that DRY can touch
    std::vector<bool>        is_seen_;
    SamplerHandle            tail_;

    std::vector<llama_token_data> candidates_;
    std::vector<Edit>             edits_;  // of this row, so that logprobs can be told of the row as it was
};

}  // namespace olm
