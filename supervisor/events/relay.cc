#include "supervisor/events/relay.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

constexpr Millis kFirstReconnect{100}, kLastReconnect{2'000};
constexpr Millis kLeaseMargin{2'000};  // kept of a lease for a call to be begun and the clocks to differ

// What a module says, as it is kept.
std::string Said(std::string_view text) {
  return std::string(CutUtf8(ValidUtf8(text.substr(0, limits::kMaxDeliveryError + 4)), limits::kMaxDeliveryError));
}

// What is true of all events of a call that has no outcome for them.
Verdict WithoutOutcome(const absl::Status& status, bool leaving, bool stopping) {
  if (status.ok()) return leaving ? Verdict{Verdict::Kind::kReturned, ""} : Verdict{Verdict::Kind::kNone, "the module said nothing of it"};
  if (stopping) return {Verdict::Kind::kReturned, ""};
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled: return {Verdict::Kind::kLost, "the worker has ended"};
    case absl::StatusCode::kDeadlineExceeded:
      return {Verdict::Kind::kRetry, absl::StrCat("no answer within ", limits::kDeliveryTimeout.count() / 1000, " s")};
    default: return {Verdict::Kind::kRetry, Said(absl::StrCat(absl::StatusCodeToString(status.code()), ": ", status.message()))};
  }
}

Verdict VerdictOf(const module::v1::EventOutcome& outcome) {
  switch (outcome.verdict()) {
    case module::v1::EventOutcome::ACK: return {Verdict::Kind::kAck, ""};
    case module::v1::EventOutcome::DEAD: return {Verdict::Kind::kDead, Said(outcome.message())};
    case module::v1::EventOutcome::RETURNED: return {Verdict::Kind::kReturned, ""};
    default: return {Verdict::Kind::kRetry, Said(outcome.message())};
  }
}

bool Among(const std::vector<std::string>& sorted, const std::string& name) { return std::binary_search(sorted.begin(), sorted.end(), name); }

}  // namespace

Relay::Relay(Options options, std::shared_ptr<Recipients> recipients, const Clock& clock)
    : options_(std::move(options)), recipients_(std::move(recipients)), clock_(clock) {
  if (options_.redis) stream_relay_.emplace(*options_.redis);
}

Relay::~Relay() {
  loop_->Stop();
  if (thread_.joinable()) thread_.join();
}

void Relay::Start() {
  thread_ = std::thread([this] {
    Turn();
    loop_->Run();
  });
}

void Relay::Nudge() {
  if (nudged_.exchange(true)) return;
  loop_->Post([this, alive = std::weak_ptr<bool>(alive_)] {
    if (!alive.lock()) return;
    interval_ = limits::kEventPoll;
    Turn();
  });
}

void Relay::Stop(Millis grace, std::function<void()> stopped) {
  loop_->Post([this, grace, stopped = std::move(stopped)]() mutable {
    stopping_ = true;
    stopped_ = std::move(stopped);
    loop_->After(grace, [this] { MaybeStopped(true); });
    MaybeStopped(false);
  });
}

void Relay::MaybeStopped(bool out_of_time) {
  if (!stopping_ || !stopped_) return;
  const bool under_way = std::any_of(subscriptions_.begin(), subscriptions_.end(), [](const auto& s) { return s.second->lanes().under_way() > 0; });
  if (under_way && !out_of_time) return;
  if (under_way) LogWarn("events", "stopped before all deliveries had ended; their events come again at the next start");
  loop_->Cancel(std::exchange(timer_, 0));
  if (store_) {
    absl::Status status;
    for (auto& [module, subscription] : subscriptions_) {
      if (status.ok() && !subscription->lost) status = Write(*subscription, clock_.Now());
      if (status.ok() && !subscription->lost) status = store_->Release(module, subscription->fence());
    }
    if (status.ok()) status = LeaveRedis();
    if (status.ok() && sleeping_) status = store_->Wake();
    if (!status.ok()) LogWarn("events", "the last deliveries could not be written; they come again", {{"error", std::string(status.message())}});
    Unwatch();
    store_.reset();
  }
  subscriptions_.clear();
  std::exchange(stopped_, nullptr)();
}

// ---- the database ----

