#include "supervisor/events/events.h"

#include <utility>

#include "supervisor/base/log.h"
#include "supervisor/events/relay.h"

namespace bulkhead {
namespace {

constexpr Millis kStopWrite{3'000};  // for the relay to write the last outcomes; a database that does not answer holds up no shutdown

class EventsOfNode final : public Events {
 public:
  EventsOfNode(Loop& loop, Database& database, const Clock& clock, Options options)
      : loop_(loop),
        queries_(database, [this, redis = options.redis.has_value()] {
          return redis ? EngineView{"redis", relay_.RedisFault()} : EngineView();
        }),
        relay_({options.node, database.conninfo(), options.kept, options.kept_at_most, options.redis}, recipients_, clock),
        publisher_(database.conninfo(), [this] { relay_.Nudge(); }) {}

  void Adopt(std::shared_ptr<const Directory> directory, std::function<void()> adopted) override {
    recipients_->Adopt(std::move(directory));
    adopted();
    relay_.Nudge();
  }
  void Drain(const std::string& instance, std::function<void()> drained) override { recipients_->Drain(instance, std::move(drained)); }

  void Start() override { relay_.Start(); }

  void Stop(Millis grace, std::function<void()> stopped) override {
    auto once = std::make_shared<std::function<void()>>(std::move(stopped));
    const auto answer = [once] {
      if (auto todo = std::exchange(*once, nullptr)) todo();
    };
    const Loop::TimerId late = loop_.After(grace + kStopWrite, [answer] {
      LogWarn("events", "the last deliveries are not written: the database does not answer; they come again at the next start");
      answer();
    });
    relay_.Stop(grace, [this, late, answer] {
      loop_.Post([this, late, answer] {
        loop_.Cancel(late);
        answer();
      });
    });
  }

  void Publish(Publication publication, Publisher::Done done) override { publisher_.Publish(std::move(publication), std::move(done)); }
  EventQueries& queries() override { return queries_; }

 private:
  Loop& loop_;
  const std::shared_ptr<Recipients> recipients_ = std::make_shared<Recipients>();
  EventQueries queries_;
  Relay relay_;
  Publisher publisher_;  // its thread nudges the relay
};

}  // namespace

std::unique_ptr<Events> Events::Make(Loop& loop, Database& database, const Clock& clock, Options options) {
  return std::make_unique<EventsOfNode>(loop, database, clock, std::move(options));
}

}  // namespace bulkhead
