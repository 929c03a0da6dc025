#include "supervisor/cache/redis_level.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"
#include "supervisor/cache/names.h"
#include "supervisor/cache/redis_scripts.h"

namespace bulkhead {
namespace {

constexpr size_t kTokenBytes = 8, kRunDigits = 16;
constexpr char kRunId[] = "run_id:";
constexpr size_t kGetHead = 2, kGetFound = 6;  // texts of an answer

// A space as a part of a key's name, which no other one can begin like.
std::string Sized(const std::string& space) { return absl::StrCat(space.size(), ":", space); }

size_t BytesOf(const RedisClient::Command& command) {
  size_t bytes = 0;
  for (const std::string& word : command) bytes += word.size();
  return bytes;
}

RedisLevel::Found FoundIn(const RedisReply* reply) {
  RedisLevel::Found found;
  if (reply == nullptr || reply->list.size() < kGetHead) return found;
  const std::vector<RedisReply>& texts = reply->list;
  found.answered = true;
  found.stamp = {texts[0].text, texts[1].text};
  int64_t left = 0;
  if (texts.size() < kGetFound || !absl::SimpleAtoi(texts[4].text, &left)) return found;
  found.found = true;
  if (texts[2].text == "0") found.value = std::make_shared<const std::string>(texts[5].text);
  if (texts[3].text == "0") found.ttl_left = Millis(std::max<int64_t>(1, left));
  for (size_t i = kGetFound; i < texts.size(); ++i) found.tags.push_back(texts[i].text);
  return found;
}

}  // namespace

RedisLevel::RedisLevel(Options options) : options_(std::move(options)), token_(RandomHex(kTokenBytes)) {
  drop_all_ = !options_.mark.empty() && access(options_.mark.c_str(), F_OK) != 0;
  std::lock_guard lock(mutex_);
  LeaveOut("not connected yet");
  thread_ = std::thread([this] { Run(); });
}

RedisLevel::~RedisLevel() { Stop(); }

void RedisLevel::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

// ---- calls ----

bool RedisLevel::Get(const std::string& space, const std::string& key, std::function<void(Found)> done) {
  std::lock_guard lock(mutex_);
  if (!up_) return ++usage_.left_out, false;
  RedisClient::Command command = Begin(Script::kGet, space, {absl::StrCat(run_prefix_, "k", Sized(space), key)});
  command.push_back(absl::StrCat(run_prefix_, "t", Sized(space)));
  return Enqueue({std::move(command), space, {}, [done = std::move(done)](const RedisReply* reply) { done(FoundIn(reply)); }}, false);
}

void RedisLevel::Fill(const std::string& space, const HostCache::NewEntry& entry, const Stamp& stamp) {
  std::lock_guard lock(mutex_);
  if (up_) {
    Enqueue({StoreCommand(space, entry, stamp), space, {}, [](const RedisReply*) {}}, false);
  } else {
    ++usage_.left_out;
  }
}

bool RedisLevel::Set(const std::string& space, const HostCache::NewEntry& entry, std::function<void(bool applied)> done) {
  std::lock_guard lock(mutex_);
  RedisClient::Command command;
  if (up_) command = StoreCommand(space, entry, {});
  return Enqueue({std::move(command), space, {.keys = {entry.key}}, [done = std::move(done)](const RedisReply* reply) { done(reply != nullptr); }}, true);
}

bool RedisLevel::Invalidate(const std::string& space, const cache::Names& names, std::function<void(bool applied)> done) {
  std::lock_guard lock(mutex_);
  RedisClient::Command command;
  if (up_) command = InvalidateCommand(space, names);
  return Enqueue({std::move(command), space, names, [done = std::move(done)](const RedisReply* reply) { done(reply != nullptr); }}, true);
}

RedisLevel::Usage RedisLevel::usage() const {
  std::lock_guard lock(mutex_);
  Usage usage = usage_;
  usage.up = up_;
  return usage;
}

std::string RedisLevel::Fresh() { return absl::StrCat(token_, " ", fresh_.fetch_add(1)); }

RedisClient::Command RedisLevel::Begin(Script script, const std::string& space, std::vector<std::string> more_keys) {
  RedisClient::Command command{"EVALSHA", scripts_[static_cast<size_t>(script)], absl::StrCat(2 + more_keys.size()), absl::StrCat(run_prefix_, "l"),
                               absl::StrCat(run_prefix_, "m", Sized(space))};
  std::move(more_keys.begin(), more_keys.end(), std::back_inserter(command));
  command.push_back(Fresh());
  command.push_back(absl::StrCat(limits::kCacheRedisUpkeep.count()));
  return command;
}

RedisClient::Command RedisLevel::StoreCommand(const std::string& space, const HostCache::NewEntry& entry, const Stamp& stamp) {
  const std::string sized = Sized(space);
  const bool for_ever = entry.ttl == Millis(0);
  const Millis ttl = for_ever ? limits::kMaxCacheRedisTtl : std::min(entry.ttl, limits::kMaxCacheRedisTtl);
  RedisClient::Command command =
      Begin(Script::kStore, space, {absl::StrCat(run_prefix_, "f", options_.node), absl::StrCat(run_prefix_, "k", sized, entry.key)});
  for (std::string word : {fence_, absl::StrCat(run_prefix_, "t", sized), absl::StrCat(ttl.count()), std::string(for_ever ? "1" : "0"),
                           std::string(entry.value ? "0" : "1"), entry.key, entry.value ? *entry.value : std::string(), stamp.epoch, stamp.count,
                           absl::StrCat(limits::kMaxRedisNames)}) {
    command.push_back(std::move(word));
  }
  command.insert(command.end(), entry.tags.begin(), entry.tags.end());
  return command;
}

RedisClient::Command RedisLevel::InvalidateCommand(const std::string& space, const cache::Names& names) {
  const std::string sized = Sized(space);
  RedisClient::Command command = Begin(Script::kInvalidate, space, {});
  for (std::string word : {absl::StrCat(run_prefix_, "k", sized), absl::StrCat(run_prefix_, "t", sized), std::string(names.all ? "1" : "0"),
                           absl::StrCat(limits::kMaxRedisNames), absl::StrCat(names.keys.size())}) {
    command.push_back(std::move(word));
  }
  command.insert(command.end(), names.keys.begin(), names.keys.end());
  command.insert(command.end(), names.tags.begin(), names.tags.end());
  return command;
}

bool RedisLevel::Enqueue(Waiting waiting, bool must) {
  waiting.bytes = BytesOf(waiting.command);
  const bool full = queue_.size() >= limits::kMaxCacheRedisWaiting || queued_bytes_ + waiting.bytes > limits::kMaxCacheRedisBytes;
  if (must && (stopping_ || (up_ && full))) LeaveOut(stopping_ ? "the supervisor stops" : "it is slower than what is invalidated");
  if (!up_ || full || stopping_) {
    if (must) AddNames(missed_[waiting.space], waiting.names, limits::kMaxMissedNames);
    ++usage_.left_out;
    return false;
  }
  waiting.asked = Clock::Real().Now();
  queued_bytes_ += waiting.bytes;
  queue_.push_back(std::move(waiting));
  wake_.notify_one();
  return true;
}

// The mark is gone before anything is answered that Redis does not know; that the disk has it is not waited for.
void RedisLevel::LeaveOut(const std::string& why) {
  up_ = false;
  usage_.fault = why;
  if (!options_.mark.empty() && unlink(options_.mark.c_str()) != 0 && errno != ENOENT)
    LogWarn("cache", "the mark that Redis lacks nothing can't be taken away", {{"path", options_.mark}});
}

// ---- the thread ----

void RedisLevel::Run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (up_) {
      Go(lock);
      continue;
    }
    if (!queue_.empty()) {
      const std::vector<Waiting> left = Abandon({});
      lock.unlock();
      for (const Waiting& one : left) one.done(nullptr);
      lock.lock();
      continue;
    }
    client_.reset();
    if (!wake_.wait_until(lock, pause_.next(), [this] { return stopping_ || !queue_.empty(); })) Return(lock);
  }
  // What goes on from here finds Redis away; the mark stays unless something was missed.
  const bool was_up = std::exchange(up_, false);
  const std::vector<Waiting> left = Abandon({});
  if (was_up && !missed_.empty()) LeaveOut("the supervisor stops");
  lock.unlock();
  for (const Waiting& one : left) one.done(nullptr);
}

