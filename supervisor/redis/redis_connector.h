// Connections to Redis for a thread that must not wait for one: made on a thread of its own, with growing pauses between the tries. So a Redis that takes
// connections and does not answer costs whoever uses it one wait when it begins to hang, and nothing while it does. Thread-safe.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "supervisor/redis/redis_client.h"
#include "supervisor/redis/redis_pause.h"

namespace bulkhead {

class RedisConnector {
 public:
  // `patience` of the connections, see RedisClient::Open.
  RedisConnector(RedisAddress address, Millis patience);
  ~RedisConnector();  // a try that is under way is awaited: limits::kRedisGreeting twice at most, and the name's resolution
  RedisConnector(const RedisConnector&) = delete;

  // A connection, when one has been made since the last was taken; else null, and one is tried for from now on. Returns at once.
  std::unique_ptr<RedisClient> Take();
  // The one that was taken is of no use any more.
  void Lost();
  std::string fault() const;  // of the last try; empty when that went well, or is the first

 private:
  void Connect();

  const RedisAddress address_;
  const Millis patience_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::unique_ptr<RedisClient> ready_;
  std::string fault_;
  RedisPause pause_;
  bool wanted_ = false, stopping_ = false;
  std::thread thread_;  // last: uses the rest
};

}  // namespace bulkhead
