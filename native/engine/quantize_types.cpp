// Which type each tensor of a quantized file gets: llama.cpp's own decision, asked through its staging header without any
// weights. Declared in ../decl/quantize.h.
#include <memory>
#include <regex>
#include <vector>

#include "args.hpp"
#include "errors.hpp"
#include "llama-ext.h"
#include "llama-model.h"
#include "llama.h"
#include "log.hpp"

namespace {

using olm::require;

constexpr int64_t MAX_TENSORS = 1 << 16;
constexpr int64_t MAX_COUNT   = 1 << 30;

using ModelPointer = std::unique_ptr<llama_model, void (*)(llama_model *)>;
using StatePointer = std::unique_ptr<quantize_state_impl, void (*)(quantize_state_impl *)>;

// A model of hyper-parameters only.
ModelPointer describe(const olm::Args & args) {
    const std::string architecture = args.text("architecture");
    const auto        count        = [&args](const char * key, int64_t low, int64_t high) {
        return static_cast<uint32_t>(args.integer(key, low, low, high));
    };
    llama_quant_model_desc desc{};
    desc.architecture  = architecture.c_str();
    desc.n_embd        = count("n_embd", 0, MAX_COUNT);
    desc.n_ff          = count("n_ff", 0, MAX_COUNT);
    desc.n_layer       = count("n_layer", 1, LLAMA_MAX_LAYERS);
    desc.n_head        = count("n_head", 0, MAX_COUNT);
    desc.n_head_kv     = count("n_head_kv", 0, MAX_COUNT);
    desc.n_expert      = count("n_expert", 0, MAX_COUNT);
    desc.n_embd_head_k = count("head_k", 0, MAX_COUNT);
    desc.n_embd_head_v = count("head_v", 0, MAX_COUNT);
    require(llm_arch_from_string(architecture) != LLM_ARCH_UNKNOWN, OLM_E_INVALID_ARGUMENT,
            ("llama.cpp does not know the architecture \"" + architecture + "\"").c_str());
    ModelPointer model(llama_quant_model_from_metadata(&desc), llama_model_free);
    // Upstream's mock model knows of Llama's 70B only; loading a file finds others too (qwen2, olmo, deci, jais2).
    model->type = args.flag("is_70b", false) ? LLM_TYPE_70B : LLM_TYPE_UNKNOWN;
    return model;
}

ggml_type type_of(const olm::Args & args, const char * key, int64_t absent) {
    const int64_t number = args.integer(key, absent, -1, GGML_TYPE_COUNT);
    return number < 0 ? GGML_TYPE_COUNT : static_cast<ggml_type>(number);
}

struct Overrides {
    std::vector<std::string>                 patterns;
    std::vector<llama_model_tensor_override> entries;
};

void read_overrides(const olm::Args & args, Overrides & out) {
    std::vector<ggml_type> types;
    for (const common_json & item : args.array("overrides")) {
        const olm::Args entry(item);
        out.patterns.push_back(entry.text("pattern"));
        types.push_back(type_of(entry, "type", -1));
        require(types.back() != GGML_TYPE_COUNT, OLM_E_INVALID_ARGUMENT, "an override names no type");
    }
    for (size_t i = 0; i < types.size(); i++) {
        out.entries.push_back({out.patterns[i].c_str(), types[i]});
    }
    out.entries.push_back({nullptr, GGML_TYPE_COUNT});
}

std::vector<ggml_tensor> read_tensors(const olm::Args & args) {
    std::vector<ggml_tensor> tensors;
    for (const common_json & item : args.array("tensors")) {
        const olm::Args entry(item);
        ggml_tensor     tensor{};
        tensor.type = type_of(entry, "type", -1);
        require(tensor.type != GGML_TYPE_COUNT && tensors.size() < MAX_TENSORS, OLM_E_INVALID_ARGUMENT,
                "a tensor without a type, or too many");
        ggml_set_name(&tensor, entry.text("name").c_str());
        const common_json shape = entry.array("shape");
        require(shape.size() <= GGML_MAX_DIMS, OLM_E_INVALID_ARGUMENT, "a tensor of too many dimensions");
        for (size_t i = 0; i < GGML_MAX_DIMS; i++) {
            const bool is_said = i < shape.size();
            require(!is_said || shape[i].is_number_integer(), OLM_E_INVALID_ARGUMENT, "a dimension is no number");
            tensor.ne[i] = is_said ? shape[i].get<int64_t>() : 1;
            require(tensor.ne[i] > 0, OLM_E_INVALID_ARGUMENT, "a dimension is not positive");
        }
        tensors.push_back(tensor);
    }
    return tensors;
}

common_json choose(const olm::Args & args) {
    const ModelPointer model = describe(args);
    Overrides          overrides;
    read_overrides(args, overrides);
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.ftype                       = static_cast<llama_ftype>(args.integer("ftype", 0, 0, LLAMA_FTYPE_GUESSED));
    params.output_tensor_type          = type_of(args, "output_type", -1);
    params.token_embedding_type        = type_of(args, "embedding_type", -1);
    params.quantize_output_tensor      = !args.flag("keep_output", false);
    params.pure                        = args.flag("pure", false);
    params.tt_overrides                = overrides.entries.data();
    require(llama_ftype_get_default_type(params.ftype) != GGML_TYPE_COUNT, OLM_E_INVALID_ARGUMENT,
            "llama.cpp cannot write files of this type");
    const StatePointer state(llama_quant_init(model.get(), &params), llama_quant_free);

    std::vector<ggml_tensor>   tensors = read_tensors(args);
    std::vector<ggml_tensor *> pointers;
    for (ggml_tensor & tensor : tensors) {
        pointers.push_back(&tensor);
    }
    std::vector<ggml_type> types(tensors.size());
    llama_quant_compute_types(state.get(), params.ftype, pointers.data(), types.data(), tensors.size());
    common_json out = common_json::array();
    for (size_t i = 0; i < tensors.size(); i++) {
        out.push_back({{"type", static_cast<int>(types[i])},
                       {"quantizable", llama_quant_tensor_allows_quantization(state.get(), &tensors[i])}});
    }
    return out;
}

}  // namespace

int olm_quantize_types(const char * json, char ** out) {
    return olm::guard([&] {
        require(out != nullptr, OLM_E_INVALID_ARGUMENT, "out is NULL");
        olm::install_log_sink();  // it tells of every override on standard error
        try {
            *out = olm::copy_text(choose(olm::Args(json)).dump());
        } catch (const std::regex_error & error) {
            throw olm::Error(OLM_E_INVALID_ARGUMENT,
                             std::string("an override's pattern is no regular expression: ") + error.what());
        } catch (const olm::Error &) {
            throw;
        } catch (const std::runtime_error & error) {
            throw olm::Error(OLM_E_INVALID_ARGUMENT, error.what());  // rows that no type of the recipe fits
        }
    });
}
