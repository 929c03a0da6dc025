// The thread that delivers: it claims the subscribers that this node has workers for, follows the outbox, and calls DeliverEvents (decision 10).
// It has a loop and a database connection of its own, on which it may wait; nobody else waits for it.
//
// How it learns of events: it looks every few milliseconds while some come, ever more seldom when none do, and in the end sleeps, where the next
// publication wakes it by a NOTIFY. A NOTIFY for each would make commits wait for each other.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "supervisor/base/fd.h"
#include "supervisor/base/guarded.h"
#include "supervisor/base/loop.h"
#include "supervisor/base/random.h"
#include "supervisor/events/recipients.h"
#include "supervisor/events/stream_relay.h"
#include "supervisor/events/subscription.h"

namespace bulkhead {

namespace limits {
inline constexpr Millis kDeliveryTimeout{30'000};       // of one call; beyond, its events are tried again
inline constexpr size_t kMaxDeliveryBytes = 1 << 20;    // of one call, but for one event that alone is longer
inline constexpr Millis kEventPoll{4};                  // between two looks at the outbox while events come
inline constexpr Millis kEventSleep{250};               // an interval that has grown to this: woken by NOTIFY from then on
inline constexpr Millis kMaxEventPoll{1'000};           // the longest interval, should a NOTIFY be missed
inline constexpr Millis kSettleInterval{20};            // between two writes of what became of deliveries
inline constexpr Millis kSubscriptionRenewal{3'000};    // of leases; a third of kSubscriptionLease
inline constexpr Millis kSubscriptionClaim{2'000};      // between two looks for subscribers that another node has let go
inline constexpr Millis kEventTrim{60'000};             // between two looks at the retention
}  // namespace limits

class Relay {
 public:
  struct Options {
    std::string node, conninfo;
    Millis kept{0}, kept_at_most{0};  // retention: of what everybody has been given, of everything
    std::optional<RedisAddress> redis;  // through which events go; without: from the outbox alone
  };
  Relay(Options options, std::shared_ptr<Recipients> recipients, const Clock& clock);
  ~Relay();

  // All thread-safe.
  void Start();
  void Nudge();  // something has changed: look now
  // Why Redis is not used just now; empty when it is, or when nothing is known yet.
  std::string RedisFault() const;
  // Begins no call; `stopped` (on the relay's thread) when those under way have ended or `grace` is over, and everything is written.
  void Stop(Millis grace, std::function<void()> stopped);

 private:
  struct Call {
    std::string module, instance;
    int64_t fence = 0;
    uint64_t batch = 0;
    size_t events = 0;
    Instant began{};
  };
  void Turn();
  absl::Status Work(Instant now, bool& came);
  absl::Status Renew(Instant now);
  absl::Status Claim(const std::vector<std::string>& ready, Instant now);
  absl::Status LetGo(const std::vector<std::string>& ready, Instant now);
  absl::Status Write(Subscription& subscription, Instant now);
  void Dispatch(Subscription& subscription, Instant now);
  void Completed(const Call& call, const absl::Status& status, const module::v1::DeliverEventsResponse& response);
  void Connect();
  void Disconnect(const absl::Status& why);
  void Unwatch();
  void OnSocket();
  void Pace(bool came, Instant now);
  void MaybeStopped(bool out_of_time);
  absl::Status Deliver(Instant now, bool& came);
  absl::StatusOr<EventSight> Look(Instant now, bool& came);
  absl::Status LeaveRedis();

  const Options options_;
  const std::shared_ptr<Recipients> recipients_;
  const Clock& clock_;
  const std::shared_ptr<Loop> loop_ = std::make_shared<Loop>();  // calls that end late still post to it
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::atomic<bool> nudged_{false};
  Guarded<std::string> redis_fault_;
  std::thread thread_;

  // ---- the relay's thread ----
  std::unique_ptr<EventStore> store_;
  UniqueFd watched_;  // its socket
  std::optional<StreamRelay> stream_relay_;
  std::map<std::string, std::unique_ptr<Subscription>> subscriptions_;  // by module
  std::vector<std::string> ready_before_;
  Random random_ = Random::FromEntropy();
  Millis interval_ = limits::kEventPoll;
  Millis reconnect_{0};
  Instant renewed_{}, claimed_{}, trimmed_{};
  Loop::TimerId timer_ = 0;
  bool notified_ = true;   // fresh rows may be there
  bool sleeping_ = false;  // woken by NOTIFY
  bool away_said_ = false;
  bool stopping_ = false;
  std::function<void()> stopped_;
};

}  // namespace bulkhead
