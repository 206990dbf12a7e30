// One text request in the engine: the tokens it has, how far they are computed, and what it has to say.
#pragma once

#include <chrono>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "constraint.hpp"
#include "emit.hpp"
#include "sampler.hpp"
#include "text.hpp"

namespace olm {

using Clock = std::chrono::steady_clock;

// What a request asks besides its sampling.
struct Limits {
    int  n_predict = -1;  // negative: as many as the context's bounds allow
    int  n_keep    = 4;
    bool shift     = true;
    std::vector<std::string> stops;
    std::set<llama_token>    preserved;  // special tokens that are shown in the text
    std::set<llama_token>    plain;      // special tokens that are text in grammars: these, and triggers
    ThinkingOptions          thinking;
    ConstraintOptions        constraint;
    Scales                   scales;     // of the model's adapters, for all of the request

    static Limits read(const Args & args, const Model & model);
};

class Sequence {
  public:
    Sequence(const Model & model, uint64_t id, std::vector<llama_token> prompt, SamplingOptions sampling, Limits limits,
             int n_ctx);

    // The token path: prompt and taken tokens. A prefix cache's key. Computed are the first n_done of them.
    std::vector<llama_token> path;
    int      n_done   = 0;
    // How many of the computed ones are as a fresh prefill would make them: a context shift moves the rest.
    int      n_clean  = 0;
    uint64_t id       = 0;
    int      slot     = -1;  // sequence id in llama.cpp's memory; -1: waits for one
    bool     paused   = false;
    bool     suspect  = false;  // was in a batch that failed: runs alone until it has shown that it was not the cause
    bool     ended    = false;
    bool     held     = false;  // its constraint is not ready: nothing can be drawn yet
    uint64_t turn     = 0;      // the number of the step that last computed any of it, or at which it came
    Sampler  sampler;
    Limits   limits;
    Thinking thinking;
    std::shared_ptr<Constraint> constraint;  // nullptr: there is none

    int  n_prompt() const { return n_prompt_; }
    int  n_left() const { return static_cast<int>(path.size()) - n_done; }  // tokens to compute
    // Tokens that the next steps may compute: all but the last while the grammar is still being compiled.
    int  n_able() const { return n_left() - (held ? 1 : 0); }
    bool generating() const { return n_generated_ > 0; }

    void admitted(int slot, int n_cached);
    // Draws a token from its row of logits, if the answer is to go on, and takes it.
    void draw(const Model & model, float * row);
    // Takes a sampled token; may end the sequence. Text, tokens and logprobs gather until flush().
    void take(const Model & model, const Taken & taken);
    void end(DoneReason reason);
    // Pushes a PIECE if there is text to show, or the DONE. Nothing after that.
    void flush(Outbox & outbox);
    Event progress() const;

  private:
    void follow(const Model & model, llama_token token);
    void push_done(Outbox & outbox);

    int        n_prompt_;
    int        n_predict_;
    int        n_cached_    = 0;
    int        n_generated_ = 0;
    int        end_token_   = -1;
    bool       admitted_    = false;
    bool       with_logprobs_;
    DoneReason reason_ = DoneReason::STOP;
    TextStage  text_;
    std::vector<llama_token> new_tokens_;
    std::string              new_text_;
    std::string              new_logprobs_;
    std::string              piece_;
    Clock::time_point admitted_at_;
    Clock::time_point first_token_at_;
};

}  // namespace olm
