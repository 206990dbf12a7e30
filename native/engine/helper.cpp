#include "helper.hpp"

#include <pthread.h>

namespace olm {

Helper::Helper(const char * name, std::function<void()> after) : name_(name), after_(std::move(after)) {}

Helper::~Helper() {
    {
        const std::lock_guard<std::mutex> hold(lock_);
        stopping_ = true;
        wake_.notify_all();
    }
    if (thread_.joinable()) {
        thread_.join();
    }
}

std::future<void> Helper::run(std::function<void()> job) {
    std::packaged_task<void()>        task(std::move(job));
    std::future<void>                 future = task.get_future();
    const std::lock_guard<std::mutex> hold(lock_);
    jobs_.push_back(std::move(task));
    if (!thread_.joinable()) {
        thread_ = std::thread([this] { loop(); });
        pthread_setname_np(thread_.native_handle(), name_);
    }
    wake_.notify_one();
    return future;
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
