#include "supervisor/events/event_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

// Fields of an entry, in this order; then three for each event: id=topic, key=payload, source=time in microseconds.
constexpr const char* kEntryFields[] = {"done", "reach", "after", "position", "last"};
constexpr size_t kEntryHead = 2 * std::size(kEntryFields), kEventWords = 6;

int64_t MicrosOf(WallTime at) { return std::chrono::duration_cast<std::chrono::microseconds>(at.time_since_epoch()).count(); }

RedisClient::Command AppendCommand(const std::string& stream, const StreamEntry& entry) {
  const EventPart& part = entry.part;
  RedisClient::Command command{"XADD", stream, "MAXLEN", "~", absl::StrCat(limits::kMaxStreamEntries), absl::StrCat(entry.number, "-0"),
                               kEntryFields[0], part.done, kEntryFields[1], part.reach, kEntryFields[2], absl::StrCat(entry.after),
                               kEntryFields[3], absl::StrCat(part.position), kEntryFields[4], part.last ? "1" : "0"};
  for (const StoredEvent& event : part.events) {
    for (std::string word : {absl::StrCat(event.id), event.topic, event.key, event.payload_json, event.source, absl::StrCat(MicrosOf(event.at))}) {
      command.push_back(std::move(word));
    }
  }
  return command;
}

int64_t EntryNumber(const RedisReply& entry) {
  int64_t number = 0;
  if (entry.kind != RedisReply::Kind::kList || entry.list.size() != 2) return 0;
  const std::string& id = entry.list[0].text;
  return absl::SimpleAtoi(absl::string_view(id).substr(0, id.find('-')), &number) ? number : 0;
}

std::optional<StreamEntry> EntryOf(const RedisReply& reply) {
  StreamEntry entry{.number = EntryNumber(reply)};
  if (entry.number == 0) return std::nullopt;
  const std::vector<RedisReply>& words = reply.list[1].list;
  if (words.size() < kEntryHead || (words.size() - kEntryHead) % kEventWords != 0) return std::nullopt;
  for (size_t i = 0; i < std::size(kEntryFields); ++i) {
    if (words[2 * i].text != kEntryFields[i]) return std::nullopt;
  }
  entry.part.done = words[1].text;
  entry.part.reach = words[3].text;
  if (!absl::SimpleAtoi(words[5].text, &entry.after) || !absl::SimpleAtoi(words[7].text, &entry.part.position)) return std::nullopt;
  entry.part.last = words[9].text == "1";
  for (size_t i = kEntryHead; i < words.size(); i += kEventWords) {
    StoredEvent event{.topic = words[i + 1].text, .key = words[i + 2].text, .payload_json = words[i + 3].text, .source = words[i + 4].text};
    int64_t micros = 0;
    if (!absl::SimpleAtoi(words[i].text, &event.id) || !absl::SimpleAtoi(words[i + 5].text, &micros)) return std::nullopt;
    event.at = WallTime(std::chrono::duration_cast<WallTime::duration>(std::chrono::microseconds(micros)));
    entry.part.events.push_back(std::move(event));
  }
  return entry;
}

}  // namespace

bool TopicMatches(const std::vector<std::string>& topics, const std::string& topic) {
  return std::any_of(topics.begin(), topics.end(), [&](const std::string& wanted) {
    return wanted == topic || (absl::EndsWith(wanted, ".*") && absl::StartsWith(topic, absl::string_view(wanted).substr(0, wanted.size() - 1)));
  });
}

// ---- the stream ----

bool EventStream::Ready() {
  if (client_) return true;
  client_ = connector_.Take();
  if (!client_) {
    if (std::string why = connector_.fault(); !why.empty()) fault_ = std::move(why);
    if (!fault_.empty()) SayAway();
    return false;
  }
  ++connections_;
  fault_.clear();
  if (std::exchange(away_said_, false)) LogInfo("events", "Redis is back");
  return true;
}

void EventStream::SayAway() {
  if (std::exchange(away_said_, true)) return;
  LogWarn("events", "Redis is away: events come from the outbox meanwhile, where nothing is lost", {{"error", fault_}});
}

absl::Status EventStream::Lost(const absl::Status& why) {
  client_.reset();
  connector_.Lost();
  fault_ = std::string(why.message());
  SayAway();
  return absl::UnavailableError(fault_);
}

absl::StatusOr<std::vector<RedisReply>> EventStream::Run(const std::vector<RedisClient::Command>& commands) {
  if (!client_) return absl::UnavailableError(fault_);
  auto replies = client_->Run(commands);
  if (!replies.ok()) return Lost(replies.status());
  return replies;
}

absl::StatusOr<bool> EventStream::Append(const std::string& stream, const std::vector<StreamEntry>& entries) {
  std::vector<RedisClient::Command> commands;
  for (const StreamEntry& entry : entries) commands.push_back(AppendCommand(stream, entry));
  commands.push_back({"PEXPIRE", stream, absl::StrCat(limits::kStreamExpiry.count())});
  ASSIGN_OR_RETURN(const std::vector<RedisReply> replies, Run(commands));
  for (const RedisReply& reply : replies) {
    if (reply.kind != RedisReply::Kind::kError) continue;
    if (absl::StrContains(reply.text, "equal or smaller than")) return false;
    return Lost(absl::UnavailableError(reply.text));  // no memory, read only, a key of another kind
  }
  return true;
}

absl::StatusOr<std::vector<StreamEntry>> EventStream::Read(const std::string& stream, int64_t behind, int count) {
  ASSIGN_OR_RETURN(const std::vector<RedisReply> replies, Run({{"XRANGE", stream, absl::StrCat(behind + 1, "-0"), "+", "COUNT", absl::StrCat(count)}}));
  if (replies[0].kind == RedisReply::Kind::kError) return Lost(absl::UnavailableError(replies[0].text));
  std::vector<StreamEntry> entries;
  for (const RedisReply& reply : replies[0].list) {
    if (auto entry = EntryOf(reply)) entries.push_back(*std::move(entry));
  }
  return entries;
}

absl::StatusOr<int64_t> EventStream::NumberOf(RedisClient::Command command) {
  ASSIGN_OR_RETURN(const std::vector<RedisReply> replies, Run({std::move(command)}));
  if (replies[0].kind == RedisReply::Kind::kError) return Lost(absl::UnavailableError(replies[0].text));
  return replies[0].list.empty() ? 0 : EntryNumber(replies[0].list[0]);
}

absl::StatusOr<int64_t> EventStream::First(const std::string& stream) { return NumberOf({"XRANGE", stream, "-", "+", "COUNT", "1"}); }

absl::StatusOr<int64_t> EventStream::Last(const std::string& stream) { return NumberOf({"XREVRANGE", stream, "+", "-", "COUNT", "1"}); }

}  // namespace bulkhead
