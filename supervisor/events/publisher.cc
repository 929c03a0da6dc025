#include "supervisor/events/publisher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"
#include "supervisor/events/event.h"
#include "supervisor/events/event_store.h"

namespace bulkhead {
namespace {

// What the database has against the content of an event, as the caller's fault.
absl::Status AsRefusal(const absl::Status& status) {
  if (!absl::StartsWith(SqlState(status), "22")) return status;
  std::string text(status.message());
  const size_t colon = text.find(": ");  // "the database refused a statement: "
  return Error("INVALID_ARGUMENT", colon == std::string::npos ? text : text.substr(colon + 2));
}

// Errors that the statement can't tell from those of the other events are found before it.
absl::Status CheckPublication(const Publication& publication) {
  if (!IsValidUtf8(publication.topic) || !IsValidUtf8(publication.key) || !IsValidUtf8(publication.payload_json)) {
    return Error("INVALID_ARGUMENT", "An event's topic, key and payload are UTF-8 without U+0000.");
  }
  if (publication.key.size() > limits::kMaxEventKey) {
    return Error("INVALID_ARGUMENT", absl::StrCat("The key of an event has at most ", limits::kMaxEventKey, " bytes."));
  }
  if (publication.payload_json.size() > limits::kMaxEventPayload) {
    return Error("INVALID_ARGUMENT", absl::StrCat("The payload of an event has at most ", limits::kMaxEventPayload, " bytes as JSON."));
  }
  if (!nlohmann::json::accept(publication.payload_json)) return Error("INVALID_ARGUMENT", "The payload of an event is JSON.");
  return absl::OkStatus();
}

}  // namespace

Publisher::Publisher(std::string conninfo, std::function<void()> published)
    : database_(std::move(conninfo), 1), published_(std::move(published)), thread_([this] { Run(); }) {}

Publisher::~Publisher() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Publisher::Publish(Publication publication, Done done) {
  if (publication.payload_json.empty()) publication.payload_json = "null";
  if (const absl::Status status = CheckPublication(publication); !status.ok()) return done(status);
  absl::Status refused;
  {
    std::lock_guard lock(mutex_);
    if (queue_.size() >= limits::kMaxWaitingPublications) {
      refused = Error("OVERLOADED", absl::StrCat(limits::kMaxWaitingPublications, " events wait to be written already; try again."));
    } else {
      queue_.push_back({std::move(publication), std::move(done)});
    }
  }
  if (!refused.ok()) return done(refused);
  wake_.notify_one();
}

void Publisher::Run() {
  while (true) {
    std::vector<Waiting> batch;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      const auto end = queue_.begin() + static_cast<std::ptrdiff_t>(std::min(queue_.size(), limits::kMaxPublicationBatch));
      batch.assign(std::make_move_iterator(queue_.begin()), std::make_move_iterator(end));
      queue_.erase(queue_.begin(), end);
    }
    Write(batch, 0, batch.size());
  }
}

absl::StatusOr<std::vector<int64_t>> Publisher::Append(const std::vector<Waiting>& batch, size_t begin, size_t end) {
  std::vector<std::string> sources, topics, keys, payloads;
  for (size_t i = begin; i < end; ++i) {
    sources.push_back(batch[i].publication.source);
    topics.push_back(batch[i].publication.topic);
    keys.push_back(batch[i].publication.key);
    payloads.push_back(batch[i].publication.payload_json);
  }
  ASSIGN_OR_RETURN(Rows rows, database_.RunPrepared("SELECT bulkhead_internal.append_events($1, $2, $3, $4) AS id",
                                                    {TextArray(sources), TextArray(topics), TextArray(keys), TextArray(payloads)}));
  std::vector<int64_t> ids;
  for (int i = 0; i < rows.size(); ++i) ids.push_back(rows.Int(i, "id"));
  return ids;
}

// One that is refused spoils what is written with it: the halves are tried apart, so that it costs the others few transactions.
void Publisher::Write(std::vector<Waiting>& batch, size_t begin, size_t end) {
  const auto ids = Append(batch, begin, end);
  if (ids.ok()) {
    BULKHEAD_CHECK(ids->size() == end - begin);
    published_();
    for (size_t i = begin; i < end; ++i) batch[i].done((*ids)[i - begin]);
  } else if (ids.status().code() == absl::StatusCode::kUnavailable || end - begin == 1) {
    for (size_t i = begin; i < end; ++i) batch[i].done(AsRefusal(ids.status()));
  } else {
    const size_t middle = begin + (end - begin) / 2;
    Write(batch, begin, middle);
    Write(batch, middle, end);
  }
}

}  // namespace bulkhead
