// References and parts for the tests; declared in ../decl/testing.h.
#include <algorithm>

#include "adapters.hpp"
#include "engine.hpp"
#include "errors.hpp"
#include "log.hpp"
#include "plan.hpp"

namespace {

using olm::require;

int hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    require(c >= 'a' && c <= 'f', OLM_E_INVALID_ARGUMENT, "not a hexadecimal digit");
    return c - 'a' + 10;
}

std::string bytes_of(const std::string & hex) {
    std::string bytes;
    for (size_t i = 0; i + 1 < hex.size(); i += 2) {
        bytes.push_back(static_cast<char>(hex_digit(hex[i]) * 16 + hex_digit(hex[i + 1])));
    }
    return bytes;
}

// Deliberately shares nothing with the engine: no Context, no sampler, llama.cpp's simplest batch.
std::vector<llama_token> greedy(const olm::Model & model, std::vector<llama_token> prompt, int n_predict, int n_chunk,
                                int n_threads) {
    require(!prompt.empty() && n_predict >= 0, OLM_E_INVALID_ARGUMENT, "nothing to do");
    olm::check_tokens(model, prompt.data(), prompt.size());
    llama_context_params params = llama_context_default_params();
    params.n_ctx     = static_cast<uint32_t>(prompt.size() + n_predict + 1);
    params.n_batch   = static_cast<uint32_t>(prompt.size());
    params.n_threads = params.n_threads_batch = n_threads > 0 ? n_threads : 1;
    const std::unique_ptr<llama_context, void (*)(llama_context *)> context(
        llama_init_from_model(model.llama(), params), llama_free);
    require(context != nullptr, OLM_E_CONTEXT, "no context");
    olm::apply_adapters(context.get(), model, model.scales());

    std::vector<llama_token> out;
    const int                total = static_cast<int>(prompt.size());
    const int                chunk = n_chunk > 0 ? n_chunk : total;
    for (int at = 0; at < total; at += chunk) {
        const int n = std::min(chunk, total - at);
        require(llama_decode(context.get(), llama_batch_get_one(prompt.data() + at, n)) == 0, OLM_E_DECODE, "decode");
    }
    while (static_cast<int>(out.size()) < n_predict) {
        const float * row  = llama_get_logits_ith(context.get(), -1);
        llama_token   next = static_cast<llama_token>(std::max_element(row, row + model.n_vocab()) - row);
        if (llama_vocab_is_eog(model.vocab(), next)) {
            break;
        }
        out.push_back(next);
        require(llama_decode(context.get(), llama_batch_get_one(&next, 1)) == 0, OLM_E_DECODE, "decode");
    }
    return out;
}

std::vector<float> logits_after(const olm::Model & model, std::vector<llama_token> tokens, int n_threads) {
    require(!tokens.empty(), OLM_E_INVALID_ARGUMENT, "nothing to do");
    olm::check_tokens(model, tokens.data(), tokens.size());
    llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = static_cast<uint32_t>(tokens.size());
    params.n_threads = params.n_threads_batch = n_threads > 0 ? n_threads : 1;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type        = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    const std::unique_ptr<llama_context, void (*)(llama_context *)> context(
        llama_init_from_model(model.llama(), params), llama_free);
    require(context != nullptr, OLM_E_CONTEXT, "no context");
    olm::apply_adapters(context.get(), model, model.scales());
    const int n_tokens = static_cast<int>(tokens.size());
    require(llama_decode(context.get(), llama_batch_get_one(tokens.data(), n_tokens)) == 0, OLM_E_DECODE, "decode");
    const float * row = llama_get_logits_ith(context.get(), -1);
    return {row, row + model.n_vocab()};
}

ggml_type type_or_none(const olm::Args & args, const char * key) {
    const int64_t number = args.integer(key, -1, -1, GGML_TYPE_COUNT);
    return number < 0 ? GGML_TYPE_COUNT : static_cast<ggml_type>(number);
}

