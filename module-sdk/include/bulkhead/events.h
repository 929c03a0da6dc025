// Events. Published with a database transaction, an event is there exactly when that commits; handlers get each at least once, those of one key in
// order. What the manifest says under `capabilities.events` decides: `publishes` what may be said, `subscribes` what comes.
//
//   context.events().Subscribe("order.*", [&context](const Event& event) {
//     context.database().Transact([&](Transaction& t) {
//       if (!context.once(event, t)) return;  // done before, and the acknowledgement was lost
//       t.Query("UPDATE totals SET sum = sum + $1", {event.payload.at("amount").get<int64_t>()});
//     });
//   });
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "bulkhead/database.h"
#include "bulkhead/errors.h"

namespace bulkhead::sdk {

inline constexpr int kEventThreads = 4;  // per worker process, started when events come; handlers of one key never run side by side
inline constexpr size_t kMaxPublications = 10'000;  // events that are published at once

struct Event {
  std::string id;      // stays the same when it is delivered again
  std::string topic;   // "order.created"
  std::string key;     // may be empty: then it has no order
  Json payload;        // read keys with at(), which throws for a missing one
  std::string source;  // the module that published it
  WallTime at;
  int attempt = 1;
};

// One of many that are published at once.
struct Publication {
  std::string topic, key;
  Json payload;
};

// Returns: done, never again. Throws EventRefused: to the dead letters now. Throws anything else derived from std::exception: again after a
// backoff, and everything of the same key behind it; at last to the dead letters.
using EventHandler = std::function<void(const Event&)>;

// The event can never be handled; trying again would not help.
class EventRefused : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Events {
 public:
  // Inside Module::Initialize. `topic` is "order.created", or "order.*" for all below it; the exact one is preferred, then the longest. Throws
  // std::invalid_argument for one that has a handler already.
  void Subscribe(std::string topic, EventHandler handler);

  // With the transaction: nobody sees the event before it commits, or ever when it does not. The event's id. Throws DatabaseError, 22023 for a
  // topic that the manifest does not declare, and for a payload that its schema refuses.
  std::string Publish(Transaction& transaction, std::string_view topic, std::string_view key, const Json& payload);
  // Many at once, which costs a fraction of as many calls: all of them, or none when one is refused, which the error names by its place from 1 ("event
  // 57 of 100: …"). Their ids, in that order. Beyond kMaxPublications: DatabaseError 22023.
  std::vector<std::string> PublishMany(Transaction& transaction, const std::vector<Publication>& events);
  // By itself, for modules without a database and where there is nothing to be one with: committed when it returns. Any thread; up to 10 s.
  // Throws HostError; a transient one may have been published all the same.
  std::string Publish(std::string_view topic, std::string_view key, const Json& payload);

  // ---- for the SDK ----
  using Call = std::function<std::string(std::string_view topic, std::string_view key, const std::string& payload_json)>;
  void Connect(Call publish) { publish_ = std::move(publish); }
  const EventHandler* Find(std::string_view topic) const;  // null when there is none
  // After Initialize: from then on Subscribe throws std::logic_error.
  void Freeze() { frozen_ = true; }
  int64_t published() const { return published_.load(std::memory_order_relaxed); }

 private:
  bool frozen_ = false;
  std::map<std::string, EventHandler, std::less<>> handlers_;
  Call publish_;
  std::atomic<int64_t> published_{0};
};

}  // namespace bulkhead::sdk
