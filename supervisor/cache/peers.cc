#include "supervisor/cache/peers.h"

#include <iterator>
#include <utility>

#include "nlohmann/json.hpp"
#include "supervisor/base/log.h"
#include "supervisor/base/random.h"
#include "supervisor/base/text.h"
#include "supervisor/cache/names.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr char kChannel[] = "bulkhead_cache";
constexpr char kPurpose[] = "cache invalidation";
constexpr size_t kMaxPlain = 4'000;  // bytes of JSON in one notification, which sealed and as base64 stays below PostgreSQL's 8,000
constexpr std::chrono::milliseconds kSendRetry{1'000};
constexpr size_t kOriginBytes = 8;

}  // namespace

std::vector<std::string> CacheNotifications(const SecretBox& box, const std::string& origin, const std::string& module, const cache::Names& names,
                                            bool missed_by_redis) {
  std::vector<std::string> texts;
  const json head = {{"origin", origin}, {"module", module}, {"missed", missed_by_redis}};
  json body = head;
  size_t size = 0;
  const auto flush = [&] {
    texts.push_back(box.Seal(body.dump(-1, ' ', true, json::error_handler_t::replace), kPurpose));
    body = head;
    size = 0;
  };
  if (names.all) {
    body["all"] = true;
    flush();
    return texts;
  }
  const auto add = [&](const char* kind, const std::string& name) {
    const size_t length = json(name).dump(-1, ' ', true, json::error_handler_t::replace).size() + 1;
    if (size > 0 && size + length > kMaxPlain) flush();
    body[kind].push_back(name);
    size += length;
  };
  for (const std::string& key : names.keys) add("keys", key);
  for (const std::string& tag : names.tags) add("tags", tag);
  if (size > 0) flush();
  return texts;
}

CachePeers::CachePeers(std::string conninfo, const SecretBox& box, Heard heard)
    : box_(box), origin_(RandomHex(kOriginBytes)), heard_(std::move(heard)), database_(conninfo, 1), sender_([this] { Send(); }),
      listener_(std::move(conninfo), kChannel, heard_.missed, [this](const std::string& payload) { Received(payload); }) {}

CachePeers::~CachePeers() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  sender_.join();
}

void CachePeers::Tell(const std::string& module, const cache::Names& names, bool missed_by_redis) {
  {
    std::lock_guard lock(mutex_);
    AddNames(waiting_[{module, missed_by_redis}], names, limits::kMaxWaitingCacheNames);
  }
  wake_.notify_one();
}

// What comes while one statement is under way is the next one.
void CachePeers::Send() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    if (stopping_) return;
    const auto batch = std::exchange(waiting_, {});
    lock.unlock();
    std::vector<std::string> texts;
    for (const auto& [about, names] : batch) {
      auto more = CacheNotifications(box_, origin_, about.first, names, about.second);
      texts.insert(texts.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
    }
    const auto sent = database_.Run("SELECT pg_notify('" + std::string(kChannel) + "', text) FROM json_array_elements_text($1::json) AS text",
                                    {json(texts).dump()});
    if (sent.ok()) {
      lock.lock();
      continue;
    }
    LogDebug("cache", "what other nodes have to drop waits for the database", {{"reason", std::string(sent.status().message())}});
    for (const auto& [about, names] : batch) Tell(about.first, names, about.second);
    lock.lock();
    wake_.wait_for(lock, kSendRetry, [this] { return stopping_; });
  }
}

void CachePeers::Received(const std::string& payload) {
  const auto plain = box_.Open(payload, kPurpose);
  if (!plain.ok()) return;  // not of a node that shares our keys
  const json told = json::parse(*plain, nullptr, false);
  if (!told.is_object() || told.value("origin", "") == origin_) return;
  cache::Names names;
  names.all = told.value("all", false);
  names.keys = told.value("keys", std::vector<std::string>());
  names.tags = told.value("tags", std::vector<std::string>());
  heard_.invalidated(told.value("module", ""), names, told.value("missed", true));
}

}  // namespace bulkhead
