#include "supervisor/events/lanes.h"

#include <algorithm>
#include <utility>

#include "supervisor/base/log.h"

namespace bulkhead {
namespace {

constexpr size_t kMaxOfLane = 64;  // events of one lane in a call: the answer comes when the slowest lane is done

}  // namespace

// A key never begins with a NUL, which no text of PostgreSQL has.
Lanes::Name Lanes::NameOf(const StoredEvent& event) {
  return event.key.empty() ? std::string(1, '\0') + std::to_string(event.id) : event.key;
}

Millis Lanes::BackoffAfter(int attempt) {
  Millis most = limits::kDeliveryBackoff;
  for (int i = 1; i < attempt && most < limits::kMaxDeliveryBackoff; ++i) most *= 2;
  most = std::min(most, limits::kMaxDeliveryBackoff);
  return most / 2 + Millis(static_cast<int64_t>(random_.Below(static_cast<uint64_t>(most.count() / 2) + 1)));
}

void Lanes::Offer(const Name& name, Lane& lane, Instant now) {
  if (lane.taken > 0 || lane.events.empty() || lane.listed) return;
  if (now < lane.not_before) {
    if (!std::exchange(lane.waiting, true)) due_.emplace(lane.not_before, name);
    return;
  }
  lane.listed = true;
  ready_.push_back(name);
}

void Lanes::WakeDue(Instant now) {
  while (!due_.empty() && due_.begin()->first <= now) {
    const Name name = std::move(due_.begin()->second);
    due_.erase(due_.begin());
    auto found = lanes_.find(name);
    if (found == lanes_.end()) continue;
    found->second.waiting = false;
    Offer(name, found->second, now);
  }
}

void Lanes::Add(StoredEvent event, Instant now) {
  if (known_parked_.contains(event.id) || !open_.insert(event.id).second) return;
  const Name name = NameOf(event);
  Lane& lane = lanes_[name];
  ++size_;
  bytes_ += event.bytes();
  lane.events.push_back({.event = std::move(event)});
  HoldUp(lane, now);
  Offer(name, lane, now);
}

void Lanes::AddParked(PendingEvent event, Millis delay, Instant now) {
  const int64_t id = event.event.id;
  if (known_parked_.contains(id)) return;
  known_parked_.insert(id);
  ++parked_;
  const Name name = NameOf(event.event);
  Lane& lane = lanes_[name];
  if (open_.contains(id)) {  // it came from the outbox, too
    Close(id);
    for (PendingEvent& here : lane.events) here.parked |= here.event.id == id;
    return;
  }
  event.parked = true;
  ++size_;
  bytes_ += event.event.bytes();
  // Among those of its lane by its number, but not before what is under way.
  auto at = lane.events.begin() + static_cast<std::ptrdiff_t>(lane.taken);
  while (at != lane.events.end() && at->event.id < id) ++at;
  const bool first = at == lane.events.begin();
  lane.events.insert(at, std::move(event));
  if (first && delay > Millis(0)) lane.not_before = now + delay;
  HoldUp(lane, now);
  Offer(name, lane, now);
}

void Lanes::HoldUp(Lane& lane, Instant now) {
  if (lane.not_before <= now) return;
  const Millis delay = std::chrono::ceil<Millis>(lane.not_before - now);
  for (size_t i = lane.taken; i < lane.events.size(); ++i) {
    if (!lane.events[i].parked) Park(lane.events[i], delay);
  }
}

void Lanes::Park(PendingEvent& event, Millis delay) {
  if (!std::exchange(event.parked, true)) {
    ++parked_;
    known_parked_.insert(event.event.id);
    Close(event.event.id);
  }
  settlement_.parked.push_back({event.event.id, event.attempt, event.losses, delay, event.error});
}

bool Lanes::MayGo(Instant now) {
  WakeDue(now);
  return !ready_.empty();
}

Lanes::Batch Lanes::Take(Instant now, size_t max_events, size_t max_bytes) {
  WakeDue(now);
  Batch batch;
  size_t bytes = 0;
  std::vector<Name> taken;
  while (!ready_.empty() && batch.events.size() < max_events && bytes < max_bytes) {
    const Name name = ready_.front();
    Lane& lane = lanes_.at(name);
    const bool alone = lane.events.front().losses >= limits::kLossesTillAlone;
    if (alone && !batch.events.empty()) break;
    ready_.pop_front();
    lane.listed = false;
    while (lane.taken < lane.events.size() && lane.taken < kMaxOfLane && batch.events.size() < max_events && bytes < max_bytes) {
      const PendingEvent& event = lane.events[lane.taken];
      if (lane.taken > 0 && (alone || event.losses >= limits::kLossesTillAlone)) break;
      ++lane.taken;
      bytes += event.event.bytes();
      batch.events.push_back(event);
    }
    taken.push_back(name);
    if (alone) break;
  }
  if (batch.events.empty()) return batch;
  batch.number = next_batch_++;
  batches_.emplace(batch.number, std::move(taken));
  return batch;
}

void Lanes::Close(int64_t id) {
  open_.erase(id);
  closed_.push_back(id);
}

void Lanes::Drop(PendingEvent& event) {
  if (event.parked) {
    --parked_;
    known_parked_.erase(event.event.id);
    settlement_.unparked.push_back(event.event.id);
  } else {
    Close(event.event.id);
  }
  --size_;
  bytes_ -= event.event.bytes();
}

void Lanes::Settle(uint64_t number, Instant now, const std::function<Verdict(int64_t)>& verdict_of) {
  auto batch = batches_.find(number);
  BULKHEAD_CHECK(batch != batches_.end());
  const std::vector<Name> names = std::move(batch->second);
  batches_.erase(batch);
  for (const Name& name : names) {
    auto lane = lanes_.find(name);
    SettleLane(lane->second, now, verdict_of);
    if (lane->second.events.empty()) {
      lanes_.erase(lane);  // what due_ has of it is skipped
    } else {
      Offer(name, lane->second, now);
    }
  }
}

void Lanes::SettleLane(Lane& lane, Instant now, const std::function<Verdict(int64_t)>& verdict_of) {
  const size_t taken = std::exchange(lane.taken, 0);
  bool held = false;  // one of the lane has failed: those behind it wait
  std::deque<PendingEvent> stay;
  for (size_t i = 0; i < taken; ++i) {
    PendingEvent event = std::move(lane.events.front());
    lane.events.pop_front();
    Verdict verdict = verdict_of(event.event.id);
    if (verdict.kind == Verdict::Kind::kAck) {
      Drop(event);
      continue;
    }
    if (held) {
      stay.push_back(std::move(event));
      continue;
    }
    bool died = verdict.kind == Verdict::Kind::kDead;
    Millis delay{0};
    if (died) {
      ++event.attempt;
    } else if (verdict.kind == Verdict::Kind::kRetry || verdict.kind == Verdict::Kind::kNone) {
      died = ++event.attempt >= limits::kMaxDeliveryAttempts;
      delay = BackoffAfter(event.attempt);
    } else if (verdict.kind == Verdict::Kind::kLost) {
      died = ++event.losses >= limits::kMaxLosses;
      if (event.losses >= limits::kLossesTillAlone) delay = BackoffAfter(event.losses - limits::kLossesTillAlone + 1);
    }
    if (!verdict.message.empty()) event.error = std::move(verdict.message);
    if (died) {
      Drop(event);
      if (event.parked) settlement_.unparked.pop_back();  // its row goes with the dead letter
      settlement_.dead.push_back({event, event.error});
      continue;
    }
    held = true;
    if (delay > Millis(0)) {
      lane.not_before = now + delay;
      Park(event, delay);
    }
    stay.push_back(std::move(event));
  }
  lane.events.insert(lane.events.begin(), std::make_move_iterator(stay.begin()), std::make_move_iterator(stay.end()));
  HoldUp(lane, now);
}

std::optional<Instant> Lanes::NextDue() const {
  if (due_.empty()) return std::nullopt;
  return due_.begin()->first;
}

Settlement Lanes::TakeSettlement() { return std::exchange(settlement_, {}); }

std::vector<int64_t> Lanes::TakeClosed() { return std::exchange(closed_, {}); }

}  // namespace bulkhead
