// The C interface of the engine.
#include "adapters.hpp"
#include "engine.hpp"
#include "errors.hpp"

using olm::guard;
using olm::require;

namespace {

olm::Engine & of(olm_engine * engine) {
    require(engine != nullptr, OLM_E_INVALID_ARGUMENT, "the engine is NULL");
    return *engine->engine;
}

common_json as_json(const olm::EngineStats & s, const olm::EngineConfig & c) {
    common_json all = common_json::object();
    all["n_ctx"]              = c.n_ctx;
    all["n_parallel"]         = c.n_parallel;
    all["n_cells"]            = c.n_cells;
    all["n_batch"]            = c.n_batch;
    all["n_threads"]          = c.params.n_threads;
    all["can_generate"]       = s.can_generate;
    all["n_running"]          = s.n_running;
    all["n_waiting"]          = s.n_waiting;
    all["n_paused"]           = s.n_paused;
    all["n_cached_cells"]     = s.n_cached_cells;
    all["n_steps"]            = s.n_steps;
    all["n_prompt_tokens"]    = s.n_prompt_tokens;
    all["n_cached_tokens"]    = s.n_cached_tokens;
    all["n_generated_tokens"] = s.n_generated_tokens;
    all["n_shifts"]           = s.n_shifts;
    all["n_evictions"]        = s.n_evictions;
    all["n_preemptions"]      = s.n_preemptions;
    all["n_failed_steps"]     = s.n_failed_steps;
    all["n_adapter_changes"]  = s.n_adapter_changes;
    all["n_dropped_constraints"] = s.n_dropped_constraints;
    all["decode_ns"]          = s.decode_ns;
    all["sample_ns"]          = s.sample_ns;
    all["memory_bytes"]       = s.memory_bytes;
    all["vram_bytes"]         = s.vram_bytes;
    return all;
}

}  // namespace

int olm_engine_new(olm_model * model, const char * json, olm_engine ** out) {
    return guard([&] {
        require(model && out, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        require(!model->model->vocab_only, OLM_E_NOT_SUPPORTED, "the model was loaded without its weights");
        const auto config = olm::EngineConfig::read(olm::Args(json), *model->model);
        *out              = new olm_engine{std::make_unique<olm::Engine>(model->model, config)};
    });
}

void olm_engine_free(olm_engine * engine) {
    delete engine;
}

int olm_engine_submit(olm_engine * engine, uint64_t id, const int32_t * tokens, size_t n_tokens, const char * json) {
    return guard([&] {
        require(tokens != nullptr || n_tokens == 0, OLM_E_INVALID_ARGUMENT, "tokens is NULL");
        of(engine).submit(id, {tokens, tokens + n_tokens}, olm::Args(json));
    });
}

int olm_engine_embed(olm_engine * engine, uint64_t id, const int32_t * tokens, const uint32_t * offsets,
                     size_t n_inputs, const char * json) {
    return guard([&] {
        require((tokens && offsets) || n_inputs == 0, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        olm::EmbedJob job;
        job.id        = id;
        const olm::Args args(json);
        job.normalize = args.flag("normalize", true);
        job.scales    = olm::read_scales(args, of(engine).model());
        for (size_t i = 0; i < n_inputs; i++) {
            require(offsets[i] <= offsets[i + 1], OLM_E_INVALID_ARGUMENT, "offsets must not fall");
            job.inputs.emplace_back(tokens + offsets[i], tokens + offsets[i + 1]);
        }
        of(engine).embed(std::move(job));
    });
}

int olm_engine_cancel(olm_engine * engine, uint64_t id) {
    return guard([&] { of(engine).cancel(id); });
}

int olm_engine_pause(olm_engine * engine, uint64_t id, int paused) {
    return guard([&] { of(engine).pause(id, paused != 0); });
}

int olm_engine_event_fd(olm_engine * engine, int * fd) {
    return guard([&] {
        require(fd != nullptr, OLM_E_INVALID_ARGUMENT, "fd is NULL");
        *fd = of(engine).outbox().event_fd();
    });
}

int olm_engine_next_frame(olm_engine * engine, const uint8_t ** data, size_t * size) {
    return guard([&] {
        require(data && size, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        const std::string_view frame = of(engine).outbox().take();
        *data = reinterpret_cast<const uint8_t *>(frame.data());
        *size = frame.size();
    });
}

int olm_engine_stats_json(olm_engine * engine, char ** out) {
    return guard([&] {
        require(out != nullptr, OLM_E_INVALID_ARGUMENT, "out is NULL");
        *out = olm::copy_text(as_json(of(engine).stats(), of(engine).config()).dump_safe());
    });
}
