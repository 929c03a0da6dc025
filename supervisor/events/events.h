// Events of the modules (decision 10): what they publish goes into the outbox with their own transactions, and from there to each subscriber, at
// least once, in order per key. Everything lies in PostgreSQL; a node delivers to the subscribers that it has ready workers of. The engine `redis`
// spares PostgreSQL the reading: subscribers follow a stream that is relayed from the outbox.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/loop.h"
#include "supervisor/base/redis_address.h"
#include "supervisor/events/event_queries.h"
#include "supervisor/events/publisher.h"
#include "supervisor/lifecycle/directory.h"
#include "supervisor/store/database.h"

namespace bulkhead {

class Events : public DirectoryReader {
 public:
  struct Options {
    std::string node;
    Millis kept = limits::kEventsKept, kept_at_most = limits::kEventsKeptUnread;
    std::optional<RedisAddress> redis;  // the engine `redis`; without: `postgres`
  };
  static std::unique_ptr<Events> Make(Loop& loop, Database& database, const Clock& clock, Options options);
  ~Events() override = default;

  // Begins to deliver; after the migrations. Control loop.
  virtual void Start() = 0;
  // Begins no delivery any more; those under way get `grace`, then their events are left for the next start. Nothing becomes a dead letter by
  // it. `stopped` once, on the control loop. What modules publish is still taken.
  virtual void Stop(Millis grace, std::function<void()> stopped) = 0;
  // What a module publishes by RPC. Thread-safe; `done` on another thread.
  virtual void Publish(Publication publication, Publisher::Done done) = 0;
  // What the admin API asks. Blocking; thread-safe.
  virtual EventQueries& queries() = 0;
};

}  // namespace bulkhead
