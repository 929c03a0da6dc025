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

Subscription::Subscription(ClaimedSubscription claimed, Random random, Instant now)
    : written_at(now), claimed_(std::move(claimed)), lanes_(random), done_(claimed_.place.done), written_(claimed_.place), batch_(kFirstBatch) {}

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

absl::Status Subscription::Open(EventStore& store, std::string done, const std::string& reach, int64_t position) {
  ASSIGN_OR_RETURN(const WindowSize size, store.Measure(claimed_.topics, done, reach, position));
  done_ = reach;
  if (size.count == 0) return absl::OkStatus();
  windows_.push_back({.done = std::move(done), .reach = reach, .first_new = size.first_new, .position = position, .left = size.count});
  return absl::OkStatus();
}

absl::StatusOr<bool> Subscription::Advance(EventStore& store, const std::string& snapshot, Instant now) {
  if (claimed_.topics.empty()) return false;
  if (more_parked_ && lanes_.parked() < limits::kMaxParkedEvents / 2 && lanes_.settled()) RETURN_IF_ERROR(LoadParked(store, false, now));
  if (!resumed_) {
    if (claimed_.place.reach) RETURN_IF_ERROR(Open(store, claimed_.place.done, *claimed_.place.reach, claimed_.place.position));
    resumed_ = true;
  }
  bool came = false;
  while (Room()) {
    if (windows_.empty() || windows_.back().left == 0) {
      if (snapshot == done_) break;
      if (windows_.size() >= limits::kMaxWindows) MergeOldest();
      RETURN_IF_ERROR(Open(store, done_, snapshot, 0));
      continue;
    }
    Window& window = windows_.back();
    const int wanted = static_cast<int>(std::min<int64_t>(window.left, limits::kEventPage));
    ASSIGN_OR_RETURN(std::vector<StoredEvent> events,
                     store.Fetch(claimed_.topics, window.done, window.reach, window.position, window.first_new, wanted));
    window.left = static_cast<int>(events.size()) < wanted ? 0 : window.left - wanted;  // fewer: some went by their age
    for (StoredEvent& event : events) {
      const int64_t id = event.id;
      window.position = id;
      lanes_.Add(std::move(event), now);
      if (!lanes_.IsOpen(id)) continue;
      window.open.insert(id);
      window_of_.emplace(id, &window);
    }
    came |= !events.empty();
  }
  Retire();
  return came;
}

void Subscription::Retire() {
  for (int64_t id : lanes_.TakeClosed()) {
    closed_any_ = true;
    auto window = window_of_.find(id);
    if (window == window_of_.end()) continue;
    window->second->open.erase(id);
    window_of_.erase(window);
  }
  while (!windows_.empty() && windows_.front().left == 0 && windows_.front().open.empty()) windows_.pop_front();
}

// One slow event holds up the first window, and not those behind it. Two of which all is fetched are one as well as two: what is settled of both
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
  if (windows_.empty()) return {.done = done_};
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
