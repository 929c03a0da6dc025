#include <algorithm>
#include <utility>

#include "supervisor/base/status.h"
#include "supervisor/events/event_source.h"

namespace bulkhead {

absl::StatusOr<std::optional<EventPart>> OutboxSource::Next(const EventSight& sight, const EventPlace& from, const std::vector<std::string>& topics) {
  return NextUntil(sight.store, from, sight.outbox.snapshot, topics);
}

absl::StatusOr<std::optional<EventPart>> OutboxSource::NextUntil(EventStore& store, const EventPlace& from, const std::string& until,
                                                                 const std::vector<std::string>& topics) {
  if (!from.reach && until == from.done) return std::nullopt;
  const std::string& reach = from.reach ? *from.reach : until;
  const int64_t position = from.reach ? from.position : 0;
  if (!from.reach || !window_ || window_->done != from.done || window_->reach != reach) {
    ASSIGN_OR_RETURN(const WindowSize size, store.Measure(topics, from.done, reach, position));
    window_ = Measured{from.done, reach, size.first_new, size.count};
  }
  EventPart part{.done = from.done, .reach = reach, .position = position};
  if (window_->left > 0) {
    const int wanted = static_cast<int>(std::min<int64_t>(window_->left, limits::kEventPage));
    ASSIGN_OR_RETURN(part.events, store.Fetch(topics, from.done, reach, position, window_->first_new, wanted));
    window_->left = static_cast<int>(part.events.size()) < wanted ? 0 : window_->left - wanted;  // fewer: some went by their age
    if (!part.events.empty()) part.position = part.events.back().id;
  }
  part.last = window_->left == 0;
  if (part.last) window_.reset();
  return part;
}

}  // namespace bulkhead