void Relay::Connect() {
  auto connection = Connection::Open(options_.conninfo);
  if (!connection.ok()) return Disconnect(connection.status());
  auto store = std::make_unique<EventStore>(*std::move(connection), options_.node);
  if (const absl::Status status = store->Begin(); !status.ok()) return Disconnect(status);
  // libpq closes its socket by itself when the server is gone: what is watched is a copy, whose number nothing else gets meanwhile.
  watched_ = UniqueFd(fcntl(store->connection().socket(), F_DUPFD_CLOEXEC, 0));
  if (!watched_) return Disconnect(absl::ResourceExhaustedError("no file descriptor is left"));
  store_ = std::move(store);
  loop_->Watch(watched_.get(), EPOLLIN, [this](uint32_t) { OnSocket(); });
  if (std::exchange(away_said_, false)) LogInfo("events", "the database is back");
  reconnect_ = Millis(0);
  sleeping_ = true;  // an earlier life of this node may have been
  interval_ = limits::kEventPoll;
  notified_ = true;
  renewed_ = claimed_ = {};
}

// What was claimed is claimed anew: the rows know where.
void Relay::Disconnect(const absl::Status& why) {
  if (!std::exchange(away_said_, true)) LogWarn("events", "events wait for the database", {{"error", std::string(why.message())}});
  Unwatch();
  store_.reset();
  if (stream_relay_) stream_relay_->Forget();
  for (auto& [module, subscription] : subscriptions_) subscription->lost = true;
  reconnect_ = std::clamp(reconnect_ * 2, kFirstReconnect, kLastReconnect);
}

void Relay::Unwatch() {
  if (!watched_) return;
  loop_->Unwatch(watched_.get());
  watched_.Reset();
}

void Relay::OnSocket() {
  if (!store_) return;
  const int notifications = store_->connection().TakeNotifications();
  if (!store_->connection().alive()) {
    Disconnect(absl::UnavailableError("the connection was lost"));
  } else if (notifications == 0) {
    return;
  }
  notified_ = true;
  interval_ = limits::kEventPoll;
  Turn();
}

// ---- a turn ----

void Relay::Turn() {
  nudged_ = false;
  loop_->Cancel(std::exchange(timer_, 0));
  if (stopping_) return MaybeStopped(false);
  if (!store_) Connect();
  bool came = false;
  if (store_) {
    const absl::Status status = Work(clock_.Now(), came);
    if (!status.ok()) Disconnect(status);
  }
  std::erase_if(subscriptions_, [](const auto& s) { return s.second->lost && s.second->lanes().under_way() == 0; });
  Pace(came, clock_.Now());
}

