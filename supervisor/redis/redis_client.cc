#include "supervisor/redis/redis_client.h"

#include <hiredis/hiredis.h>
#include <sys/time.h>

#include <cerrno>
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

timeval TimeOf(Millis time) {
  const auto micros = std::chrono::microseconds(time).count();
  return {micros / 1'000'000, micros % 1'000'000};
}

}  // namespace

absl::StatusOr<std::unique_ptr<RedisClient>> RedisClient::Open(const RedisAddress& address, Millis patience) {
  const timeval timeout = TimeOf(limits::kRedisGreeting);
  redisContext* context = address.host.empty() ? redisConnectUnixWithTimeout(address.socket.c_str(), timeout)
                                               : redisConnectWithTimeout(address.host.c_str(), address.port, timeout);
  if (context == nullptr) return absl::UnavailableError("no memory for a connection");
  std::unique_ptr<RedisClient> client(new RedisClient(context));
  if (context->err != 0) return client->Fault();
  RETURN_IF_ERROR(client->SetPatience(limits::kRedisGreeting));
  std::vector<Command> greeting;
  if (!address.password.empty()) {
    greeting.push_back(address.user.empty() ? Command{"AUTH", address.password} : Command{"AUTH", address.user, address.password});
  }
  if (address.database != 0) greeting.push_back({"SELECT", absl::StrCat(address.database)});
  greeting.push_back({"PING"});  // one that loads its data refuses it
  RETURN_IF_ERROR(client->RunAll(greeting).status());
  RETURN_IF_ERROR(client->SetPatience(patience));
  return client;
}

RedisClient::~RedisClient() { redisFree(context_); }

absl::Status RedisClient::SetPatience(Millis patience) {
  patience_ = patience;
  if (redisSetTimeout(context_, TimeOf(patience)) != REDIS_OK) return absl::UnavailableError("the socket takes no timeout");
  return absl::OkStatus();
}

absl::Status RedisClient::Fault() const {
  if (context_->err == REDIS_ERR_IO && errno == EAGAIN) return absl::UnavailableError(absl::StrCat("no answer within ", patience_.count(), " ms"));
  return absl::UnavailableError(context_->errstr);
}

absl::StatusOr<std::vector<RedisReply>> RedisClient::Run(const std::vector<Command>& commands) {
  for (const Command& command : commands) {
    std::vector<const char*> words;
    std::vector<size_t> lengths;
    for (const std::string& word : command) {
      words.push_back(word.data());
      lengths.push_back(word.size());
    }
    if (redisAppendCommandArgv(context_, static_cast<int>(words.size()), words.data(), lengths.data()) != REDIS_OK) return Fault();
  }
  const Instant late = Clock::Real().Now() + patience_;
  std::vector<RedisReply> replies;
  for (size_t i = 0; i < commands.size(); ++i) {
    if (i > 0 && Clock::Real().Now() > late) {
      return absl::UnavailableError(absl::StrCat(i, " of ", commands.size(), " answers within ", patience_.count(), " ms"));
    }
    void* reply = nullptr;
    errno = 0;
    if (redisGetReply(context_, &reply) != REDIS_OK) return Fault();
    replies.push_back(Taken(*static_cast<redisReply*>(reply)));
    freeReplyObject(reply);
  }
  return replies;
}

absl::StatusOr<std::vector<RedisReply>> RedisClient::RunAll(const std::vector<Command>& commands) {
  ASSIGN_OR_RETURN(std::vector<RedisReply> replies, Run(commands));
  for (const RedisReply& reply : replies) {
    if (reply.kind == RedisReply::Kind::kError) return absl::UnavailableError(reply.text);
  }
  return replies;
}

}  // namespace bulkhead
