// Events as values: as they are stored, as they wait for their subscriber, and what is to be written of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "supervisor/base/clock.h"

namespace bulkhead {

namespace limits {
inline constexpr size_t kMaxEventKey = 512;               // bytes; beyond: refused (migrations/0016_events.sql)
inline constexpr size_t kMaxEventPayload = 256 * 1'024;   // bytes; beyond: refused (the same)
inline constexpr int kMaxDeliveryAttempts = 12;           // beyond: dead letter; about a quarter of an hour
inline constexpr Millis kDeliveryBackoff{1'000};          // after the first failure, doubled each time; from half of it up
inline constexpr Millis kMaxDeliveryBackoff{300'000};
inline constexpr int kLossesTillAlone = 3;                // workers that died with an event: from then on it is delivered in a call of its own
inline constexpr int kMaxLosses = 8;                      // beyond, alone all the time: dead letter
inline constexpr size_t kMaxDeliveryError = 1'024;        // bytes that are kept of what a module says about an event
}  // namespace limits

struct StoredEvent {
  int64_t id = 0;
  std::string topic, key, payload_json, source;
  WallTime at;
  size_t bytes() const { return topic.size() + key.size() + payload_json.size() + source.size() + 64; }
};

// One that its subscriber has not acknowledged.
struct PendingEvent {
  StoredEvent event;
  int attempt = 0;      // that have failed
  int losses = 0;       // workers that died with it
  bool parked = false;  // it has a row of its own: the place of the subscriber is behind it
  std::string error;    // of the last failure
};

// What has to be written so that the database knows what became of deliveries.
struct Settlement {
  struct Parked {
    int64_t id = 0;
    int attempt = 0, losses = 0;
    Millis delay{0};
    std::string error;
  };
  struct Dead {
    PendingEvent event;
    std::string error;
  };
  std::vector<int64_t> unparked;  // rows that go: acknowledged
  std::vector<Parked> parked;     // rows that are made or changed
  std::vector<Dead> dead;
  bool empty() const { return unparked.empty() && parked.empty() && dead.empty(); }
};

}  // namespace bulkhead
