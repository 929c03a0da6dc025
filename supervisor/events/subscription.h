// One subscriber while this node delivers to it: windows of its source on one side, lanes on the other, and the place that may be written down.
// Belongs to the thread of the relay. Pure but for the store that it is handed.
#pragma once

#include <deque>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "supervisor/events/event_source.h"
#include "supervisor/events/lanes.h"

namespace bulkhead {

namespace limits {
inline constexpr size_t kMaxOpenEvents = 4'096;              // of one subscriber in memory, fetched and not settled; beyond, nothing is fetched
inline constexpr size_t kMaxOpenBytes = size_t{32} << 20;
inline constexpr size_t kMaxWindows = 64;                    // begun and not settled; beyond, the oldest two become one
}  // namespace limits

class Subscription {
 public:
  Subscription(ClaimedSubscription claimed, std::unique_ptr<EventSource> source, Random random, Instant now);

  // Rows of what is parked: all of them once, first; then fresh ones.
  absl::Status LoadParked(EventStore& store, bool only_fresh, Instant now);
  // Takes as much as there is room for of what its source has. True when something came.
  absl::StatusOr<bool> Advance(const EventSight& sight, Instant now);

  // There is something to write: what came of deliveries, or the place has moved.
  bool Dirty(Instant now);
  // The place and the settlement to write; they count as written.
  std::pair<EventPlace, Settlement> TakeWork(Instant now);

  Lanes& lanes() { return lanes_; }
  const Lanes& lanes() const { return lanes_; }
  const std::string& module() const { return claimed_.module; }
  int64_t fence() const { return claimed_.fence; }

  // How many events a call has: as many as are done in a short time.
  size_t batch() const { return batch_; }
  void Took(size_t events, Millis time);

  // ---- kept here for the relay ----
  bool lost = false;         // somebody else has it, or has moved its place: nothing more is begun, and what is under way is awaited
  Instant good_until{};      // of the lease, by our clock
  Instant written_at{};

 private:
  struct Window {
    std::string done, reach;
    int64_t position = 0;    // of the last that came
    std::set<int64_t> open;  // came, and neither acknowledged nor parked
  };
  bool Room() const;
  void Take(EventPart part, Instant now);
  void Retire();  // windows that are settled
  void MergeOldest();
  EventPlace Place() const;

  ClaimedSubscription claimed_;
  const std::unique_ptr<EventSource> source_;
  Lanes lanes_;
  std::deque<Window> windows_;                         // in order; the first is the oldest that is not settled, all but the last are here
  std::unordered_map<int64_t, Window*> window_of_;     // of open events
  EventPlace taken_;                                   // what came; while it is in a window, that is the last of windows_
  EventPlace written_;
  bool more_parked_ = false;   // more rows than may be here at once
  bool closed_any_ = false;    // since the place was written
  size_t batch_;
};

}  // namespace bulkhead
