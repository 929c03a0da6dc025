// What waits for one subscriber, in lanes: events of one key stand behind each other and are under way in one call at a time, lanes go side
// by side. Events without a key have a lane each. Pure: time and chance are handed in. Belongs to one thread.
//
// An event that fails holds up its lane alone. While that waits, it and those behind it are parked, in rows of their own, so that the
// subscriber's place in the outbox can go on.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "supervisor/base/clock.h"
#include "supervisor/base/random.h"
#include "supervisor/events/event.h"

namespace bulkhead {

// What a module said of one event.
struct Verdict {
  enum class Kind {
    kNone,      // nothing, or the call did not come to an answer
    kAck,
    kRetry,
    kDead,
    kReturned,  // it was not tried: again at once, no attempt
    kLost,      // the worker died
  };
  Kind kind = Kind::kNone;
  std::string message;
};

class Lanes {
 public:
  explicit Lanes(Random random) : random_(random) {}

  // The next one from the outbox, in its order. One that is here already is left as it is.
  void Add(StoredEvent event, Instant now);
  // One that has a row already, in any order; `delay` until it may be tried.
  void AddParked(PendingEvent event, Millis delay, Instant now);

  // Whether Take() would give something.
  bool MayGo(Instant now);
  // The next call: events of lanes that may go, in order per lane. Empty: nothing may go now. Those events are under way until Settle().
  struct Batch {
    uint64_t number = 0;
    std::vector<PendingEvent> events;
  };
  Batch Take(Instant now, size_t max_events, size_t max_bytes);
  // How the call ended: `verdict_of(event id)` for each of its events. Behind one that is not acknowledged, nothing of its lane counts as
  // tried unless it was acknowledged.
  void Settle(uint64_t number, Instant now, const std::function<Verdict(int64_t)>& verdict_of);

  // When a lane that waits may go, if nothing else happens; nullopt: never by time alone.
  std::optional<Instant> NextDue() const;
  // What came of all that since the last time: what is to be written, and which events from the outbox are open no more, because they are
  // acknowledged, parked or dead.
  Settlement TakeSettlement();
  std::vector<int64_t> TakeClosed();
  bool settled() const { return settlement_.empty(); }

  bool IsOpen(int64_t id) const { return open_.contains(id); }
  size_t open() const { return open_.size(); }
  size_t size() const { return size_; }          // all that wait or are under way
  size_t bytes() const { return bytes_; }
  size_t parked() const { return parked_; }
  size_t under_way() const { return batches_.size(); }

 private:
  struct Lane {
    std::deque<PendingEvent> events;
    size_t taken = 0;        // of the front, under way
    Instant not_before{};
    bool waiting = false;    // for not_before
    bool listed = false;     // in ready_
  };
  using Name = std::string;
  static Name NameOf(const StoredEvent& event);
  void Offer(const Name& name, Lane& lane, Instant now);
  void WakeDue(Instant now);
  void SettleLane(Lane& lane, Instant now, const std::function<Verdict(int64_t)>& verdict_of);
  void HoldUp(Lane& lane, Instant now);  // everything that is not under way is parked, as long as the lane waits
  void Park(PendingEvent& event, Millis delay);
  void Drop(PendingEvent& event);  // it leaves
  void Close(int64_t id);
  Millis BackoffAfter(int attempt);

  Random random_;
  std::map<Name, Lane> lanes_;
  std::deque<Name> ready_;                                // lanes that may go, the longest waiting first
  std::multimap<Instant, Name> due_;                      // lanes that wait
  std::unordered_set<int64_t> open_;                      // from the outbox, and not parked
  std::vector<int64_t> closed_;
  std::map<uint64_t, std::vector<Name>> batches_;         // lanes of each call
  std::unordered_set<int64_t> known_parked_;
  Settlement settlement_;
  uint64_t next_batch_ = 1;
  size_t size_ = 0, bytes_ = 0, parked_ = 0;
};

}  // namespace bulkhead
