// Loading a model, and its facts.
#include "model.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <future>

#include "adapters.hpp"
#include "args.hpp"
#include "backend.hpp"
#include "errors.hpp"
#include "gguf.h"
#include "log.hpp"

namespace olm {

namespace {

bool on_progress(float progress, void * state) {
    auto * shared    = static_cast<olm_load_state *>(state);
    shared->progress = progress;
    return shared->cancel == 0;
}

llama_model_kv_override override_of(const std::string & key, const common_json & value) {
    llama_model_kv_override item = {};
    require(!key.empty() && key.size() < sizeof item.key, OLM_E_INVALID_ARGUMENT, "a metadata key is too long");
    std::memcpy(item.key, key.c_str(), key.size() + 1);
    if (value.is_boolean()) {
        item.tag      = LLAMA_KV_OVERRIDE_TYPE_BOOL;
        item.val_bool = value.get<bool>();
    } else if (value.is_number_integer()) {
        item.tag     = LLAMA_KV_OVERRIDE_TYPE_INT;
        item.val_i64 = value.get<int64_t>();
    } else if (value.is_number()) {
        item.tag     = LLAMA_KV_OVERRIDE_TYPE_FLOAT;
        item.val_f64 = value.get<double>();
    } else {
        require(value.is_string(), OLM_E_INVALID_ARGUMENT, "a metadata override must be a scalar");
        const std::string text = value.get<std::string>();
        require(text.size() < sizeof item.val_str, OLM_E_INVALID_ARGUMENT, "a metadata override is too long");
        item.tag = LLAMA_KV_OVERRIDE_TYPE_STR;
        std::memcpy(item.val_str, text.c_str(), text.size() + 1);
    }
    return item;
}

std::vector<llama_model_kv_override> overrides_of(const Args & args) {
    std::vector<llama_model_kv_override> all;
    const common_json object = args.object("override");
    for (const auto & [key, value] : object.items()) {
        all.push_back(override_of(key, value));
    }
    all.push_back({});  // an empty key ends the list
    return all;
}

llama_load_mode load_mode_of(const Args & args) {
    const bool mlock = args.flag("use_mlock", false);
    if (!args.has("use_mmap")) {
        return mlock ? LLAMA_LOAD_MODE_MMAP_MLOCK : LLAMA_LOAD_MODE_AUTO;
    }
    if (args.flag("use_mmap", true)) {
        return mlock ? LLAMA_LOAD_MODE_MMAP_MLOCK : LLAMA_LOAD_MODE_MMAP;
    }
    return mlock ? LLAMA_LOAD_MODE_MLOCK : LLAMA_LOAD_MODE_NONE;
}

std::vector<std::string> paths_of(const Args & args) {
    std::vector<std::string> paths = args.texts("paths");
    if (paths.empty()) {
        paths.push_back(args.text("path"));
    }
    for (const std::string & path : paths) {
        require(!path.empty(), OLM_E_INVALID_ARGUMENT, "\"path\" is missing");
        // Asked here because llama.cpp's own words for it hide behind two other lines.
        std::FILE * file = std::fopen(path.c_str(), "rb");
        if (file == nullptr) {
            throw Error(OLM_E_MODEL_LOAD, "cannot open " + path + ": " + std::strerror(errno));
        }
        std::fclose(file);
    }
    return paths;
}

llama_model * load_handle(const std::vector<std::string> & paths, llama_model_params params) {
    if (paths.size() == 1) {
        return llama_model_load_from_file(paths[0].c_str(), params);
    }
    std::vector<const char *> parts;
    for (const std::string & path : paths) {
        parts.push_back(path.c_str());
    }
    return llama_model_load_from_splits(parts.data(), parts.size(), params);
}

// Load in a thread that ends. Repacking weights is parallel, and libgomp keeps a team of threads for every thread that
// ever opened one. While that team lives, libgomp counts more threads than cores and lets the engine's team sleep at each
// barrier instead of spinning: decoding was half as fast (0.5 B, two cores: 23 tokens/s instead of 45). A team ends with
// its thread.
llama_model * load_in_passing_thread(const std::vector<std::string> & paths, llama_model_params params) {
    return std::async(std::launch::async, load_handle, std::cref(paths), params).get();
}

std::string meta(const llama_model * model, const char * key) {
    char      small[256];
    const int n = llama_model_meta_val_str(model, key, small, sizeof small);
    if (n < 0) {
        return "";
    }
    if (n < static_cast<int>(sizeof small)) {
        return std::string(small, n);
    }
    std::string large(n + 1, '\0');
    llama_model_meta_val_str(model, key, large.data(), large.size());
    large.resize(n);
    return large;
}

// The pooling that the file names, -1 if it names none.
int pooling_of(const llama_model * model) {
    const std::string pooling = meta(model, (meta(model, "general.architecture") + ".pooling_type").c_str());
    return pooling.empty() ? -1 : std::atoi(pooling.c_str());
}

// Whether one of the files has the tensors of a classifier: without them llama.cpp would give the first numbers of a
// hidden state as scores.
bool has_head(const std::vector<std::string> & paths) {
    return has_tensor(paths, "cls.weight") || has_tensor(paths, "cls.output.weight");
}

std::shared_ptr<Model> load(const Args & args, olm_load_state * state) {
    require_backend();
    const std::vector<std::string> paths     = paths_of(args);
    const auto                     overrides = overrides_of(args);

    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers       = static_cast<int32_t>(args.integer("n_gpu_layers", -1, -1, 1 << 20));
    params.load_mode          = load_mode_of(args);
    params.vocab_only         = args.flag("vocab_only", false);
    params.check_tensors      = args.flag("check_tensors", false);
    params.use_extra_bufts    = args.flag("use_extra_bufts", true);
    params.kv_overrides       = overrides.size() > 1 ? overrides.data() : nullptr;
    if (args.has("main_gpu")) {
        params.split_mode = LLAMA_SPLIT_MODE_NONE;
        params.main_gpu   = static_cast<int32_t>(args.integer("main_gpu", 0, 0, 15));
    }
    if (state != nullptr) {
        params.progress_callback           = on_progress;
        params.progress_callback_user_data = state;
    }

    const uint64_t mark = log_mark();
    auto model          = std::make_shared<Model>();
    model->vocab_only   = params.vocab_only;
    model->handle.reset(load_in_passing_thread(paths, params));
    if (!model->handle) {
        require(state == nullptr || state->cancel == 0, OLM_E_CANCELLED, "loading was cancelled");
        throw Error(OLM_E_MODEL_LOAD, errors_since(mark, "llama.cpp gives no reason"));
    }
    load_adapters(*model, paths, args.array("adapters"));
    model->can_rank = pooling_of(model->llama()) == LLAMA_POOLING_TYPE_RANK && has_head(paths);
    return model;
}

// Reads entry i through one of the *_by_index functions, which tell the whole length however small the buffer is.
template <typename F> std::string entry(F read, const llama_model * model, int i) {
    const int   n = read(model, i, nullptr, 0);
    std::string text(n > 0 ? n + 1 : 1, '\0');
    read(model, i, text.data(), text.size());
    text.resize(n > 0 ? n : 0);
    return text;
}

const char * vocab_type_name(enum llama_vocab_type type) {
    switch (type) {
        case LLAMA_VOCAB_TYPE_NONE:   return "none";
        case LLAMA_VOCAB_TYPE_SPM:    return "spm";
        case LLAMA_VOCAB_TYPE_BPE:    return "bpe";
        case LLAMA_VOCAB_TYPE_WPM:    return "wpm";
        case LLAMA_VOCAB_TYPE_UGM:    return "ugm";
        case LLAMA_VOCAB_TYPE_RWKV:   return "rwkv";
        case LLAMA_VOCAB_TYPE_PLAMO2: return "plamo2";
        default:                      return "other";
    }
}

common_json end_tokens(const llama_vocab * vocab) {
    common_json all = common_json::array();
    for (llama_token token = 0; token < llama_vocab_n_tokens(vocab); token++) {
        if (llama_vocab_is_eog(vocab, token)) {
            all.push_back(token);
        }
    }
    return all;
}

common_json info(const Model & model) {
    const llama_model * handle = model.llama();
    const llama_vocab * vocab  = model.vocab();
    char                description[128];
    llama_model_desc(handle, description, sizeof description);
    const char *        rerank = llama_model_chat_template(handle, "rerank");

    common_json facts = common_json::object();
    facts["arch"]              = meta(handle, "general.architecture");
    facts["description"]       = std::string(description);
    facts["n_params"]          = llama_model_n_params(handle);
    facts["size_bytes"]        = llama_model_size(handle);
    facts["n_ctx_train"]       = llama_model_n_ctx_train(handle);
    facts["n_embd"]            = llama_model_n_embd(handle);
    facts["n_embd_out"]        = llama_model_n_embd_out(handle);
    facts["n_layer"]           = llama_model_n_layer(handle);
    // Asking for heads of a layer that is not there aborts: so with the vocabulary alone.
    const bool has_layers      = llama_model_n_layer(handle) > 0;
    facts["n_head"]            = has_layers ? llama_model_n_head(handle) : 0;
    facts["n_head_kv"]         = has_layers ? llama_model_n_head_kv(handle) : 0;
    facts["n_swa"]             = llama_model_n_swa(handle);
    facts["n_vocab"]           = llama_vocab_n_tokens(vocab);
    facts["vocab_type"]        = std::string(vocab_type_name(llama_vocab_type(vocab)));
    facts["pooling"]           = pooling_of(handle);
    facts["can_rank"]          = model.can_rank;
    facts["has_encoder"]       = llama_model_has_encoder(handle);
    facts["has_decoder"]       = llama_model_has_decoder(handle);
    facts["is_recurrent"]      = llama_model_is_recurrent(handle);
    facts["is_hybrid"]         = llama_model_is_hybrid(handle);
    facts["has_chat_template"] = llama_model_chat_template(handle, nullptr) != nullptr;
    facts["add_bos"]           = llama_vocab_get_add_bos(vocab);
    facts["add_eos"]           = llama_vocab_get_add_eos(vocab);
    facts["bos"]               = llama_vocab_bos(vocab);
    facts["eos"]               = llama_vocab_eos(vocab);
    facts["eot"]               = llama_vocab_eot(vocab);
    facts["sep"]               = llama_vocab_sep(vocab);
    facts["add_sep"]           = llama_vocab_get_add_sep(vocab);
    facts["eog"]               = end_tokens(vocab);
    facts["n_adapters"]        = static_cast<int>(model.adapters.size());
    facts["rerank_template"]   = rerank == nullptr ? std::string() : std::string(rerank);
    return facts;
}

}  // namespace

bool has_tensor(const std::vector<std::string> & paths, const char * name) {
    return std::any_of(paths.begin(), paths.end(), [&](const std::string & path) {
        const std::unique_ptr<gguf_context, void (*)(gguf_context *)> file(
            gguf_init_from_file(path.c_str(), {/*.no_alloc=*/true, /*.ctx=*/nullptr}), gguf_free);
        return file && gguf_find_tensor(file.get(), name) >= 0;
    });
}

Scales Model::scales() const {
    Scales all;
    for (const Adapter & adapter : adapters) {
        all.push_back(adapter.scale);
    }
    return all;
}

}  // namespace olm

int olm_model_load(const char * json, olm_load_state * state, olm_model ** out) {
    return olm::guard([&] {
        olm::require(out != nullptr, OLM_E_INVALID_ARGUMENT, "out is NULL");
        *out = new olm_model{olm::load(olm::Args(json), state)};
    });
}

void olm_model_free(olm_model * model) {
    delete model;
}

int olm_model_info_json(olm_model * model, char ** out) {
    return olm::guard([&] {
        olm::require(model && out, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        *out = olm::copy_text(olm::info(*model->model).dump_safe());
    });
}

int olm_model_meta_json(olm_model * model, char ** out) {
    return olm::guard([&] {
        olm::require(model && out, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        const llama_model * handle = model->model->llama();
        common_json         all    = common_json::object();
        for (int i = 0; i < llama_model_meta_count(handle); i++) {
            all[olm::entry(llama_model_meta_key_by_index, handle, i)] =
                olm::entry(llama_model_meta_val_str_by_index, handle, i);
        }
        *out = olm::copy_text(all.dump_safe());
    });
}
