#include "supervisor/events/redis_client.h"

#include <hiredis/hiredis.h>
#include <sys/time.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

RedisReply Taken(const redisReply& reply) {
  RedisReply taken;
  switch (reply.type) {
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
    case REDIS_REPLY_ERROR:
      taken.kind = reply.type == REDIS_REPLY_ERROR ? RedisReply::Kind::kError : RedisReply::Kind::kText;
      taken.text.assign(reply.str, static_cast<size_t>(reply.len));
      break;
    case REDIS_REPLY_INTEGER:
      taken.kind = RedisReply::Kind::kText;
      taken.text = absl::StrCat(reply.integer);
      break;
    case REDIS_REPLY_ARRAY:
      taken.kind = RedisReply::Kind::kList;
      for (size_t i = 0; i < reply.elements; ++i) taken.list.push_back(Taken(*reply.element[i]));
      break;
    default: break;
  }
  return taken;
}

timeval RedisTimeout() {
  constexpr auto kMicros = std::chrono::microseconds(limits::kRedisTimeout).count();
  return {kMicros / 1'000'000, kMicros % 1'000'000};
}

}  // namespace

absl::StatusOr<std::unique_ptr<RedisClient>> RedisClient::Open(const RedisAddress& address) {
  redisContext* context = address.host.empty() ? redisConnectUnixWithTimeout(address.socket.c_str(), RedisTimeout())
                                               : redisConnectWithTimeout(address.host.c_str(), address.port, RedisTimeout());
  if (context == nullptr) return absl::UnavailableError("no memory for a connection");
  std::unique_ptr<RedisClient> client(new RedisClient(context));
  if (context->err != 0) return absl::UnavailableError(context->errstr);
  if (redisSetTimeout(context, RedisTimeout()) != REDIS_OK) return absl::UnavailableError("the socket takes no timeout");
  std::vector<Command> greeting;
  if (!address.password.empty()) {
    greeting.push_back(address.user.empty() ? Command{"AUTH", address.password} : Command{"AUTH", address.user, address.password});
  }
  if (address.database != 0) greeting.push_back({"SELECT", absl::StrCat(address.database)});
  greeting.push_back({"PING"});  // one that loads its data refuses it
  ASSIGN_OR_RETURN(const std::vector<RedisReply> replies, client->Run(greeting));
  for (const RedisReply& reply : replies) {
    if (reply.kind == RedisReply::Kind::kError) return absl::UnavailableError(reply.text);
  }
  return client;
}

RedisClient::~RedisClient() { redisFree(context_); }

absl::StatusOr<std::vector<RedisReply>> RedisClient::Run(const std::vector<Command>& commands) {
  for (const Command& command : commands) {
    std::vector<const char*> words;
    std::vector<size_t> lengths;
    for (const std::string& word : command) {
      words.push_back(word.data());
      lengths.push_back(word.size());
    }
    if (redisAppendCommandArgv(context_, static_cast<int>(words.size()), words.data(), lengths.data()) != REDIS_OK) {
      return absl::UnavailableError(context_->errstr);
    }
  }
  std::vector<RedisReply> replies;
  for (size_t i = 0; i < commands.size(); ++i) {
    void* reply = nullptr;
    if (redisGetReply(context_, &reply) != REDIS_OK) return absl::UnavailableError(context_->errstr);
    replies.push_back(Taken(*static_cast<redisReply*>(reply)));
    freeReplyObject(reply);
  }
  return replies;
}

}  // namespace bulkhead
