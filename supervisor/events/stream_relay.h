// Fills the stream in Redis from the outbox: one node in the cluster does, the holder of the lease. A relay begins at the present; what was published
// while nobody relayed its subscribers take from the outbox. Belongs to the thread of the relay; blocking.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "supervisor/events/event_stream.h"

namespace bulkhead {

namespace limits {
inline constexpr Millis kStreamRenewal{1'000};     // of the lease; a fifth of kStreamLease
inline constexpr Millis kStreamClaim{1'000};       // between two looks whether another node has let go
inline constexpr Millis kEmptyWindow{10'000};      // places of subscribers move at least so often though nothing is published
inline constexpr int kRelayedParts = 8;            // of one turn
}  // namespace limits

class StreamRelay {
 public:
  explicit StreamRelay(RedisAddress address) : stream_(std::move(address)) {}

  // What a turn of the node's relay does for Redis. True when something was relayed. An error is one of the database.
  absl::StatusOr<bool> Turn(EventStore& store, const std::string& snapshot, Instant now);
  // Another node may; a relay that is not ours is let be.
  absl::Status LetGo(EventStore& store);
  void Forget() { held_.reset(); }  // the database is away

  // Null: Redis is away.
  EventStream* stream() { return ready_ ? &stream_ : nullptr; }
  const std::string& fault() const { return stream_.fault(); }

 private:
  absl::StatusOr<bool> Claim(EventStore& store, Instant now);
  absl::StatusOr<bool> Send(EventStore& store, EventPart part, Instant now);

  EventStream stream_;
  bool ready_ = false;
  std::optional<ClaimedRelay> held_;
  EventPlace place_;
  OutboxSource outbox_;
  int connection_ = 0;   // that the number was compared on
  Instant claimed_{}, renewed_{}, sent_{};
};

}  // namespace bulkhead
