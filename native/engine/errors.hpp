// How failures travel: an Error inside the library, a code and a thread's last message outside it.
#pragma once

#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "olm_engine.h"

namespace olm {

class Error : public std::runtime_error {
  public:
    Error(int code, const std::string & message) : std::runtime_error(message), code(code) {}

    const int code;
};

void set_last_error(const std::string & message) noexcept;

// Nothing but a C++ function's name: llama.cpp looks things up in the model's data with at(), and throws without words.
bool is_bare(const std::exception & error);

// A failure's words in one line; bare ones get a meaning.
std::string error_words(const std::exception & error);
std::string in_one_line(const std::string & text);

// Copy into memory that olm_free() frees.
char * copy_text(const std::string & text);
void * copy_bytes(const void * data, size_t n_bytes);

// Turns the exception in flight into a code, and keeps its message for olm_last_error().
int code_of_current_exception() noexcept;

// Every function of the C interface runs inside this: nothing is thrown across it.
template <typename F> int guard(F && body) noexcept {
    try {
        body();
        return OLM_E_OK;
    } catch (...) {
        return code_of_current_exception();
    }
}

inline void require(bool ok, int code, const char * message) {
    if (!ok) {
        throw Error(code, message);
    }
}

}  // namespace olm
