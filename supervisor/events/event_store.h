// The rows that deliver events: claims with lease and fence, windows of the outbox, and what became of deliveries. All of it on one connection,
// which belongs to one thread. Blocking. Leases and times are by the database's clock; whoever comes with an old fence changes nothing.
//
// A window is what is not visible in one snapshot and visible in a later one. Within it events are in the order of their numbers, which is that in
// which they were published wherever one publication could know of the other.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/events/event.h"
#include "supervisor/store/database.h"

namespace bulkhead {

namespace limits {
inline constexpr Millis kSubscriptionLease{10'000};    // after which another node takes a subscriber over
inline constexpr Millis kStreamLease{5'000};           // after which another node relays into Redis; until then subscribers may wait for it
inline constexpr size_t kMaxParkedEvents = 10'000;     // of one subscriber; beyond, nothing more is fetched for it until some are done
inline constexpr int kMaxTrimmed = 5'000;              // events that one look at the retention removes
}  // namespace limits

struct EventPlace {
  std::string done;                  // pg_snapshot
  std::optional<std::string> reach;  // pg_snapshot; with it `position` counts
  int64_t position = 0;
};

struct ClaimedSubscription {
  std::string module;
  std::vector<std::string> topics;  // "order.created", "order.*"
  EventPlace place;
  int64_t fence = 0;
};

// The outbox at one moment, and how far it has been relayed into Redis by then.
struct OutboxView {
  struct Relayed {
    std::string stream, reach;  // key in Redis; what is visible in `reach` is in the stream, or never will be
    bool kept_up = false;       // somebody holds the lease
  };
  std::string snapshot;
  std::optional<Relayed> relayed;  // nullopt: nobody has begun
};

struct ClaimedRelay {
  std::string stream, reach;
  int64_t number = 0, fence = 0;
};

// What a window holds for one subscriber beyond a position.
struct WindowSize {
  int64_t count = 0;
  int64_t first_new = 0;  // number of the first whose transaction was not known to `done`; 0: none
};

class EventStore {
 public:
  EventStore(std::unique_ptr<Connection> connection, std::string node) : connection_(std::move(connection)), node_(std::move(node)) {}

  // First of all. What is written here may be lost when the server crashes: it is done again then.
  absl::Status Begin();
  // Those of `modules` that are free, or were this node's own; never one that another node holds.
  absl::StatusOr<std::vector<ClaimedSubscription>> Claim(const std::vector<std::string>& modules);
  // Renews the leases of what this node holds; (module, fence) of those that are still its own.
  absl::StatusOr<std::vector<std::pair<std::string, int64_t>>> Renew();
  absl::Status Release(const std::string& module, int64_t fence);

  struct ParkedRow {
    PendingEvent event;
    Millis delay{0};
  };
  // Rows of what is parked, the oldest first: all at most `limit`, or only fresh ones, which are not fresh afterwards.
  absl::StatusOr<std::vector<ParkedRow>> Parked(const std::string& module, int limit, bool only_fresh);

  absl::StatusOr<OutboxView> Look();
  // `position`: only what is beyond.
  absl::StatusOr<WindowSize> Measure(const std::vector<std::string>& topics, const std::string& done, const std::string& reach, int64_t position);
  absl::StatusOr<std::vector<StoredEvent>> Fetch(const std::vector<std::string>& topics, const std::string& done, const std::string& reach,
                                                 int64_t position, int64_t first_new, int limit);
  // The place and the settlement as one; false when the fence is an old one, and then nothing is written.
  absl::StatusOr<bool> Settle(const std::string& module, int64_t fence, const EventPlace& place, const Settlement& settlement);

  // Who relays into Redis. Whoever claims begins with what is not visible in `reach` of his claim. nullopt: another node does.
  absl::StatusOr<std::optional<ClaimedRelay>> ClaimRelay();
  // Where the relay is, and its lease renewed; false when the fence is an old one.
  absl::StatusOr<bool> MoveRelay(const ClaimedRelay& relay);
  absl::Status ReleaseRelay(const ClaimedRelay& relay);

  // This node is to be woken by whoever publishes, or looks by itself again.
  absl::Status Sleep();
  absl::Status Wake();
  // Removes events that are older than `kept` and that nobody has still to be given, and those older than `kept_at_most` in any case.
  absl::StatusOr<int> Trim(Millis kept, Millis kept_at_most);

  Connection& connection() { return *connection_; }

 private:
  std::unique_ptr<Connection> connection_;
  const std::string node_;
};

// As PostgreSQL takes them. `patterns`: for LIKE, with "order.*" as 'order.%' and "*" as '%'.
std::string TextArray(const std::vector<std::string>& texts);
std::string TopicPatterns(const std::vector<std::string>& topics);

}  // namespace bulkhead
