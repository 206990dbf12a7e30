#include "config.hpp"

#include <sched.h>

#include <algorithm>

#include "common.h"
#include "errors.hpp"

namespace olm {

namespace {

constexpr int MAX_PARALLEL = 64;  // of llama.cpp's 256 sequence ids; the rest is for shared prefixes
constexpr int MAX_CONTEXT  = 1 << 24;

ggml_type cell_type(const std::string & name) {
    static const struct {
        const char * name;
        ggml_type    type;
    } TYPES[] = {
        {"f32", GGML_TYPE_F32},   {"f16", GGML_TYPE_F16},   {"bf16", GGML_TYPE_BF16},
        {"q8_0", GGML_TYPE_Q8_0}, {"q4_0", GGML_TYPE_Q4_0}, {"q4_1", GGML_TYPE_Q4_1},
        {"q5_0", GGML_TYPE_Q5_0}, {"q5_1", GGML_TYPE_Q5_1}, {"iq4_nl", GGML_TYPE_IQ4_NL},
    };
    for (const auto & item : TYPES) {
        if (name == item.name) {
            return item.type;
        }
    }
    throw Error(OLM_E_INVALID_ARGUMENT, "unknown cache type \"" + name + "\"");
}

llama_flash_attn_type flash_attention(const std::string & word) {
    if (word == "auto") {
        return LLAMA_FLASH_ATTN_TYPE_AUTO;
    }
    if (word == "on") {
        return LLAMA_FLASH_ATTN_TYPE_ENABLED;
    }
    require(word == "off", OLM_E_INVALID_ARGUMENT, "\"flash_attn\" must be auto, on or off");
    return LLAMA_FLASH_ATTN_TYPE_DISABLED;
}

enum llama_pooling_type pooling_of(const std::string & word) {
    static const struct {
        const char *            name;
        enum llama_pooling_type type;
    } TYPES[] = {
        {"", LLAMA_POOLING_TYPE_UNSPECIFIED}, {"mean", LLAMA_POOLING_TYPE_MEAN}, {"cls", LLAMA_POOLING_TYPE_CLS},
        {"last", LLAMA_POOLING_TYPE_LAST},    {"rank", LLAMA_POOLING_TYPE_RANK},
    };
    for (const auto & item : TYPES) {
        if (word == item.name) {
            return item.type;
        }
    }
    throw Error(OLM_E_INVALID_ARGUMENT, "unknown pooling \"" + word + "\"");
}

// Physical cores, but no more than this process may run on.
int default_threads() {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    const int cores = std::max(1, common_cpu_get_num_physical_cores());
    return sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? std::min(cores, std::max(1, CPU_COUNT(&allowed)))
                                                               : cores;
}

}  // namespace

EngineConfig EngineConfig::read(const Args & args, const Model & model) {
    EngineConfig c;
    const auto   integer = [&](const char * key, int absent, int low, int high) {
        return static_cast<int>(args.integer(key, absent, low, high));
    };
    c.n_ctx = integer("n_ctx", 0, 0, MAX_CONTEXT);
    if (c.n_ctx == 0) {
        c.n_ctx = llama_model_n_ctx_train(model.llama());
    }
    require(c.n_ctx >= 4, OLM_E_INVALID_ARGUMENT, "\"n_ctx\" must be at least 4");  // Ollama's own bound
    c.n_parallel = integer("n_parallel", 1, 1, MAX_PARALLEL);
    c.n_cells    = integer("n_cells", 0, 0, INT32_MAX);
    if (c.n_cells == 0) {
        const int64_t cells = static_cast<int64_t>(c.n_ctx) * c.n_parallel;
        require(cells <= INT32_MAX, OLM_E_INVALID_ARGUMENT, "\"n_ctx\" times \"n_parallel\" is too large");
        c.n_cells = static_cast<int>(cells);
    }
    // So a request that is alone always fits.
    require(c.n_cells >= c.n_ctx, OLM_E_INVALID_ARGUMENT, "\"n_cells\" must be at least \"n_ctx\"");
    c.n_batch  = integer("n_batch", 512, 1, 1 << 16);
    c.n_batch  = std::max(c.n_batch, c.n_parallel);  // every stream gets its token each step
    c.n_ubatch = std::min(integer("n_ubatch", 512, 1, 1 << 16), c.n_batch);
    c.n_chunk  = integer("n_chunk", 128, 1, 1 << 16);
    c.swa_full = args.flag("swa_full", false);
    c.pooling  = pooling_of(args.text("pooling"));

    const int threads = integer("n_threads", 0, 0, 512);
    const int batch_threads = integer("n_threads_batch", 0, 0, 512);

    llama_context_params & p = c.params;
    p                   = llama_context_default_params();
    p.n_ctx             = c.n_cells;
    p.n_batch           = c.n_batch;
    p.n_ubatch          = c.n_ubatch;
    p.n_seq_max         = c.n_parallel;
    // The default of n_batch rows of logits would take 300 MiB of compute buffer at 152 k tokens.
    p.n_outputs_max     = c.n_parallel;
    p.n_threads         = threads > 0 ? threads : default_threads();
    p.n_threads_batch   = batch_threads > 0 ? batch_threads : p.n_threads;
    p.type_k            = cell_type(args.text("type_k", "f16"));
    p.type_v            = cell_type(args.text("type_v", "f16"));
    p.flash_attn_type   = flash_attention(args.text("flash_attn", "auto"));
    p.rope_freq_base    = args.number("rope_freq_base", 0.0f);
    p.rope_freq_scale   = args.number("rope_freq_scale", 0.0f);
    p.offload_kqv       = args.flag("offload_kqv", true);
    p.swa_full          = c.swa_full;
    p.kv_unified        = args.flag("kv_unified", true);
    return c;
}

llama_context_params EngineConfig::embedding_params(int n_tokens) const {
    llama_context_params p = params;
    p.embeddings    = true;
    p.pooling_type  = pooling;
    p.n_ctx         = n_tokens;
    // A pooled input must be whole in one ubatch, and a non-causal model asserts that it is.
    p.n_batch       = n_tokens;
    p.n_ubatch      = n_tokens;
    p.n_seq_max     = std::min(MAX_EMBEDDING_INPUTS, n_tokens);
    p.n_outputs_max = n_tokens;
    p.swa_full      = true;  // nothing is kept between steps
    p.kv_unified    = true;  // a region for each input would bound every input to its part
    return p;
}

}  // namespace olm