absl::Status Relay::Work(Instant now, bool& came) {
  if (store_->connection().TakeNotifications() > 0) notified_ = true;
  const std::vector<std::string> ready = recipients_->Ready();
  RETURN_IF_ERROR(LetGo(ready, now));
  if (notified_ || now - renewed_ >= limits::kSubscriptionRenewal) RETURN_IF_ERROR(Renew(now));
  std::erase_if(subscriptions_, [](const auto& s) { return s.second->lost && s.second->lanes().under_way() == 0; });
  RETURN_IF_ERROR(Claim(ready, now));
  if (std::exchange(notified_, false)) {
    for (auto& [module, subscription] : subscriptions_) {
      if (!subscription->lost) RETURN_IF_ERROR(subscription->LoadParked(*store_, true, now));
    }
  }
  RETURN_IF_ERROR(subscriptions_.empty() ? LeaveRedis() : Deliver(now, came));
  if (now - trimmed_ >= limits::kEventTrim) {
    trimmed_ = now;
    ASSIGN_OR_RETURN(const int removed, store_->Trim(options_.kept, options_.kept_at_most));
    if (removed == limits::kMaxTrimmed) trimmed_ = now - limits::kEventTrim + Millis(1'000);  // there are more
  }
  return absl::OkStatus();
}

absl::Status Relay::Deliver(Instant now, bool& came) {
  ASSIGN_OR_RETURN(EventSight sight, Look(now, came));
  for (auto& [module, subscription] : subscriptions_) {
    if (subscription->lost) continue;
    ASSIGN_OR_RETURN(const bool some, subscription->Advance(sight, now));
    came |= some;
    Dispatch(*subscription, now);
    if (subscription->Dirty(now) && now - subscription->written_at >= limits::kSettleInterval) RETURN_IF_ERROR(Write(*subscription, now));
  }
  return absl::OkStatus();
}

// Relays first, so that what has just come is delivered in the same turn.
absl::StatusOr<EventSight> Relay::Look(Instant now, bool& came) {
  ASSIGN_OR_RETURN(OutboxView view, store_->Look());
  if (!stream_relay_) return EventSight{*store_, std::move(view)};
  ASSIGN_OR_RETURN(const bool relayed, stream_relay_->Turn(*store_, view.snapshot, now));
  came |= relayed;
  redis_fault_.With([&](std::string& fault) { fault = stream_relay_->fault(); });
  return EventSight{*store_, std::move(view), stream_relay_->stream(), clock_.Wall() - options_.kept / 2};  // half: clocks differ
}

// A node that delivers nothing relays nothing.
absl::Status Relay::LeaveRedis() { return stream_relay_ ? stream_relay_->LetGo(*store_) : absl::OkStatus(); }

std::string Relay::RedisFault() const {
  return redis_fault_.With([](const std::string& fault) { return fault; });
}

// Subscribers whose last worker here is gone: another node may have one.
absl::Status Relay::LetGo(const std::vector<std::string>& ready, Instant now) {
  for (auto& [module, subscription] : subscriptions_) {
    if (Among(ready, module) || subscription->lost || subscription->lanes().under_way() > 0) continue;
    RETURN_IF_ERROR(Write(*subscription, now));
    if (!subscription->lost) RETURN_IF_ERROR(store_->Release(module, subscription->fence()));
    subscription->lost = true;
  }
  return absl::OkStatus();
}

absl::Status Relay::Renew(Instant now) {
  renewed_ = now;
  if (subscriptions_.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const auto held, store_->Renew());
  for (auto& [module, subscription] : subscriptions_) {
    const bool ours = std::find(held.begin(), held.end(), std::pair(module, subscription->fence())) != held.end();
    if (ours) {
      subscription->good_until = now + limits::kSubscriptionLease - kLeaseMargin;
    } else if (!std::exchange(subscription->lost, true)) {
      LogInfo("events", "a subscriber's place was moved, or another node has it", {{"module", module}});
      claimed_ = {};
    }
  }
  return absl::OkStatus();
}

absl::Status Relay::Claim(const std::vector<std::string>& ready, Instant now) {
  std::vector<std::string> wanted;
  for (const std::string& module : ready) {
    if (!subscriptions_.contains(module)) wanted.push_back(module);
  }
  const bool changed = std::exchange(ready_before_, ready) != ready;
  if (wanted.empty() || (!changed && now - claimed_ < limits::kSubscriptionClaim)) return absl::OkStatus();
  claimed_ = now;
  ASSIGN_OR_RETURN(std::vector<ClaimedSubscription> claimed, store_->Claim(wanted));
  for (ClaimedSubscription& one : claimed) {
    const std::string module = one.module;
    std::unique_ptr<EventSource> source = std::make_unique<OutboxSource>();
    if (stream_relay_) source = std::make_unique<StreamSource>();
    auto subscription = std::make_unique<Subscription>(std::move(one), std::move(source), Random(random_.Next()), now);
    subscription->good_until = now + limits::kSubscriptionLease - kLeaseMargin;
    RETURN_IF_ERROR(subscription->LoadParked(*store_, false, now));
    LogDebug("events", "delivers", {{"module", module}, {"parked", std::to_string(subscription->lanes().parked())}});
    subscriptions_.emplace(module, std::move(subscription));
  }
  return absl::OkStatus();
}

absl::Status Relay::Write(Subscription& subscription, Instant now) {
  if (!subscription.Dirty(now)) return absl::OkStatus();
  auto [place, settlement] = subscription.TakeWork(now);
  for (const Settlement::Dead& dead : settlement.dead) {
    LogWarn("events", "an event became a dead letter",
            {{"module", subscription.module()}, {"event", std::to_string(dead.event.event.id)}, {"topic", dead.event.event.topic}, {"error", dead.error}});
  }
  ASSIGN_OR_RETURN(const bool ours, store_->Settle(subscription.module(), subscription.fence(), place, settlement));
  if (ours) {
    subscription.good_until = now + limits::kSubscriptionLease - kLeaseMargin;
  } else {
    subscription.lost = true;
    claimed_ = {};
  }
  return absl::OkStatus();
}

// The next turn.
void Relay::Pace(bool came, Instant now) {
  if (!store_) {
    timer_ = loop_->After(reconnect_, [this] { Turn(); });
    return;
  }
  const bool busy = came || std::any_of(subscriptions_.begin(), subscriptions_.end(), [](const auto& s) { return s.second->lanes().under_way() > 0; });
  interval_ = busy ? limits::kEventPoll : std::min(interval_ + interval_ / 2 + Millis(1), limits::kMaxEventPoll);
  Millis delay = interval_;
  if (subscriptions_.empty()) {
    // Of what was lost just now the claim is not put off.
    delay = recipients_->Ready().empty() ? limits::kEventTrim : claimed_ == Instant{} ? limits::kEventPoll : limits::kSubscriptionClaim;
    if (sleeping_) {  // nothing is to be woken for
      if (const absl::Status status = store_->Wake(); !status.ok()) return Disconnect(status), Pace(false, now);
      sleeping_ = false;
    }
  } else if (!sleeping_ && interval_ >= limits::kEventSleep) {
    if (const absl::Status status = store_->Sleep(); !status.ok()) return Disconnect(status), Pace(false, now);
    sleeping_ = true;
    delay = Millis(0);  // what came before whoever publishes could know
  } else if (sleeping_ && interval_ < limits::kEventSleep) {
    if (const absl::Status status = store_->Wake(); !status.ok()) return Disconnect(status), Pace(false, now);
    sleeping_ = false;
  }
  for (auto& [module, subscription] : subscriptions_) {
    if (subscription->Dirty(now)) delay = std::min(delay, limits::kSettleInterval);
    if (const auto due = subscription->lanes().NextDue()) {
      delay = std::min(delay, std::max(Millis(1), std::chrono::ceil<Millis>(*due - now)));
    }
  }
  timer_ = loop_->After(delay, [this] { Turn(); });
}

// ---- calls ----

void Relay::Dispatch(Subscription& subscription, Instant now) {
  while (!stopping_ && !subscription.lost && now < subscription.good_until && subscription.lanes().MayGo(now)) {
    auto pick = recipients_->Begin(subscription.module());
    if (!pick) return;
    Lanes::Batch batch = subscription.lanes().Take(now, subscription.batch(), limits::kMaxDeliveryBytes);
    Call call{subscription.module(), pick->instance, subscription.fence(), batch.number, batch.events.size(), now};
    module::v1::DeliverEventsRequest request;
    for (PendingEvent& pending : batch.events) {
      module::v1::Event& event = *request.add_events();
      event.set_id(std::to_string(pending.event.id));
      event.set_topic(std::move(pending.event.topic));
      event.set_key(std::move(pending.event.key));
      event.set_payload_json(std::move(pending.event.payload_json));
      event.set_source(std::move(pending.event.source));
      event.set_at_ms(std::chrono::duration_cast<Millis>(pending.event.at.time_since_epoch()).count());
      event.set_attempt(pending.attempt + pending.losses + 1);
    }
    pick->control->DeliverEvents(
        request, limits::kDeliveryTimeout,
        [this, call = std::move(call), loop = loop_, recipients = recipients_, alive = std::weak_ptr<bool>(alive_)](
            const absl::Status& status, module::v1::DeliverEventsResponse response) {
          recipients->End(call.instance);
          loop->Post([this, call, alive, status, response = std::move(response)] {
            if (alive.lock()) Completed(call, status, response);
          });
        });
  }
}

void Relay::Completed(const Call& call, const absl::Status& status, const module::v1::DeliverEventsResponse& response) {
  auto found = subscriptions_.find(call.module);
  if (found == subscriptions_.end() || found->second->fence() != call.fence) return;  // given up at the end
  Subscription& subscription = *found->second;
  const Instant now = clock_.Now();
  subscription.Took(call.events, std::chrono::duration_cast<Millis>(now - call.began));
  std::map<int64_t, const module::v1::EventOutcome*> outcomes;
  if (status.ok()) {
    for (const module::v1::EventOutcome& outcome : response.outcomes()) outcomes[std::strtoll(outcome.id().c_str(), nullptr, 10)] = &outcome;
  }
  const Verdict rest = WithoutOutcome(status, !recipients_->Listed(call.module, call.instance), stopping_);
  subscription.lanes().Settle(call.batch, now, [&](int64_t id) {
    auto outcome = outcomes.find(id);
    return outcome == outcomes.end() ? rest : VerdictOf(*outcome->second);
  });
  if (stopping_) return MaybeStopped(false);
  if (subscription.lost) {
    if (subscription.lanes().under_way() == 0) Turn();
    return;
  }
  Dispatch(subscription, now);
  // What is to be fetched, written or let go is the next turn's.
  if (!recipients_->Listed(call.module, call.instance)) Turn();
}

}  // namespace bulkhead
