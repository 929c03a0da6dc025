#include "supervisor/events/subscription.h"

#include <algorithm>
#include <utility>

#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

constexpr size_t kFirstBatch = 16, kMaxBatch = 256;           // events of a call
constexpr Millis kQuickCall{100}, kSlowCall{500};             // a quick one is followed by a longer one, a slow one by a shorter
constexpr Millis kPlaceInterval{30'000};                      // a place that has moved without a delivery is written so often

bool SamePlace(const EventPlace& a, const EventPlace& b) { return a.done == b.done && a.reach == b.reach && a.position == b.position; }

}  // namespace

Subscription::Subscription(ClaimedSubscription claimed, std::unique_ptr<EventSource> source, Random random, Instant now)
    : written_at(now), claimed_(std::move(claimed)), source_(std::move(source)), lanes_(random), taken_(claimed_.place), written_(claimed_.place),
      batch_(kFirstBatch) {}

absl::Status Subscription::LoadParked(EventStore& store, bool only_fresh, Instant now) {
  const int limit = static_cast<int>(limits::kMaxParkedEvents);
  ASSIGN_OR_RETURN(std::vector<EventStore::ParkedRow> rows, store.Parked(module(), limit, only_fresh));
  if (!only_fresh) more_parked_ = rows.size() >= limits::kMaxParkedEvents;
  for (EventStore::ParkedRow& row : rows) lanes_.AddParked(std::move(row.event), row.delay, now);
  return absl::OkStatus();
}

bool Subscription::Room() const {
  return !more_parked_ && lanes_.open() < limits::kMaxOpenEvents && lanes_.parked() < limits::kMaxParkedEvents &&
         lanes_.bytes() < limits::kMaxOpenBytes;
}

absl::StatusOr<bool> Subscription::Advance(const EventSight& sight, Instant now) {
  if (claimed_.topics.empty()) return false;
  if (more_parked_ && lanes_.parked() < limits::kMaxParkedEvents / 2 && lanes_.settled()) RETURN_IF_ERROR(LoadParked(sight.store, false, now));
  bool came = false;
  while (Room()) {
    ASSIGN_OR_RETURN(std::optional<EventPart> part, source_->Next(sight, taken_, claimed_.topics));
    if (!part) break;
    came |= !part->events.empty();
    Take(*std::move(part), now);
  }
  Retire();
  return came;
}

void Subscription::Take(EventPart part, Instant now) {
  const bool goes_on = taken_.reach && !windows_.empty() && windows_.back().done == part.done && windows_.back().reach == part.reach;
  taken_ = part.last ? EventPlace{.done = part.reach} : EventPlace{part.done, part.reach, part.position};
  if (!goes_on) {
    if (part.events.empty() && part.last) return;
    if (windows_.size() >= limits::kMaxWindows) MergeOldest();
    windows_.push_back({.done = part.done, .reach = part.reach});
  }
  Window& window = windows_.back();
  window.position = part.position;
  for (StoredEvent& event : part.events) {
    const int64_t id = event.id;
    lanes_.Add(std::move(event), now);
    if (!lanes_.IsOpen(id)) continue;
    window.open.insert(id);
    window_of_.emplace(id, &window);
  }
}

void Subscription::Retire() {
  for (int64_t id : lanes_.TakeClosed()) {
    closed_any_ = true;
    auto window = window_of_.find(id);
    if (window == window_of_.end()) continue;
    window->second->open.erase(id);
    window_of_.erase(window);
  }
  // The last one stays while more of it is to come.
  while (windows_.size() > (taken_.reach ? 1u : 0u) && windows_.front().open.empty()) windows_.pop_front();
}

// One slow event holds up the first window, and not those behind it. Two of which all is here are one as well as two: what is settled of both
// is what is not open of either.
void Subscription::MergeOldest() {
  Window& first = windows_[0];
  Window& second = windows_[1];
  second.done = first.done;
  second.position = std::max(first.position, second.position);
  for (int64_t id : first.open) window_of_[id] = &second;
  second.open.merge(first.open);
  windows_.pop_front();
}

EventPlace Subscription::Place() const {
  if (windows_.empty()) return taken_;
  const Window& first = windows_.front();
  return {first.done, first.reach, first.open.empty() ? first.position : *first.open.begin() - 1};
}

bool Subscription::Dirty(Instant now) {
  Retire();
  if (!lanes_.settled()) return true;
  return (closed_any_ || now - written_at > kPlaceInterval) && !SamePlace(Place(), written_);
}

std::pair<EventPlace, Settlement> Subscription::TakeWork(Instant now) {
  Retire();
  closed_any_ = false;
  written_at = now;
  written_ = Place();
  return {written_, lanes_.TakeSettlement()};
}

void Subscription::Took(size_t events, Millis time) {
  if (time > kSlowCall) {
    batch_ = std::max<size_t>(1, batch_ / 2);
  } else if (time < kQuickCall && events >= batch_) {
    batch_ = std::min(kMaxBatch, batch_ * 2);
  }
}

}  // namespace bulkhead
