// One thread that does one thing after another. Post() is thread-safe.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace bulkhead::sdk {

class SerialThread {
 public:
  SerialThread() : thread_([this] { Work(); }) {}
  SerialThread(const SerialThread&) = delete;
  // Finishes what was posted, then joins.
  ~SerialThread() {
    Post(nullptr);
    thread_.join();
  }
  void Post(std::function<void()> work) {
    {
      std::lock_guard lock(mutex_);
      queue_.push_back(std::move(work));
    }
    wake_.notify_one();
  }

 private:
  void Work() {
    for (;;) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return !queue_.empty(); });
      auto work = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      if (!work) return;
      work();
    }
  }
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  std::thread thread_;  // last: uses the rest
};

}  // namespace bulkhead::sdk
