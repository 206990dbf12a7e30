#include "emit.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "errors.hpp"

namespace olm {

namespace {

constexpr size_t MAX_WAITING_BYTES = 32 << 20;  // embeddings of 2,000 inputs fit; text never gets near
constexpr size_t HEADER_BYTES      = 48;
constexpr size_t PADDING           = 8;

template <typename T> void put(std::vector<uint8_t> & out, T value) {
    const auto * bytes = reinterpret_cast<const uint8_t *>(&value);
    out.insert(out.end(), bytes, bytes + sizeof value);
}

template <typename T> void put(std::string & out, T value) {
    out.append(reinterpret_cast<const char *>(&value), sizeof value);
}

}  // namespace

Event failed(uint64_t id, int code, std::string_view message) {
    Event event{EventKind::FAILED, id};
    event.code = static_cast<uint16_t>(code);
    event.text = message;
    return event;
}

void append_logprob(const Model & model, const Taken & taken, std::string & extra) {
    const auto entry = [&](llama_token token, float logprob, int n_top) {
        std::string bytes;
        append_piece(model, token, true, bytes);
        bytes.resize(std::min<size_t>(bytes.size(), UINT16_MAX));
        put(extra, logprob);
        put(extra, static_cast<uint16_t>(bytes.size()));
        if (n_top >= 0) {
            put(extra, static_cast<uint16_t>(n_top));
        }
        extra.append(bytes);
    };
    entry(taken.token, taken.logprob, static_cast<int>(taken.top.size()));
    for (const Logprob & item : taken.top) {
        entry(item.token, item.logprob, -1);
    }
}

Outbox::Outbox() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (fd_ < 0) {
        throw Error(OLM_E_INTERNAL, std::string("eventfd: ") + std::strerror(errno));
    }
}

Outbox::~Outbox() {
    ::close(fd_);
}

void Outbox::push(const Event & event) {
    const size_t n_tokens = event.tokens == nullptr ? 0 : event.tokens->size();
    const size_t plain    = HEADER_BYTES + n_tokens * sizeof(int32_t) + event.text.size() + event.extra.size();
    const size_t size     = (plain + PADDING - 1) / PADDING * PADDING;
    require(size <= UINT32_MAX, OLM_E_INTERNAL, "an event is too large");

    put(step_, static_cast<uint32_t>(size));
    put(step_, static_cast<uint8_t>(event.kind));
    put(step_, static_cast<uint8_t>(event.reason));
    put(step_, event.code);
    put(step_, event.id);
    put(step_, static_cast<uint32_t>(n_tokens));
    put(step_, static_cast<uint32_t>(event.text.size()));
    put(step_, static_cast<uint32_t>(event.extra.size()));
    for (const uint32_t number : event.numbers) {
        put(step_, number);
    }
    if (n_tokens > 0) {
        const auto * bytes = reinterpret_cast<const uint8_t *>(event.tokens->data());
        step_.insert(step_.end(), bytes, bytes + n_tokens * sizeof(int32_t));
    }
    step_.insert(step_.end(), event.text.begin(), event.text.end());
    step_.insert(step_.end(), event.extra.begin(), event.extra.end());
    step_.resize(step_.size() + size - plain);
}

void Outbox::flush() {
    if (step_.empty()) {
        return;
    }
    std::unique_lock<std::mutex> hold(lock_);
    emptied_.wait(hold, [&] { return closed_ || waiting_.size() < MAX_WAITING_BYTES; });
    const bool was_empty = waiting_.empty();
    if (was_empty) {
        waiting_.swap(step_);
    } else {
        waiting_.insert(waiting_.end(), step_.begin(), step_.end());
    }
    step_.clear();
    if (was_empty) {
        signal();
    }
}

void Outbox::signal() {
    const uint64_t one = 1;
    // Cannot fail but by a full counter, which is readable already.
    (void) !::write(fd_, &one, sizeof one);
}

std::string_view Outbox::take() {
    const std::lock_guard<std::mutex> hold(lock_);
    taken_.clear();
    taken_.swap(waiting_);
    uint64_t count = 0;
    (void) !::read(fd_, &count, sizeof count);
    emptied_.notify_all();
    return {reinterpret_cast<const char *>(taken_.data()), taken_.size()};
}

void Outbox::close() {
    const std::lock_guard<std::mutex> hold(lock_);
    closed_ = true;
    emptied_.notify_all();
}

}  // namespace olm
