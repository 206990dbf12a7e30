// A llama_context behind a wall: what throws is caught here, what would abort is checked before it is called.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "model.hpp"

namespace olm {

class Context {
  public:
    enum Result {
        DONE    = 0,
        NO_ROOM = 1,  // nothing was kept
        ABORTED = 2,  // earlier ubatches were kept: ask length()
        INVALID = -1, // nothing was kept
        BROKEN  = -2, // the context is suspect: recreate()
    };

    // CONTEXT with llama.cpp's own words when the context cannot be made. `abort` ends a decode between graph nodes.
    Context(std::shared_ptr<Model> model, const llama_context_params & params, std::atomic<bool> * abort);
    ~Context();
    Context(const Context &) = delete;
    Context & operator=(const Context &) = delete;

    void recreate();

    // Decodes compute with these adapters from now on; a change costs a new graph.
    void use(const Scales & scales);
    const Scales & scales() const { return scales_; }

    Result decode(const llama_batch & batch);  // at most n_batch tokens
    float * logits(int row);                   // of a row that asked for them; valid until the next decode

    bool has_memory() const { return llama_get_memory(handle_) != nullptr; }

    // Memory of a sequence. All are without effect on models that have none.
    int  first_position(int sequence);            // -1: empty
    int  length(int sequence);                    // positions held, counted from 0
    bool truncate(int sequence, int n_keep);      // false: this memory cannot be cut there; nothing was removed
    void clear(int sequence);
    bool can_shift();
    void discard(int sequence, int from, int n);  // only if can_shift(): later positions move down
    void clear_all();

    llama_context * llama() const { return handle_; }
    int n_batch() const { return static_cast<int>(llama_n_batch(handle_)); }
    size_t memory_bytes(bool on_gpu) const;       // weights, cells and compute buffers

  private:
    void make();

    std::shared_ptr<Model> model_;
    llama_context_params   params_;
    Scales                 scales_;
    llama_context *        handle_ = nullptr;
};

}  // namespace olm
