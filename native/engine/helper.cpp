#include "helper.hpp"

#include "errors.hpp"

namespace olm {

namespace {

// llguidance recurses once for each reference of a grammar, some 9 KiB deep, and a client's schema of the largest size has
// 35,000 of them. Pages that are not touched cost nothing.
constexpr size_t STACK_BYTES = size_t(1) << 30;

}  // namespace

Helper::Helper(const char * name, std::function<void()> after) : name_(name), after_(std::move(after)) {}

Helper::~Helper() {
    {
        const std::lock_guard<std::mutex> hold(lock_);
        stopping_ = true;
        wake_.notify_all();
    }
    if (started_) {
        pthread_join(thread_, nullptr);
    }
}

std::future<void> Helper::run(std::function<void()> job) {
    std::packaged_task<void()>        task(std::move(job));
    std::future<void>                 future = task.get_future();
    const std::lock_guard<std::mutex> hold(lock_);
    jobs_.push_back(std::move(task));
    if (!started_) {
        start();
    }
    wake_.notify_one();
    return future;
}

// std::thread takes no size of a stack.
void Helper::start() {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    const auto enter = [](void * helper) -> void * {
        static_cast<Helper *>(helper)->loop();
        return nullptr;
    };
    const int failed = pthread_create(&thread_, &attributes, enter, this);
    pthread_attr_destroy(&attributes);
    require(failed == 0, OLM_E_OUT_OF_MEMORY, "a thread for grammars cannot be started");
    started_ = true;
    pthread_setname_np(thread_, name_);
}

void Helper::loop() {
    for (;;) {
        std::packaged_task<void()> task;
        {
            std::unique_lock<std::mutex> hold(lock_);
            wake_.wait(hold, [&] { return stopping_ || !jobs_.empty(); });
            if (stopping_) {
                return;
            }
            task = std::move(jobs_.front());
            jobs_.pop_front();
        }
        task();
        if (after_) {
            after_();
        }
    }
}

}  // namespace olm
