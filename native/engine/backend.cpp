#include "backend.hpp"

#include <mutex>
#include <set>
#include <string>

#include "args.hpp"
#include "errors.hpp"
#include "ggml-backend.h"
#include "guidance.hpp"
#include "llama.h"
#include "log.hpp"

namespace olm {

namespace {

std::mutex            init_lock;
std::set<std::string> loaded;

void load_backend(const std::string & path) {
    if (path.empty() || path[0] != '/') {
        throw Error(OLM_E_INVALID_ARGUMENT, "a backend's path must be absolute, got \"" + path + "\"");
    }
    if (loaded.count(path) > 0) {
        return;
    }
    const uint64_t mark = log_mark();
    if (ggml_backend_load(path.c_str()) == nullptr) {
        throw Error(OLM_E_BACKEND, "cannot load backend " + path + ": " + errors_since(mark, "no reason given"));
    }
    loaded.insert(path);
}

const char * type_name(enum ggml_backend_dev_type type) {
    switch (type) {
        case GGML_BACKEND_DEVICE_TYPE_CPU:   return "cpu";
        case GGML_BACKEND_DEVICE_TYPE_GPU:   return "gpu";
        case GGML_BACKEND_DEVICE_TYPE_IGPU:  return "igpu";
        case GGML_BACKEND_DEVICE_TYPE_ACCEL: return "accel";
        case GGML_BACKEND_DEVICE_TYPE_META:  return "meta";
    }
    return "unknown";
}

common_json describe(ggml_backend_dev_t device) {
    ggml_backend_dev_props props;
    ggml_backend_dev_get_props(device, &props);
    return common_json::object({
        {"name", std::string(props.name)},
        {"description", std::string(props.description)},
        {"type", std::string(type_name(props.type))},
        {"backend", std::string(ggml_backend_reg_name(ggml_backend_dev_backend_reg(device)))},
        {"device_id", std::string(props.device_id != nullptr ? props.device_id : "")},
        {"memory_free_bytes", static_cast<uint64_t>(props.memory_free)},
        {"memory_total_bytes", static_cast<uint64_t>(props.memory_total)},
    });
}

}  // namespace

void require_backend() {
    require(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) != nullptr, OLM_E_NOT_INITIALIZED,
            "no CPU backend is loaded: call olm_init first");
}

}  // namespace olm

int olm_init(const char * json) {
    return olm::guard([&] {
        const olm::Args args(json);
        const std::lock_guard<std::mutex> hold(olm::init_lock);
        olm::install_log_sink();
        for (const std::string & path : args.texts("backends")) {
            olm::load_backend(path);
        }
        if (args.has("cpu")) {
            olm::load_backend(args.text("cpu"));
        }
        if (args.has("guidance")) {
            olm::set_guidance_path(args.text("guidance"));
        }
        olm::require_backend();
        // After the backends: with none registered it would search for them.
        llama_backend_init();
    });
}

int olm_devices_json(char ** out) {
    return olm::guard([&] {
        olm::require(out != nullptr, OLM_E_INVALID_ARGUMENT, "out is NULL");
        olm::require_backend();
        common_json devices = common_json::array();
        for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
            devices.push_back(olm::describe(ggml_backend_dev_get(i)));
        }
        *out = olm::copy_text(devices.dump_safe());
    });
}
