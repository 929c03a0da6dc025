// The bounded threads that run handlers and the turns of sockets, each started when it is first needed. Thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace bulkhead::sdk {

class LinkStream;

class WorkerPool {
 public:
  using Run = std::function<void(const std::shared_ptr<LinkStream>&)>;
  WorkerPool(int max_threads, size_t max_waiting, Run run);
  WorkerPool(const WorkerPool&) = delete;
  ~WorkerPool();  // joins: only once WaitIdle() was true

  // False when max_waiting requests wait already, or when there is no thread and none can be started.
  [[nodiscard]] bool Submit(std::shared_ptr<LinkStream> stream);
  // A turn of a stream that was let in before. Always taken and not counted as waiting: a socket waits once at most, and there
  // are kMaxWebSockets at most.
  void SubmitTurn(std::shared_ptr<LinkStream> stream);
  int active() const { return active_.load(std::memory_order_relaxed); }
  // True when nothing runs and nothing waits, by `until` at the latest.
  bool WaitIdle(std::chrono::steady_clock::time_point until);

 private:
  struct Waiting {
    std::shared_ptr<LinkStream> stream;
    bool turn;
  };
  void Work();
  bool Push(Waiting waiting);  // with the mutex held
  const Run run_;
  const size_t max_threads_, max_waiting_;
  std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::deque<Waiting> queue_;
  size_t turns_ = 0;  // of what is in queue_
  std::atomic<int> active_{0};
  size_t free_ = 0;  // threads that wait for work
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace bulkhead::sdk
