// Level two of the cache in Redis: what all nodes share, behind the memory of each. What it holds is a copy of what the modules can load anew, so it may
// lose anything at any time; what it may not do is give back what was invalidated. Four things see to that, each of them a comparison that Redis makes
// in the same step as the rest (redis_scripts.h):
// - a load is told how many invalidations there were (Stamp), and what it has read is refused when its key or one of its tags is among those since;
// - a value has the tokens of its tags, and the epoch of its module, and is none when they are others now; an invalidation takes them away;
// - a node that has lost Redis gives it its invalidations when it is back, before it reads anything there; what it had sent before and arrives later
//   is refused by the node's fence. A mark in the data folder says that Redis lacks nothing: a supervisor that finds none empties the whole cache there;
// - the names of all keys have the run of the Redis in them, so that one that restarts begins empty whatever it has read from its disk.
//
// Commands of a node go through one connection in the order of the calls, many at a time, on a thread of its own. Nobody waits for a connection: while
// there is none Redis is left out. Thread-safe.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "supervisor/redis/redis_client.h"
#include "supervisor/redis/redis_pause.h"
#include "supervisor/worker/host_cache.h"

namespace bulkhead {

namespace limits {
inline constexpr Millis kCacheRedisPatience{200};                  // for the answers of one go; beyond, Redis is left out. Who asks waits twice that at most
inline constexpr Millis kCacheRedisProbe{1'000};                   // between two looks whether an idle Redis is still there
inline constexpr Millis kMaxCacheRedisTtl{86'400'000};             // of any value in Redis, so that nothing stays for ever
inline constexpr Millis kCacheRedisUpkeep{2 * 86'400'000};         // of what belongs to no value, since it was last written
inline constexpr size_t kMaxCacheRedisGo = 128;                    // commands of one go
inline constexpr size_t kMaxCacheRedisGoBytes = size_t{4} << 20;   // of one go, but for one command that alone is longer
inline constexpr size_t kMaxCacheRedisWaiting = 10'000;            // commands; beyond, lookups and fills are left out, and an invalidation leaves Redis out
inline constexpr size_t kMaxCacheRedisBytes = size_t{64} << 20;    // of these; beyond: the same
inline constexpr size_t kMaxMissedNames = 10'000;                  // of one module, while Redis is away; beyond: everything of it
inline constexpr size_t kMaxRedisNames = 4'096;                    // of one module that Redis remembers; what was read before an older one is refused
}  // namespace limits

class RedisLevel {
 public:
  struct Options {
    RedisAddress address;
    std::string prefix;  // of all keys: that of the nodes which share a database
    std::string node;    // the same in each life of this node, and no other's
    std::string mark;    // path of the file that is there while Redis lacks nothing of what this node has invalidated; empty: none is kept
  };
  explicit RedisLevel(Options options);
  ~RedisLevel();
  RedisLevel(const RedisLevel&) = delete;
  // What waits is answered as if Redis were away, and so is everything from then on.
  void Stop();

  // How far the invalidations of a module were.
  struct Stamp {
    std::string epoch, count;
    bool operator==(const Stamp&) const = default;
  };
  struct Found {
    bool answered = false;  // false: Redis was left out, and nothing else counts
    bool found = false;
    cache::Bytes value;
    std::vector<std::string> tags;
    Millis ttl_left{0};  // 0: no expiry
    Stamp stamp;
  };
  // `space` is a module's. Calls return at once; `done` comes once, on the level's thread, and not at all when the call is false: then Redis is left out.
  [[nodiscard]] bool Get(const std::string& space, const std::string& key, std::function<void(Found)> done);
  // What was read when the invalidations were at `stamp`.
  void Fill(const std::string& space, const HostCache::NewEntry& entry, const Stamp& stamp);
  // The new value, and what is to be dropped. Not `applied` or false: Redis will be told when it is back, before it is asked anything.
  [[nodiscard]] bool Set(const std::string& space, const HostCache::NewEntry& entry, std::function<void(bool applied)> done);
  [[nodiscard]] bool Invalidate(const std::string& space, const cache::Names& names, std::function<void(bool applied)> done);

  struct Usage {
    bool up = false;
    std::string fault;         // why it is not
    int64_t commands = 0;      // that were answered
    double seconds = 0;        // that these took, from the call to the answer
    int64_t failures = 0;      // connections and tries to get one that failed
    int64_t left_out = 0;      // calls while Redis was away, or too much waited
  };
  Usage usage() const;

 private:
  struct Waiting {
    RedisClient::Command command;
    std::string space;
    cache::Names names;  // to be told later, should it fail
    std::function<void(const RedisReply*)> done;  // null: it was left out
    size_t bytes = 0;
    Instant asked{};
  };
  enum class Script { kGet, kStore, kInvalidate };
  RedisClient::Command Begin(Script script, const std::string& space, std::vector<std::string> more_keys);
  RedisClient::Command StoreCommand(const std::string& space, const HostCache::NewEntry& entry, const Stamp& stamp);
  RedisClient::Command InvalidateCommand(const std::string& space, const cache::Names& names);
  // Under the lock. False: left out.
  bool Enqueue(Waiting waiting, bool must);
  void LeaveOut(const std::string& why);
  std::vector<Waiting> Abandon(std::vector<Waiting> first);

  void Run();
  void Go(std::unique_lock<std::mutex>& lock);
  // UNAVAILABLE also for an answer that nobody of us would give.
  absl::StatusOr<std::vector<RedisReply>> Send(std::vector<Waiting>& batch);
  absl::Status Greet();
  void Return(std::unique_lock<std::mutex>& lock);
  std::string Fresh();

  const Options options_;
  const std::string token_;  // with a count, a text that nobody else has
  std::atomic<int64_t> fresh_{0};
  std::unique_ptr<RedisClient> client_;  // of the thread
  bool drop_all_ = false;                // of the thread: an earlier life of this node may have left something to be dropped

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool up_ = false, stopping_ = false;
  std::string run_prefix_;              // of the keys, with the run of the Redis
  std::string fence_;                   // of this connection
  std::string scripts_[3];              // their names, by Script
  std::deque<Waiting> queue_;
  size_t queued_bytes_ = 0;
  std::map<std::string, cache::Names> missed_;  // by space, what Redis was not told
  RedisPause pause_;
  Usage usage_;
  bool away_said_ = false;
  std::thread thread_;  // last: uses the rest
};

}  // namespace bulkhead