// Of what was sent nobody knows whether it was done.
std::vector<RedisLevel::Waiting> RedisLevel::Abandon(std::vector<Waiting> first) {
  std::move(queue_.begin(), queue_.end(), std::back_inserter(first));
  queue_.clear();
  queued_bytes_ = 0;
  for (const Waiting& one : first) {
    if (one.names.all || !one.names.keys.empty() || !one.names.tags.empty()) AddNames(missed_[one.space], one.names, limits::kMaxMissedNames);
  }
  return first;
}

void RedisLevel::Go(std::unique_lock<std::mutex>& lock) {
  const bool idle = !wake_.wait_for(lock, limits::kCacheRedisProbe, [this] { return stopping_ || !up_ || !queue_.empty(); });
  if (stopping_ || !up_) return;
  std::vector<Waiting> batch;
  if (idle) batch.push_back({.command = {"PING"}, .done = [](const RedisReply*) {}, .asked = Clock::Real().Now()});
  for (size_t bytes = 0; !queue_.empty() && batch.size() < limits::kMaxCacheRedisGo && bytes < limits::kMaxCacheRedisGoBytes;) {
    bytes += queue_.front().bytes;
    queued_bytes_ -= queue_.front().bytes;
    batch.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  lock.unlock();
  const auto replies = Send(batch);
  lock.lock();
  if (!replies.ok()) {
    LeaveOut(std::string(replies.status().message()));
    ++usage_.failures;
    pause_.Lost(Clock::Real().Now());
    if (!std::exchange(away_said_, true))
      LogWarn("cache", "Redis is away: each node has what it keeps itself, and tells Redis what was invalidated when it is back", {{"error", usage_.fault}});
    batch = Abandon(std::move(batch));
  } else {
    const Instant now = Clock::Real().Now();
    usage_.commands += static_cast<int64_t>(batch.size());
    for (const Waiting& one : batch) usage_.seconds += std::chrono::duration<double>(now - one.asked).count();
  }
  lock.unlock();
  for (size_t i = 0; i < batch.size(); ++i) batch[i].done(replies.ok() ? &(*replies)[i] : nullptr);
  lock.lock();
}

absl::StatusOr<std::vector<RedisReply>> RedisLevel::Send(std::vector<Waiting>& batch) {
  std::vector<RedisClient::Command> commands;
  for (Waiting& one : batch) commands.push_back(std::move(one.command));
  ASSIGN_OR_RETURN(std::vector<RedisReply> replies, client_->RunAll(commands));
  for (const RedisReply& reply : replies) {
    if (reply.text == "fenced") return absl::UnavailableError("the fence of this node is gone, or another one has its name");
  }
  return replies;
}

// Connected, and everything there that commands need. Without the lock.
absl::Status RedisLevel::Greet() {
  ASSIGN_OR_RETURN(client_, RedisClient::Open(options_.address, limits::kCacheRedisPatience));
  std::vector<RedisClient::Command> commands{{"INFO", "server"}};
  for (std::string_view script : {cache_scripts::kGet, cache_scripts::kStore, cache_scripts::kInvalidate}) {
    commands.push_back({"SCRIPT", "LOAD", absl::StrCat(absl::string_view(cache_scripts::kBegin.data(), cache_scripts::kBegin.size()),
                                                       absl::string_view(script.data(), script.size()))});
  }
  ASSIGN_OR_RETURN(const std::vector<RedisReply> replies, client_->RunAll(commands));
  const size_t at = replies[0].text.find(kRunId);
  if (at == std::string::npos) return absl::UnavailableError("INFO tells no run_id");
  const std::string run = replies[0].text.substr(at + sizeof kRunId - 1, kRunDigits);
  const std::string fence = Fresh();
  {
    std::lock_guard lock(mutex_);
    run_prefix_ = absl::StrCat(options_.prefix, run, ":");
    fence_ = fence;
    for (size_t i = 0; i < std::size(scripts_); ++i) scripts_[i] = replies[1 + i].text;
  }
  const std::string upkeep = absl::StrCat(limits::kCacheRedisUpkeep.count());
  std::vector<RedisClient::Command> settings{{"SET", absl::StrCat(run_prefix_, "f", options_.node), fence, "PX", upkeep}};
  if (drop_all_) settings.push_back({"SET", absl::StrCat(run_prefix_, "l"), Fresh(), "PX", upkeep});
  RETURN_IF_ERROR(client_->RunAll(settings).status());
  drop_all_ = false;
  return absl::OkStatus();
}

// Tries for a connection, and tells Redis what it has missed; with the last of it, it is up.
void RedisLevel::Return(std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  absl::Status status = Greet();
  lock.lock();
  while (status.ok() && !missed_.empty() && !stopping_) {
    const auto [space, names] = *missed_.begin();
    std::vector<RedisClient::Command> commands;
    cache::Names piece{.all = names.all};
    const auto flush = [&] {
      if (piece.all || !piece.keys.empty() || !piece.tags.empty()) commands.push_back(InvalidateCommand(space, std::exchange(piece, {})));
    };
    for (const std::string& key : names.keys) {
      piece.keys.push_back(key);
      if (piece.keys.size() == cache::kMaxNames) flush();
    }
    flush();
    for (const std::string& tag : names.tags) {
      piece.tags.push_back(tag);
      if (piece.tags.size() == cache::kMaxNames) flush();
    }
    flush();
    missed_.erase(missed_.begin());
    lock.unlock();
    status = client_->RunAll(commands).status();
    lock.lock();
    if (!status.ok()) AddNames(missed_[space], names, limits::kMaxMissedNames);
  }
  if (stopping_) return;
  if (!status.ok()) {
    client_.reset();
    ++usage_.failures;
    usage_.fault = std::string(status.message());
    pause_.Lost(Clock::Real().Now());
    if (!std::exchange(away_said_, true)) LogWarn("cache", "Redis is away: each node has what it keeps itself", {{"error", usage_.fault}});
    return;
  }
  up_ = true;
  usage_.fault.clear();
  pause_.Up(Clock::Real().Now());
  if (!options_.mark.empty() && !UniqueFd(open(options_.mark.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)))
    LogWarn("cache", "the mark that Redis lacks nothing can't be written: the next start empties the cache there", {{"path", options_.mark}});
  if (std::exchange(away_said_, false)) LogInfo("cache", "Redis is back");
}

}  // namespace bulkhead
