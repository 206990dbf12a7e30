#include "errors.hpp"

#include <cstdlib>
#include <cstring>
#include <typeinfo>

#include "json.h"

namespace olm {

namespace {

thread_local std::string last_error;

#define OLM_ERROR_NAME(name) #name,
const char * const ERROR_NAMES[] = {OLM_ERROR_TABLE(OLM_ERROR_NAME)};
#undef OLM_ERROR_NAME

}  // namespace

std::string in_one_line(const std::string & text) {
    std::string line;
    for (const char c : text) {
        const bool blank = static_cast<unsigned char>(c) <= ' ' || c == 0x7f;
        if (!blank) {
            line += c;
        } else if (!line.empty() && line.back() != ' ') {
            line += ' ';
        }
    }
    while (!line.empty() && line.back() == ' ') {
        line.pop_back();
    }
    return line;
}

bool is_bare(const std::exception & error) {
    return typeid(error) == typeid(std::exception) || typeid(error) == typeid(std::out_of_range) ||
           typeid(error) == typeid(std::length_error);
}

std::string error_words(const std::exception & error) {
    const std::string words = in_one_line(error.what());
    return is_bare(error) ? "llama.cpp could not use the model's data, which is invalid (" + words + ")" : words;
}

void set_last_error(const std::string & message) noexcept {
    try {
        last_error = message;
    } catch (...) {
        last_error.clear();  // no memory even for the message: the code alone must do
    }
}

void * copy_bytes(const void * data, size_t n_bytes) {
    void * copy = std::malloc(n_bytes > 0 ? n_bytes : 1);
    if (copy == nullptr) {
        throw std::bad_alloc();
    }
    if (n_bytes > 0) {
        std::memcpy(copy, data, n_bytes);
    }
    return copy;
}

char * copy_text(const std::string & text) {
    return static_cast<char *>(copy_bytes(text.c_str(), text.size() + 1));
}

int code_of_current_exception() noexcept {
    try {
        throw;
    } catch (const Error & error) {
        set_last_error(error.what());
        return error.code;
    } catch (const common_json_error & error) {
        set_last_error(std::string("invalid JSON: ") + error.what());
        return OLM_E_INVALID_ARGUMENT;
    } catch (const std::bad_alloc &) {
        set_last_error("out of memory");
        return OLM_E_OUT_OF_MEMORY;
    } catch (const std::exception & error) {
        set_last_error(error_words(error));
        return OLM_E_INTERNAL;
    } catch (...) {
        set_last_error("unknown exception");
        return OLM_E_INTERNAL;
    }
}

}  // namespace olm

const char * olm_last_error(void) {
    return olm::last_error.c_str();
}

int olm_error_count(void) {
    return OLM_ERROR_COUNT;
}

const char * olm_error_name(int code) {
    return code >= 0 && code < OLM_ERROR_COUNT ? olm::ERROR_NAMES[code] : nullptr;
}

int olm_abi_version(void) {
    return OLM_ABI_VERSION;
}

void olm_free(void * memory) {
    std::free(memory);
}
