// Where the events of a subscription come from. What follows a place is handed on in parts of windows (event_store.h), whichever way it has come;
// a place means the same to every source, so that one may go on where another has stopped.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/events/event_store.h"

namespace bulkhead {

class EventStream;

namespace limits {
inline constexpr int kEventPage = 1'000;  // events of one part
}  // namespace limits

// What a source may look at in one turn of the relay.
struct EventSight {
  EventStore& store;
  OutboxView outbox;              // taken before anything is read from `stream`
  EventStream* stream = nullptr;  // null: Redis is not used, or is away
  WallTime oldest{};              // the outbox has all that was published since; what is older nobody may take from elsewhere
};

// What a window holds beyond a position.
struct EventPart {
  std::string done, reach;          // of the window
  std::vector<StoredEvent> events;  // in the order of their numbers
  int64_t position = 0;             // all of the window up to here has been handed on
  bool last = false;                // all of the window has
};

// Belongs to one subscription, or to whoever else reads all in order.
class EventSource {
 public:
  virtual ~EventSource() = default;
  // The next part behind `from`, of the topics that match; nullopt: there is nothing more now. Blocking.
  virtual absl::StatusOr<std::optional<EventPart>> Next(const EventSight& sight, const EventPlace& from, const std::vector<std::string>& topics) = 0;
};

// From the outbox itself.
class OutboxSource : public EventSource {
 public:
  absl::StatusOr<std::optional<EventPart>> Next(const EventSight& sight, const EventPlace& from, const std::vector<std::string>& topics) override;
  // The same of what is visible in `until`; a window that `from` is in is finished first, wherever it ends.
  absl::StatusOr<std::optional<EventPart>> NextUntil(EventStore& store, const EventPlace& from, const std::string& until,
                                                     const std::vector<std::string>& topics);

 private:
  struct Measured {
    std::string done, reach;
    int64_t first_new = 0, left = 0;
  };
  std::optional<Measured> window_;  // that is under way
};

}  // namespace bulkhead
