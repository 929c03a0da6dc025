// One connection to Redis (RESP2, by hiredis). Blocking, each wait at most limits::kRedisTimeout; belongs to one thread. The
// process ignores SIGPIPE, which hiredis does not keep from it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/clock.h"
#include "supervisor/base/redis_address.h"

struct redisContext;

namespace bulkhead {

namespace limits {
inline constexpr Millis kRedisTimeout{1'000};  // of a connect and of an answer; beyond: Redis is away
}  // namespace limits

// An answer: a text (also of a number), a list, nothing, or an error that Redis says.
struct RedisReply {
  enum class Kind { kText, kList, kNothing, kError };
  Kind kind = Kind::kNothing;
  std::string text;
  std::vector<RedisReply> list;
};

class RedisClient {
 public:
  using Command = std::vector<std::string>;
  // Connected, logged in, and in its database. UNAVAILABLE with what was in the way, without the password.
  static absl::StatusOr<std::unique_ptr<RedisClient>> Open(const RedisAddress& address);
  ~RedisClient();

  // In one go; an answer for each, an error of Redis among them. After UNAVAILABLE the connection is of no use any more.
  absl::StatusOr<std::vector<RedisReply>> Run(const std::vector<Command>& commands);

 private:
  explicit RedisClient(redisContext* context) : context_(context) {}
  redisContext* context_;
};

}  // namespace bulkhead
