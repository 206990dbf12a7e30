#include "adapters.hpp"

#include <algorithm>
#include <cmath>

#include "errors.hpp"
#include "log.hpp"

namespace olm {

namespace {

constexpr const char * EMBEDDING_FACTOR = "token_embd.weight.lora_a";
constexpr const char * OUTPUT           = "output.weight";

void check_kind(const llama_adapter_lora * lora, const std::string & path) {
    if (llama_adapter_get_alora_n_invocation_tokens(lora) > 0) {
        throw Error(OLM_E_ADAPTER, "adapter " + path + " is switched on by an invocation (aLoRA), which is not supported");
    }
}

// Where embeddings are the output as well, llama.cpp looks the adapter up by the one name they share, takes its factors
// the wrong way round, and aborts at the first token.
void check_embedding(const std::string & path, const std::vector<std::string> & model_paths) {
    if (has_tensor({path}, EMBEDDING_FACTOR) && !has_tensor(model_paths, OUTPUT)) {
        throw Error(OLM_E_ADAPTER, "adapter " + path +
                                       " changes the token embeddings, which are this model's output as well: "
                                       "that cannot be run");
    }
}

}  // namespace

void load_adapters(Model & model, const std::vector<std::string> & paths, const common_json & adapters) {
    for (const common_json & item : adapters) {
        require(item.is_object(), OLM_E_INVALID_ARGUMENT, "\"adapters\" must be an array of objects");
        const Args        args(item);
        const std::string path = args.text("path");
        const uint64_t    mark = log_mark();
        llama_adapter_lora * lora = llama_adapter_lora_init(model.llama(), path.c_str());
        if (lora == nullptr) {
            throw Error(OLM_E_ADAPTER, "cannot load adapter " + path + ": " + errors_since(mark, "no reason given"));
        }
        check_kind(lora, path);
        check_embedding(path, paths);
        model.adapters.push_back({lora, args.number("scale", 1.0f)});
    }
}

Scales read_scales(const Args & args, const Model & model) {
    if (!args.has("adapters")) {
        return model.scales();
    }
    Scales scales;
    for (const common_json & item : args.array("adapters")) {
        require(item.is_number() && std::isfinite(item.get<float>()), OLM_E_INVALID_ARGUMENT,
                "\"adapters\" must be an array of finite numbers");
        scales.push_back(item.get<float>());
    }
    require(scales.size() == model.adapters.size(), OLM_E_INVALID_ARGUMENT,
            "\"adapters\" must have one scale for each adapter of the model");
    return scales;
}

void apply_adapters(llama_context * context, const Model & model, const Scales & scales) {
    std::vector<llama_adapter_lora *> loras;
    for (const Adapter & adapter : model.adapters) {
        loras.push_back(adapter.lora);
    }
    Scales     given = scales;  // llama.cpp wants to be able to write there
    const auto mark  = log_mark();
    if (llama_set_adapters_lora(context, loras.data(), loras.size(), given.data()) != 0) {
        throw Error(OLM_E_ADAPTER, errors_since(mark, "the adapters do not fit the model"));
    }
}

}  // namespace olm
