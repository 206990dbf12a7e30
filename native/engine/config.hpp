// How an engine is made: its JSON, checked, as llama.cpp's context parameters and our own.
#pragma once

#include "args.hpp"
#include "model.hpp"

namespace olm {

struct EngineConfig {
    int  n_ctx      = 0;  // tokens a request may hold
    int  n_parallel = 1;
    int  n_cells    = 0;
    int  n_batch    = 512;
    int  n_ubatch   = 512;
    int  n_chunk    = 128;
    bool swa_full   = false;
    enum llama_pooling_type pooling = LLAMA_POOLING_TYPE_UNSPECIFIED;
    llama_context_params params;  // of the text context

    static EngineConfig read(const Args & args, const Model & model);

    // For n_tokens of input a step; everything else as the text context has it.
    llama_context_params embedding_params(int n_tokens) const;
};

// Inputs that one embedding step takes at most.
constexpr int MAX_EMBEDDING_INPUTS = 64;

}  // namespace olm
