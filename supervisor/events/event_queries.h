// What the admin API asks of events and does to them. Blocking; thread-safe. What is changed here the node that delivers is told by a NOTIFY.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/events/event.h"
#include "supervisor/store/audit.h"
#include "supervisor/store/database.h"

namespace bulkhead {

namespace limits {
inline constexpr int kMaxCountedLag = 100'000;          // events of a lag are counted up to this
inline constexpr int kMaxReplayedDeadLetters = 10'000;  // that one call takes back; the oldest ones
}  // namespace limits

struct EventPage {
  std::vector<StoredEvent> events;  // newest first
  int total = 0;
};

// A transaction that has published and is still open: its events wait for its end, and no others do.
struct OpenTransaction {
  int pid = 0;
  std::string module;  // empty: of the supervisor, or somebody who is no module
  WallTime since;
  std::string state, query;
};

struct SubscriptionView {
  std::string module;
  std::vector<std::string> topics;
  std::string node;                     // empty: nobody delivers
  int lag = 0;                          // committed events that are not acknowledged, at most limits::kMaxCountedLag
  std::optional<WallTime> oldest;       // of them
  int retrying = 0, dead_letters = 0;   // retrying: of the lag, those that have failed, or wait behind one that has
  std::optional<WallTime> delivered_at; // when something was last settled
};

struct DeadLetter {
  int64_t id = 0;
  std::string module;
  StoredEvent event;
  int attempts = 0;
  std::string error;
  WallTime died_at;
};
struct DeadLetterPage {
  std::vector<DeadLetter> letters;  // newest first
  int total = 0;
};

// What carries events from the outbox to the subscribers, as this node sees it.
struct EngineView {
  std::string name = "postgres";  // or "redis"
  std::string fault;              // why Redis is not used just now: events come from the outbox meanwhile
};

class EventQueries {
 public:
  explicit EventQueries(Database& database, std::function<EngineView()> engine = [] { return EngineView(); })
      : database_(database), engine_(std::move(engine)) {}

  EngineView Engine() const { return engine_(); }  // does not block

  struct Filter {
    std::string topic, key, source;  // empty: all; a topic may be "order.*"
    std::optional<WallTime> since;
    int page = 1, page_size = 50;
  };
  absl::StatusOr<EventPage> Find(const Filter& filter);
  absl::StatusOr<std::vector<SubscriptionView>> Subscriptions();
  absl::StatusOr<std::vector<OpenTransaction>> OpenTransactions();

  absl::StatusOr<DeadLetterPage> DeadLetters(const std::string& module, const std::string& topic, int page, int page_size);
  absl::StatusOr<DeadLetter> GetDeadLetter(int64_t id);  // DEAD_LETTER_NOT_FOUND
  // These are delivered again, from the first attempt on. `audit` is written with it.
  absl::StatusOr<DeadLetter> ReplayDeadLetter(int64_t id, AuditRecord audit);
  absl::StatusOr<int> ReplayDeadLetters(const std::string& module, const std::string& topic, AuditRecord audit);
  absl::StatusOr<DeadLetter> DropDeadLetter(int64_t id, AuditRecord audit);
  // Everything published since then is delivered to the module again; what it has done with bulkhead.once() it does again only when `forget`.
  // The number of events. SUBSCRIPTION_NOT_FOUND.
  absl::StatusOr<int> Replay(const std::string& module, WallTime since, bool forget, AuditRecord audit);

 private:
  Database& database_;
  const std::function<EngineView()> engine_;
};

}  // namespace bulkhead
