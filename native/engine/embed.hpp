// Embeddings: many inputs, of many requests, in one step of a context of their own.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "config.hpp"
#include "context.hpp"
#include "emit.hpp"

namespace olm {

struct EmbedJob {
    uint64_t                              id = 0;
    bool                                  normalize = true;
    Scales                                scales;  // of the model's adapters
    std::vector<std::vector<llama_token>> inputs;
    size_t             n_started = 0;
    std::vector<float> vectors;  // [n_inputs, n_embd], filled in order
};

// Engine thread only.
class Embedder {
  public:
    Embedder(std::shared_ptr<Model> model, const EngineConfig & config);

    void add(EmbedJob job);
    bool cancel(uint64_t id);  // true if it was here
    bool busy() const { return !jobs_.empty(); }
    int  n_waiting() const { return static_cast<int>(jobs_.size()); }

    // Computes as many inputs as fit one step, oldest request first. Ids of requests that ended are appended to `ended`.
    void step(Outbox & outbox, std::vector<uint64_t> & ended);
    // Every request ends as FAILED.
    void fail_all(int code, const char * message, Outbox & outbox, std::vector<uint64_t> & ended);

  private:
    struct Place {
        EmbedJob * job;
        size_t     input;
    };

    void make_room_for(int n_tokens);
    std::vector<Place> choose();
    void compute(const std::vector<Place> & places);
    void keep(const Place & place, const float * vector);

    std::shared_ptr<Model>   model_;
    EngineConfig             config_;
    int                      n_embd_;
    int                      n_step_ = 0;  // tokens of a step
    std::unique_ptr<Context> context_;
    std::deque<EmbedJob>     jobs_;
};

}  // namespace olm
