#include "supervisor/base/blocking_pool.h"

#include <sys/prctl.h>

namespace bulkhead {

BlockingPool::BlockingPool(int threads, size_t max_queued) : max_queued_(max_queued) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
}

BlockingPool::~BlockingPool() {
  Shutdown();
  for (std::thread& thread : threads_) thread.join();
}

void BlockingPool::Shutdown() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
}

bool BlockingPool::Idle() {
  std::lock_guard lock(mutex_);
  return queue_.empty() && running_ == 0;
}

bool BlockingPool::AllBusy() {
  std::lock_guard lock(mutex_);
  return static_cast<size_t>(running_) == threads_.size();
}

BlockingPool::Load BlockingPool::load() const {
  std::lock_guard lock(mutex_);
  return {queue_.size(), running_};
}

bool BlockingPool::Submit(std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_ || queue_.size() >= max_queued_) return false;
    queue_.push_back(std::move(work));
  }
  wake_.notify_one();
  return true;
}

void BlockingPool::Work() {
  prctl(PR_SET_NAME, "pool");
  for (;;) {
    std::function<void()> work;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      work = std::move(queue_.front());
      queue_.pop_front();
      ++running_;
    }
    work();
    work = nullptr;  // what it holds goes before it counts as done
    std::lock_guard lock(mutex_);
    --running_;
  }
}

}  // namespace bulkhead
