// llama.cpp's log, kept in C: a ring of its last warnings and errors, which is where it says why a load failed.
#pragma once

#include <cstdint>
#include <string>

namespace olm {

void install_log_sink();

// A place in the log; errors_since() gives the error lines written after it, joined by "; ", or `otherwise`.
uint64_t    log_mark();
std::string errors_since(uint64_t mark, const std::string & otherwise);

}  // namespace olm
