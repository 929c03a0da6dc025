// The stream in Redis: one for all subscribers, filled by one node from the outbox in its order, followed by each subscriber from its own place.
// An entry is a part of a window, with where that begins and ends. So a follower sees by itself that something is missing, has come twice or in
// another order, and takes what he lacks from the outbox, which is the truth. Nothing is lost with what Redis loses.
//
// One stream and not many: a Redis executes commands on one thread, and lanes make the parallel work of one subscriber.
//
// Belongs to the thread of the relay, which waits for an answer and never for a connection: a Redis that begins to hang holds up deliveries once, by
// limits::kStreamPatience and a little, and not again while it hangs.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/events/event_source.h"
#include "supervisor/redis/redis_connector.h"

namespace bulkhead {

namespace limits {
inline constexpr size_t kMaxEntryEvents = 256;             // of one entry of the stream
inline constexpr size_t kMaxEntryBytes = 64 * 1'024;       // of one entry, but for one event that alone is longer
inline constexpr int kMaxStreamEntries = 4'096;            // about; older ones go, and who is further behind reads the outbox
inline constexpr Millis kStreamExpiry{86'400'000};         // a stream that gets nothing for so long goes
inline constexpr int kStreamPage = 16;                     // entries of one read
inline constexpr Millis kStreamPatience{200};               // for the answers of one go; beyond: Redis is away, and events come from the outbox
}  // namespace limits

struct StreamEntry {
  int64_t number = 0;  // its id in Redis is "<number>-0"
  int64_t after = 0;   // the position in its window behind which it begins; 0: it begins the window
  EventPart part;
};

class EventStream {
 public:
  explicit EventStream(RedisAddress address) : connector_(std::move(address), limits::kStreamPatience) {}

  // Whether it is connected. Returns at once; where it is not, somebody else tries.
  bool Ready();
  // Counts connections: what is known of the stream is of one of them.
  int connection() const { return connections_; }
  const std::string& fault() const { return fault_; }  // why it is not ready; empty when that is not known yet

  // False: one of them was refused, since there is a later one already. UNAVAILABLE: Redis is away, or can't take it; it is not ready then.
  absl::StatusOr<bool> Append(const std::string& stream, const std::vector<StreamEntry>& entries);
  // At most `count` entries behind the number, the oldest first. What is no entry of ours is left out.
  absl::StatusOr<std::vector<StreamEntry>> Read(const std::string& stream, int64_t behind, int count);
  // The number of the oldest or the newest entry; 0: there is none.
  absl::StatusOr<int64_t> First(const std::string& stream);
  absl::StatusOr<int64_t> Last(const std::string& stream);

 private:
  absl::StatusOr<std::vector<RedisReply>> Run(const std::vector<RedisClient::Command>& commands);
  absl::Status Lost(const absl::Status& why);
  void SayAway();
  absl::StatusOr<int64_t> NumberOf(RedisClient::Command command);

  RedisConnector connector_;
  std::unique_ptr<RedisClient> client_;
  int connections_ = 0;
  std::string fault_;
  bool away_said_ = false;
};

// The stream as far as it goes on where the subscriber is, and the outbox for everything else.
class StreamSource : public EventSource {
 public:
  absl::StatusOr<std::optional<EventPart>> Next(const EventSight& sight, const EventPlace& from, const std::vector<std::string>& topics) override;

 private:
  struct Step {
    enum class Kind { kTake, kSkip, kOutbox, kWait };
    Kind kind = Kind::kWait;
    std::string until;  // kOutbox
  };
  absl::Status Seek(const EventSight& sight, const EventPlace& from);
  absl::Status Fill(const EventSight& sight, const EventPlace& from);
  Step StepFrom(const EventSight& sight, const EventPlace& from) const;
  EventPart Take(const EventPlace& from, const std::vector<std::string>& topics);

  OutboxSource outbox_;
  std::string stream_;               // whose entries `ahead_` are
  int64_t read_ = 0;                 // number of the last that was read
  std::deque<StreamEntry> ahead_;    // read, and not had yet
  std::optional<std::pair<std::string, std::string>> window_;  // that is under way and comes from the stream: done, reach
};

bool TopicMatches(const std::vector<std::string>& topics, const std::string& topic);

}  // namespace bulkhead