void quantize(const olm::Args & args) {
    std::vector<std::string>                 names;
    std::vector<llama_model_tensor_override> overrides;
    std::vector<llama_model_imatrix_data>    imatrix;
    std::vector<std::vector<float>>          weights;
    const common_json                        wanted = args.array("overrides"), given = args.object("imatrix");
    names.reserve(wanted.size() + given.size());  // pointers to them are handed on
    weights.reserve(given.size());
    for (const common_json & item : wanted) {
        const olm::Args entry(item);
        names.push_back(entry.text("pattern"));
        overrides.push_back({names.back().c_str(), type_or_none(entry, "type")});
    }
    for (auto it = given.begin(); it != given.end(); ++it) {
        names.push_back(it.key());
        weights.push_back(it.value().get<std::vector<float>>());
        imatrix.push_back({names.back().c_str(), weights.back().data(), weights.back().size()});
    }
    overrides.push_back({nullptr, GGML_TYPE_COUNT});
    imatrix.push_back({nullptr, nullptr, 0});
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.nthread                     = 1;
    params.ftype                       = static_cast<llama_ftype>(args.integer("ftype", 0, 0, LLAMA_FTYPE_GUESSED));
    params.output_tensor_type          = type_or_none(args, "output_type");
    params.token_embedding_type        = type_or_none(args, "embedding_type");
    params.quantize_output_tensor      = !args.flag("keep_output", false);
    params.pure                        = args.flag("pure", false);
    params.allow_requantize            = args.flag("allow_requantize", false);
    params.tt_overrides                = wanted.empty() ? nullptr : overrides.data();
    params.imatrix                     = given.empty() ? nullptr : imatrix.data();
    const std::string in = args.text("in"), out = args.text("out");
    olm::install_log_sink();
    const uint64_t mark = olm::log_mark();
    if (llama_model_quantize(in.c_str(), out.c_str(), &params) != 0) {
        throw olm::Error(OLM_E_MODEL_LOAD, olm::errors_since(mark, "llama_model_quantize failed"));
    }
}

}  // namespace

int olm_test_quantize(const char * json) {
    return olm::guard([&] { quantize(olm::Args(json)); });
}

int olm_test_logits(olm_model * model, const int32_t * tokens, size_t n_tokens, int n_threads, float ** out,
                    size_t * n_out) {
    return olm::guard([&] {
        require(model && tokens && out && n_out, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        const auto row = logits_after(*model->model, {tokens, tokens + n_tokens}, n_threads);
        *out   = static_cast<float *>(olm::copy_bytes(row.data(), row.size() * sizeof(float)));
        *n_out = row.size();
    });
}

int olm_test_greedy(olm_model * model, const int32_t * tokens, size_t n_tokens, int n_predict, int n_chunk,
                    int n_threads, int32_t ** out, size_t * n_out) {
    return olm::guard([&] {
        require(model && tokens && out && n_out, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        const auto taken = greedy(*model->model, {tokens, tokens + n_tokens}, n_predict, n_chunk, n_threads);
        *out   = static_cast<int32_t *>(olm::copy_bytes(taken.data(), taken.size() * sizeof(int32_t)));
        *n_out = taken.size();
    });
}

int olm_test_text(const char * json, char ** out) {
    return olm::guard([&] {
        require(out != nullptr, OLM_E_INVALID_ARGUMENT, "out is NULL");
        const olm::Args args(json);
        olm::TextStage  stage(args.texts("stop"));
        common_json     pieces  = common_json::array();
        bool            stopped = false;
        for (const std::string & hex : args.texts("chunks")) {
            std::string piece;
            stopped = stage.push(bytes_of(hex), piece);
            pieces.push_back(piece);
            if (stopped) {
                break;
            }
        }
        std::string rest;
        stage.finish(rest);
        pieces.push_back(rest);
        common_json result = common_json::object();
        result["pieces"]   = pieces;
        result["stopped"]  = stopped;
        result["stop"]     = stage.stopped_by();
        *out               = olm::copy_text(result.dump());
    });
}

int olm_test_sample(olm_model * model, const char * json, const float * logits, size_t n_logits, int n, char ** out) {
    return olm::guard([&] {
        require(model && logits && out, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        const olm::Model & m = *model->model;
        require(n_logits == static_cast<size_t>(m.n_vocab()), OLM_E_INVALID_ARGUMENT, "not a row of this vocabulary");
        olm::Sampler       sampler(m, olm::SamplingOptions::read(olm::Args(json), m), 4096);
        common_json        tokens = common_json::array();
        std::vector<float> row;
        for (int i = 0; i < n; i++) {
            row.assign(logits, logits + n_logits);
            const olm::Taken taken = sampler.sample(row.data());
            sampler.accept(taken.token);
            tokens.push_back(taken.token);
        }
        *out = olm::copy_text(tokens.dump());
    });
}

int olm_test_fail_decode(olm_engine * engine, int result, int times) {
    return olm::guard([&] {
        require(engine != nullptr, OLM_E_INVALID_ARGUMENT, "the engine is NULL");
        engine->engine->fail_next(static_cast<olm::Context::Result>(result), times);
    });
}

int olm_test_plan(const char * json, char ** out) {
    return olm::guard([&] {
        require(out != nullptr, OLM_E_INVALID_ARGUMENT, "out is NULL");
        const olm::Args            args(json);
        std::vector<olm::PlanItem> items;
        for (const common_json & item : args.array("items")) {
            const olm::Args fields(item);
            items.push_back({static_cast<int>(fields.integer("n_left", 1, 1, INT32_MAX)), fields.flag("stream", false)});
        }
        const olm::PlanLimits limits = {static_cast<int>(args.integer("n_batch", 512, 1, INT32_MAX)),
                                        static_cast<int>(args.integer("n_chunk", 128, 1, INT32_MAX))};
        *out = olm::copy_text(common_json(olm::plan_step(items, limits)).dump());
    });
}
