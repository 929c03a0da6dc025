#include <algorithm>
#include <utility>

#include "supervisor/base/status.h"
#include "supervisor/events/event_stream.h"
#include "supervisor/events/snapshot.h"

namespace bulkhead {

absl::StatusOr<std::optional<EventPart>> StreamSource::Next(const EventSight& sight, const EventPlace& from, const std::vector<std::string>& topics) {
  const auto& relayed = sight.outbox.relayed;
  // Nobody fills the stream, or it can't be read: as if there were none.
  if (sight.stream == nullptr || !relayed || !relayed->kept_up) return outbox_.Next(sight, from, topics);
  if (from.reach && (!window_ || *window_ != std::pair(from.done, *from.reach))) return outbox_.Next(sight, from, topics);
  if (const absl::Status status = Seek(sight, from); !status.ok()) return outbox_.Next(sight, from, topics);
  while (true) {
    if (const absl::Status status = Fill(sight, from); !status.ok()) return outbox_.Next(sight, from, topics);
    const Step step = StepFrom(sight, from);
    switch (step.kind) {
      case Step::Kind::kTake: return Take(from, topics);
      case Step::Kind::kWait: return std::nullopt;
      case Step::Kind::kOutbox: return outbox_.NextUntil(sight.store, from, step.until, topics);
      case Step::Kind::kSkip: ahead_.pop_front();
    }
  }
}

// Of a stream that was not read before: the first entry that is not all settled, by halves. What is older is in the outbox.
absl::Status StreamSource::Seek(const EventSight& sight, const EventPlace& from) {
  const std::string& stream = sight.outbox.relayed->stream;
  if (stream_ == stream) return absl::OkStatus();
  ASSIGN_OR_RETURN(int64_t low, sight.stream->First(stream));
  ASSIGN_OR_RETURN(const int64_t last, sight.stream->Last(stream));
  int64_t high = last + 1;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    ASSIGN_OR_RETURN(const std::vector<StreamEntry> found, sight.stream->Read(stream, middle - 1, 1));
    if (!found.empty() && Covers(from.done, found[0].part.reach)) {
      low = std::max(found[0].number, middle) + 1;
    } else {
      high = middle;
    }
  }
  read_ = std::max<int64_t>(0, low - 1);
  ahead_.clear();
  stream_ = stream;
  return absl::OkStatus();
}

absl::Status StreamSource::Fill(const EventSight& sight, const EventPlace& from) {
  if (!ahead_.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(std::vector<StreamEntry> entries, sight.stream->Read(stream_, read_, limits::kStreamPage));
  for (StreamEntry& entry : entries) {
    read_ = entry.number;
    ahead_.push_back(std::move(entry));
  }
  return absl::OkStatus();
}

StreamSource::Step StreamSource::StepFrom(const EventSight& sight, const EventPlace& from) const {
  const OutboxView::Relayed& relayed = *sight.outbox.relayed;
  if (ahead_.empty()) {
    // Redis was read after `relayed`: what that tells of and is not there has been lost.
    if (Covers(from.done, relayed.reach)) return {Step::Kind::kWait, ""};
    if (!from.reach) return {Step::Kind::kOutbox, relayed.reach};
    return Covers(relayed.reach, *from.reach) ? Step{Step::Kind::kOutbox, *from.reach} : Step{Step::Kind::kWait, ""};
  }
  const StreamEntry& entry = ahead_.front();
  const EventPart& part = entry.part;
  if (Covers(from.done, part.reach)) return {Step::Kind::kSkip, ""};
  // What its age has taken out of the outbox could be neither parked nor looked at.
  if (!part.events.empty() && part.events.front().at < sight.oldest) return {Step::Kind::kSkip, ""};
  if (from.reach) {
    const bool same = part.done == from.done && part.reach == *from.reach;
    if (!same || entry.after > from.position) return {Step::Kind::kOutbox, *from.reach};
    return {part.position > from.position || part.last ? Step::Kind::kTake : Step::Kind::kSkip, ""};
  }
  if (part.done == from.done && entry.after == 0) return {Step::Kind::kTake, ""};
  // A gap up to where the entry begins, or a place within it.
  return {Step::Kind::kOutbox, entry.after == 0 && Covers(part.done, from.done) ? part.done : part.reach};
}

EventPart StreamSource::Take(const EventPlace& from, const std::vector<std::string>& topics) {
  EventPart part = std::move(ahead_.front().part);
  ahead_.pop_front();
  const int64_t position = from.reach ? from.position : 0;
  std::erase_if(part.events, [&](const StoredEvent& event) { return event.id <= position || !TopicMatches(topics, event.topic); });
  part.position = std::max(part.position, position);
  window_.reset();
  if (!part.last) window_.emplace(part.done, part.reach);
  return part;
}

}  // namespace bulkhead
