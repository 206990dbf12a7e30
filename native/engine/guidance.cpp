#include "guidance.hpp"

#include <dlfcn.h>

#include <mutex>

#include "errors.hpp"

namespace olm {

namespace {

// The structs above are those of this series; a later one may have changed them.
constexpr char VERSION[] = "llguidance@1.9.";

struct State {
    std::mutex  lock;
    std::string path;
    bool        loaded = false;
    Guidance    functions{};
};

State & state() {
    static State one;
    return one;
}

[[noreturn]] void missing(const std::string & why) {
    throw Error(OLM_E_NOT_SUPPORTED, "structured output needs the package llguidance 1.9: " + why);
}

template <typename F> void find(void * library, const char * name, F & function) {
    function = reinterpret_cast<F>(dlsym(library, name));
    if (function == nullptr) {
        missing(std::string("its library has no ") + name);
    }
}

Guidance load(const std::string & path) {
    if (path.empty()) {
        missing("it is not installed");
    }
    // Never closed: matchers may outlive whoever asked first.
    void * library = dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
    if (library == nullptr) {
        missing(dlerror());
    }
    Guidance g{};
    find(library, "llg_get_version", g.get_version);
    const std::string version = g.get_version();
    if (version.rfind(VERSION, 0) != 0) {
        missing("found " + version);
    }
    find(library, "llg_constraint_init_set_defaults", g.constraint_init_set_defaults);
    find(library, "llg_new_tokenizer_v2", g.new_tokenizer_v2);
    find(library, "llg_free_tokenizer", g.free_tokenizer);
    find(library, "llg_new_matcher", g.new_matcher);
    find(library, "llg_clone_matcher", g.clone_matcher);
    find(library, "llg_free_matcher", g.free_matcher);
    find(library, "llg_matcher_compute_mask_into", g.matcher_compute_mask_into);
    find(library, "llg_matcher_get_mask_byte_size", g.matcher_get_mask_byte_size);
    find(library, "llg_matcher_consume_tokens", g.matcher_consume_tokens);
    find(library, "llg_matcher_get_error", g.matcher_get_error);
    find(library, "llg_matcher_is_stopped", g.matcher_is_stopped);
    return g;
}

}  // namespace

void set_guidance_path(const std::string & path) {
    const std::lock_guard<std::mutex> hold(state().lock);
    if (path != state().path) {
        state().path   = path;
        state().loaded = false;
    }
}

const Guidance & guidance() {
    State &                           s = state();
    const std::lock_guard<std::mutex> hold(s.lock);
    if (!s.loaded) {
        s.functions = load(s.path);
        s.loaded    = true;
    }
    return s.functions;
}

}  // namespace olm
