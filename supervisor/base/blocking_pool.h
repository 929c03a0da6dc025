// A few threads for work that blocks: libpq, archives, hashing. Bounded: a full queue refuses, so that a slow database is
// answered with an error and not with memory (OVERLOADED; the jobs take it for DATABASE_UNAVAILABLE, which they wait out).
// Thread-safe.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace bulkhead {

class BlockingPool {
 public:
  BlockingPool(int threads, size_t max_queued);
  BlockingPool(const BlockingPool&) = delete;
  ~BlockingPool();  // runs what is queued, then joins

  // False when the queue is full or Shutdown() was called: the work did not and will not run.
  [[nodiscard]] bool Submit(std::function<void()> work);
  // Takes nothing more; what is queued still runs.
  void Shutdown();
  // Nothing runs and nothing is queued.
  bool Idle();
  // Every thread is at work: what is submitted now waits for one of them.
  bool AllBusy();
  struct Load {
    size_t queued = 0;
    int running = 0;
  };
  Load load() const;

 private:
  void Work();
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  const size_t max_queued_;
  int running_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace bulkhead
