#include "worker_pool.h"

#include <system_error>

namespace bulkhead::sdk {

WorkerPool::WorkerPool(int max_threads, size_t max_waiting, Run run)
    : run_(std::move(run)), max_threads_(size_t(max_threads)), max_waiting_(max_waiting) {}

WorkerPool::~WorkerPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool WorkerPool::Submit(std::shared_ptr<LinkStream> stream) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_ || queue_.size() - turns_ >= max_waiting_ || !Push({std::move(stream), false})) return false;
  }
  wake_.notify_one();
  return true;
}

void WorkerPool::SubmitTurn(std::shared_ptr<LinkStream> stream) {
  {
    std::lock_guard lock(mutex_);
    if (!Push({std::move(stream), true})) return;  // no thread: then no handler has ever run, and there are no sockets
    ++turns_;
  }
  wake_.notify_one();
}

bool WorkerPool::Push(Waiting waiting) {
  if (free_ <= queue_.size() && threads_.size() < max_threads_) {
    try {
      threads_.emplace_back([this] { Work(); });
    } catch (const std::system_error&) {  // the limit on processes: those that are there go on
      if (threads_.empty()) return false;
    }
  }
  queue_.push_back(std::move(waiting));
  return true;
}

bool WorkerPool::WaitIdle(std::chrono::steady_clock::time_point until) {
  std::unique_lock lock(mutex_);
  return idle_.wait_until(lock, until, [&] { return queue_.empty() && active_ == 0; });
}

void WorkerPool::Work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    ++free_;
    wake_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    --free_;
    if (queue_.empty()) return;
    std::shared_ptr<LinkStream> stream = std::move(queue_.front().stream);
    turns_ -= queue_.front().turn;
    queue_.pop_front();
    ++active_;
    lock.unlock();
    run_(stream);
    stream.reset();
    lock.lock();
    --active_;
    if (active_ == 0 && queue_.empty()) idle_.notify_all();
  }
}

}  // namespace bulkhead::sdk
