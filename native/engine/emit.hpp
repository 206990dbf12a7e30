// Frames of events: packed by the engine thread, taken whole by the caller. The layout is in ../decl/engine.h.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "sampler.hpp"

namespace olm {

enum class EventKind : uint8_t { PROGRESS = 1, PIECE = 2, DONE = 3, FAILED = 4, EMBEDDING = 5 };
enum class DoneReason : uint8_t { STOP = 0, LENGTH = 1, CANCELLED = 2 };

struct Event {
    EventKind        kind;
    uint64_t         id;
    DoneReason       reason = DoneReason::STOP;
    uint16_t         code   = 0;
    uint32_t         numbers[5] = {};
    const std::vector<llama_token> * tokens = nullptr;
    std::string_view text  = {};
    std::string_view extra = {};
};

// A FAILED event; `message` must outlive the pushing of it.
Event failed(uint64_t id, int code, std::string_view message);

// Appends one token's entry of an event's logprobs.
void append_logprob(const Model & model, const Taken & taken, std::string & extra);

// The events that wait for the caller, and a descriptor that is readable while there are any.
class Outbox {
  public:
    Outbox();
    ~Outbox();
    Outbox(const Outbox &) = delete;
    Outbox & operator=(const Outbox &) = delete;

    // Engine thread. push() collects a step's events, flush() hands them over in one go. A caller that reads nothing
    // while megabytes pile up makes flush() wait; close() ends that.
    void push(const Event & event);
    void flush();

    // Caller. Valid until the next take().
    std::string_view take();
    int  event_fd() const { return fd_; }
    void close();

  private:
    void signal();

    std::vector<uint8_t> step_;     // the engine thread's own
    std::vector<uint8_t> waiting_;  // under lock_
    std::vector<uint8_t> taken_;    // the caller's own
    std::mutex              lock_;
    std::condition_variable emptied_;
    bool closed_ = false;
    int  fd_     = -1;
};

}  // namespace olm
