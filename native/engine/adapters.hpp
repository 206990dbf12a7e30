// Adapters (LoRA): loading them beside a model, and which of them act on a request.
#pragma once

#include "args.hpp"
#include "model.hpp"

namespace olm {

// Before any context: a context's graph size counts the adapters that the model has then (spec: llama.cpp 1.11).
// ADAPTER for one that cannot be loaded or would end the process later. `paths`: the model's files.
void load_adapters(Model & model, const std::vector<std::string> & paths, const common_json & adapters);

// A request's "adapters": [1.0, 0.5], one scale for each adapter of the model; absent: as they were loaded.
Scales read_scales(const Args & args, const Model & model);

// Everything that the context computes from now on is computed so. Costs a new graph, if anything changes.
void apply_adapters(llama_context * context, const Model & model, const Scales & scales);

}  // namespace olm
