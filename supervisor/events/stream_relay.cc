#include "supervisor/events/stream_relay.h"

#include <algorithm>
#include <utility>

#include "supervisor/base/log.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

// A part as entries that are not too long, behind the number. The last of them ends where the part does.
std::vector<StreamEntry> EntriesOf(EventPart part, int64_t after, int64_t number) {
  std::vector<StreamEntry> entries;
  size_t next = 0;
  do {
    StreamEntry entry{.number = ++number, .after = after, .part = {.done = part.done, .reach = part.reach}};
    for (size_t bytes = 0; next < part.events.size() && entry.part.events.size() < limits::kMaxEntryEvents && bytes < limits::kMaxEntryBytes; ++next) {
      bytes += part.events[next].bytes();
      entry.part.events.push_back(std::move(part.events[next]));
    }
    const bool end = next == part.events.size();
    entry.part.position = end ? part.position : entry.part.events.back().id;
    entry.part.last = end && part.last;
    after = entry.part.position;
    entries.push_back(std::move(entry));
  } while (next < part.events.size());
  return entries;
}

}  // namespace

absl::StatusOr<bool> StreamRelay::Claim(EventStore& store, Instant now) {
  if (held_) return true;
  if (now - claimed_ < limits::kStreamClaim) return false;
  claimed_ = now;
  ASSIGN_OR_RETURN(held_, store.ClaimRelay());
  if (!held_) return false;
  place_ = {.done = held_->reach};
  renewed_ = sent_ = now;
  connection_ = 0;
  LogDebug("events", "relays into Redis", {{"stream", held_->stream}});
  return true;
}

absl::StatusOr<bool> StreamRelay::Turn(EventStore& store, const std::string& snapshot, Instant now) {
  ready_ = stream_.Ready();
  if (!ready_) {
    RETURN_IF_ERROR(LetGo(store));  // subscribers wait for nobody then, and another node may reach Redis
    return false;
  }
  ASSIGN_OR_RETURN(const bool ours, Claim(store, now));
  if (!ours) return false;
  if (connection_ != stream_.connection()) {
    // Numbers only grow, whatever Redis or the row has forgotten.
    const auto last = stream_.Last(held_->stream);
    ready_ = last.ok();
    if (!ready_) return false;
    held_->number = std::max(held_->number, *last);
    connection_ = stream_.connection();
  }
  bool came = false;
  for (int parts = 0; parts < limits::kRelayedParts && held_; ++parts) {
    ASSIGN_OR_RETURN(std::optional<EventPart> part, outbox_.NextUntil(store, place_, snapshot, {"*"}));
    if (!part) break;
    if (part->events.empty() && !place_.reach && now - sent_ < limits::kEmptyWindow) break;  // it is looked at again with what comes
    came |= !part->events.empty();
    ASSIGN_OR_RETURN(const bool sent, Send(store, *std::move(part), now));
    if (!sent) break;
  }
  if (held_ && now - renewed_ >= limits::kStreamRenewal) {
    renewed_ = now;
    ASSIGN_OR_RETURN(const bool renewed, store.MoveRelay(*held_));
    if (!renewed) held_.reset();
  }
  return came;
}

absl::StatusOr<bool> StreamRelay::Send(EventStore& store, EventPart part, Instant now) {
  const EventPlace next = part.last ? EventPlace{.done = part.reach} : EventPlace{part.done, part.reach, part.position};
  const std::vector<StreamEntry> entries = EntriesOf(std::move(part), place_.reach ? place_.position : 0, held_->number);
  const auto appended = stream_.Append(held_->stream, entries);
  if (!appended.ok()) {
    ready_ = false;
    RETURN_IF_ERROR(LetGo(store));
    return false;
  }
  if (!*appended) {
    // Somebody has relayed since, who has or had the lease. What of ours is there is as good as what is his; the claim says what follows.
    RETURN_IF_ERROR(LetGo(store));
    claimed_ = {};
    return false;
  }
  held_->number = entries.back().number;
  place_ = next;
  sent_ = renewed_ = now;
  // Until the window is all there, followers wait for the rest of it.
  if (!place_.reach) held_->reach = place_.done;
  ASSIGN_OR_RETURN(const bool ours, store.MoveRelay(*held_));
  if (!ours) held_.reset();
  return ours;
}

absl::Status StreamRelay::LetGo(EventStore& store) {
  if (!held_) return absl::OkStatus();
  const ClaimedRelay held = *std::exchange(held_, std::nullopt);
  return store.ReleaseRelay(held);
}

}  // namespace bulkhead
