// A real redis-server of the test's own, on a Unix socket in a temporary folder; gone with the process. Link `test_redis`.
#pragma once

#include <sys/types.h>

#include <string>

#include "supervisor/base/redis_address.h"

namespace bulkhead {

class TestRedis {
 public:
  enum class Keeps { kNothing, kAll };  // what is there after Kill() and Start()
  explicit TestRedis(Keeps keeps = Keeps::kNothing);  // ends the process with a sentence when no server can be started
  ~TestRedis();
  TestRedis(const TestRedis&) = delete;

  RedisAddress address() const;
  void Kill();  // kill -9
  void Start();
  void Hang();  // SIGSTOP: it takes connections, and says nothing
  void GoOn();

 private:
  const Keeps keeps_;
  std::string root_;
  pid_t pid_ = -1;
};

}  // namespace bulkhead
