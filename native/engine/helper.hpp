// A thread that does jobs in order, beside the engine's. It starts with the first job.
#pragma once

#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>

namespace olm {

class Helper {
  public:
    // `after` is called on the helper's thread when a job's future has become ready; may be empty. The name is seen by
    // debuggers, 15 bytes at most.
    explicit Helper(const char * name, std::function<void()> after = {});
    // Waits for the running job; those that have not begun are dropped, and their futures broken.
    ~Helper();
    Helper(const Helper &) = delete;
    Helper & operator=(const Helper &) = delete;

    // What the job throws comes out of the future.
    std::future<void> run(std::function<void()> job);

  private:
    void start();
    void loop();

    const char *          name_;
    std::function<void()> after_;
    std::mutex              lock_;
    std::condition_variable wake_;
    std::deque<std::packaged_task<void()>> jobs_;
    bool      stopping_ = false;
    bool      started_  = false;
    pthread_t thread_   = {};
};

}  // namespace olm
