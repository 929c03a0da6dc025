#include "supervisor/cache/cache.h"

#include <unistd.h>

#include <utility>

#include "supervisor/base/digest.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

// Two databases may share a Redis; nodes of one have the same key.
std::unique_ptr<RedisLevel> MakeRedisLevel(const Cache::Options& options) {
  if (!options.redis) return nullptr;
  constexpr size_t kDigits = 16;
  const std::string prefix = "bulkhead:cache:" + HmacHex(options.master_key, "cache in Redis").substr(0, kDigits) + ":";
  return std::make_unique<RedisLevel>(RedisLevel::Options{*options.redis, prefix, options.node, options.redis_mark});
}

}  // namespace

Cache::Cache(Loop& loop, const Clock& clock, const Options& options)
    : redis_(MakeRedisLevel(options)),
      shared_(clock, {options.max_bytes, options.max_bytes_per_module,
                      [&loop](Millis in, std::function<void()> then) { loop.Post([&loop, in, then = std::move(then)] { loop.After(in, then); }); },
                      [this](const std::string& module, const cache::Names& names, bool missed) {
                        if (peers_) peers_->Tell(module, names, missed);
                      },
                      redis_.get()}) {}

Cache::~Cache() {
  if (redis_) redis_->Stop();
}

absl::StatusOr<std::unique_ptr<Cache>> Cache::Make(Loop& loop, const Clock& clock, Options options) {
  // What is invalidated from now on no Redis will be told.
  if (!options.redis && !options.redis_mark.empty()) unlink(options.redis_mark.c_str());
  auto made = std::unique_ptr<Cache>(new Cache(loop, clock, options));
  if (options.conninfo.empty()) return made;
  // A key of its own from the one that never changes: those for secrets may be changed on one node before the others.
  ASSIGN_OR_RETURN(made->box_, SecretBox::Load("", HmacHex(options.master_key, "cache invalidations")));
  SharedCache& shared = made->shared_;
  CachePeers::Heard heard{[&shared](const std::string& module, const cache::Names& names, bool missed) { shared.Heed(module, names, missed); },
                          [&shared] { shared.ForgetAll(); }};
  made->peers_ = std::make_unique<CachePeers>(options.conninfo, *made->box_, std::move(heard));
  return made;
}

}  // namespace bulkhead
