#include "supervisor/redis/redis_connector.h"

#include <utility>

namespace bulkhead {

RedisConnector::RedisConnector(RedisAddress address, Millis patience)
    : address_(std::move(address)), patience_(patience), thread_([this] { Connect(); }) {}

RedisConnector::~RedisConnector() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

std::unique_ptr<RedisClient> RedisConnector::Take() {
  {
    std::lock_guard lock(mutex_);
    if (ready_) {
      wanted_ = false;
      return std::move(ready_);
    }
    if (std::exchange(wanted_, true)) return nullptr;
  }
  wake_.notify_all();
  return nullptr;
}

void RedisConnector::Lost() {
  std::lock_guard lock(mutex_);
  pause_.Lost(Clock::Real().Now());
}

std::string RedisConnector::fault() const {
  std::lock_guard lock(mutex_);
  return fault_;
}

void RedisConnector::Connect() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || (wanted_ && !ready_); });
    wake_.wait_until(lock, pause_.next(), [this] { return stopping_; });
    if (stopping_) return;
    lock.unlock();
    auto client = RedisClient::Open(address_, patience_);
    lock.lock();
    fault_ = std::string(client.status().message());
    if (client.ok()) {
      ready_ = *std::move(client);
      pause_.Up(Clock::Real().Now());
    } else {
      pause_.Lost(Clock::Real().Now());
    }
  }
}

}  // namespace bulkhead
