#include "log.hpp"

#include <cstdio>
#include <deque>
#include <mutex>

#include "errors.hpp"
#include "ggml.h"
#include "json.h"
#include "llama.h"
#include "log.h"

namespace olm {

namespace {

constexpr size_t RING_LINES = 64;     // more than any failed load writes
constexpr size_t LINE_BYTES = 4096;   // a hostile file may name its tensors at length
constexpr int    COMMON_LOG_OFF = -1; // below every level of common/log.h: its own thread is never started

struct Line {
    uint64_t       number;
    ggml_log_level level;
    std::string    text;
};

std::mutex       ring_lock;
std::deque<Line> ring;
uint64_t         next_number = 0;

// Lines arrive in pieces: a piece of level CONT goes on where the last one stopped.
Line open_line = {0, GGML_LOG_LEVEL_NONE, ""};

void close_line() {
    if (open_line.text.empty()) {
        return;
    }
    if (open_line.level == GGML_LOG_LEVEL_ERROR) {
        // Also to stderr: if the process dies next, that is its crash report.
        std::fprintf(stderr, "%s\n", open_line.text.c_str());
    }
    open_line.number = next_number++;
    ring.push_back(open_line);
    open_line.text.clear();
    if (ring.size() > RING_LINES) {
        ring.pop_front();
    }
}

void sink(ggml_log_level level, const char * text, void *) noexcept {
    try {
        const std::lock_guard<std::mutex> hold(ring_lock);
        if (level != GGML_LOG_LEVEL_CONT) {
            close_line();
            open_line.level = level;
        }
        if (open_line.level != GGML_LOG_LEVEL_WARN && open_line.level != GGML_LOG_LEVEL_ERROR) {
            return;
        }
        std::string piece = text;
        const bool  ended = !piece.empty() && piece.back() == '\n';
        while (!piece.empty() && piece.back() == '\n') {
            piece.pop_back();
        }
        if (open_line.text.size() < LINE_BYTES) {
            open_line.text.append(piece, 0, LINE_BYTES - open_line.text.size());
        }
        if (ended) {
            close_line();
        }
    } catch (...) {
        // A lost log line is better than an exception through llama.cpp.
    }
}

// llama.cpp puts the function's name before most lines; users need the rest.
std::string without_function(const std::string & line) {
    const size_t colon = line.find(": ");
    if (colon == std::string::npos || line.find(' ') < colon) {
        return line;
    }
    return line.substr(colon + 2);
}

}  // namespace

void install_log_sink() {
    llama_log_set(sink, nullptr);
    common_log_set_verbosity_thold(COMMON_LOG_OFF);
}

uint64_t log_mark() {
    const std::lock_guard<std::mutex> hold(ring_lock);
    return next_number;
}

std::string errors_since(uint64_t mark, const std::string & otherwise) {
    const std::lock_guard<std::mutex> hold(ring_lock);
    std::string joined;
    for (const Line & line : ring) {
        if (line.number >= mark && line.level == GGML_LOG_LEVEL_ERROR) {
            joined += (joined.empty() ? "" : "; ") + in_one_line(without_function(line.text));
        }
    }
    return joined.empty() ? otherwise : joined;
}

}  // namespace olm

int olm_log_json(char ** out) {
    return olm::guard([&] {
        olm::require(out != nullptr, OLM_E_INVALID_ARGUMENT, "out is NULL");
        common_json lines = common_json::array();
        {
            const std::lock_guard<std::mutex> hold(olm::ring_lock);
            for (const olm::Line & line : olm::ring) {
                lines.push_back(
                    {{"level", line.level == GGML_LOG_LEVEL_ERROR ? "error" : "warn"}, {"text", line.text}});
            }
        }
        *out = olm::copy_text(lines.dump_safe());
    });
}
