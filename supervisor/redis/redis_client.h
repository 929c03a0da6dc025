// One connection to Redis (RESP2, by hiredis). Blocking, within the times below; belongs to one thread at a time. The process ignores SIGPIPE, which
// hiredis does not keep from it.
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
inline constexpr Millis kRedisGreeting{1'000};  // of a connect, and of the answers to what is said first; beyond: Redis is away
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
  // Connected, logged in, and in its database. UNAVAILABLE with what was in the way, without the password. `patience` is for each wait of Run() and
  // for all of one Run() together, so that twice as much is the most that one takes.
  static absl::StatusOr<std::unique_ptr<RedisClient>> Open(const RedisAddress& address, Millis patience);
  ~RedisClient();

  // In one go; an answer for each, an error of Redis among them. After UNAVAILABLE the connection is of no use any more.
  absl::StatusOr<std::vector<RedisReply>> Run(const std::vector<Command>& commands);
  // The same, where an error among the answers is the answer.
  absl::StatusOr<std::vector<RedisReply>> RunAll(const std::vector<Command>& commands);

 private:
  explicit RedisClient(redisContext* context) : context_(context) {}
  absl::Status SetPatience(Millis patience);
  absl::Status Fault() const;

  redisContext* context_;
  Millis patience_ = limits::kRedisGreeting;
};

}  // namespace bulkhead
