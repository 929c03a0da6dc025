// The service Events: what was published, subscribers, dead letters.
#include <charconv>

#include "bulkhead/admin/v1/events.grpc.pb.h"
#include "nlohmann/json.hpp"
#include "supervisor/admin/call.h"
#include "supervisor/admin/json.h"
#include "supervisor/admin/parameters.h"
#include "supervisor/admin/services.h"
#include "supervisor/base/text.h"
#include "supervisor/manifest/manifest.h"

namespace bulkhead {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;
namespace pb = admin::v1;

#define METHOD(name) "bulkhead.admin.v1.Events." name

void Fill(const StoredEvent& event, pb::PublishedEvent& message) {
  message.set_id(std::to_string(event.id));
  message.set_topic(event.topic);
  message.set_key(event.key);
  FromJson(nlohmann::json::parse(event.payload_json, nullptr, false), *message.mutable_payload());  // of a jsonb
  message.set_source(event.source);
  *message.mutable_at() = ToTimestamp(event.at);
}

void Fill(const ::bulkhead::DeadLetter& letter, pb::DeadLetter& message) {
  message.set_id(std::to_string(letter.id));
  message.set_module(letter.module);
  Fill(letter.event, *message.mutable_event());
  message.set_attempts(letter.attempts);
  message.set_error(letter.error);
  *message.mutable_died_at() = ToTimestamp(letter.died_at);
}

void Fill(const SubscriptionView& view, pb::EventSubscription& message) {
  message.set_module(view.module);
  for (const std::string& topic : view.topics) message.add_topics(topic);
  message.set_node(view.node);
  message.set_lag(view.lag);
  if (view.oldest) *message.mutable_oldest() = ToTimestamp(*view.oldest);
  message.set_retrying(view.retrying);
  message.set_dead_letters(view.dead_letters);
  if (view.delivered_at) *message.mutable_delivered_at() = ToTimestamp(*view.delivered_at);
}

template <typename Message>
void FillMeta(int total, const Page& page, Message& answer) {
  answer.mutable_meta()->set_total(total);
  answer.mutable_meta()->set_page(page.number);
  answer.mutable_meta()->set_page_size(page.size);
}

// A number of a dead letter; 0, which none has, for what is no number.
int64_t LetterId(const std::string& text) {
  int64_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  return error == std::errc() && end == text.data() + text.size() ? id : 0;
}

class EventsService : public pb::Events::CallbackService {
 public:
  EventsService(const Guard& guard, EventQueries& events, BlockingPool& pool) : guard_(guard), events_(events), pool_(pool) {}

  ServerUnaryReactor* ListEvents(CallbackServerContext* context, const pb::ListEventsRequest* request, pb::ListEventsResponse* response) override {
    return Serve(guard_, context, METHOD("ListEvents"), request, response,
                 [this](CallPtr<pb::ListEventsResponse> call, const pb::ListEventsRequest* request) {
      auto page = PageOf(*request);
      if (!page.ok()) return call->Fail(page.status());
      EventQueries::Filter filter{request->topic(), request->key(), request->source(), std::nullopt, page->number, page->size};
      if (!request->since().empty()) {
        filter.since = ParseWall(request->since());
        if (!filter.since) return call->Fail(BadParameter("since", "must be a time such as 2026-01-31T09:30:00Z"));
      }
      OnPool(pool_, call, [call, filter, page = *page, &events = events_] {
        auto found = events.Find(filter);
        if (!found.ok()) return call->Fail(found.status());
        pb::ListEventsResponse answer;
        for (const StoredEvent& event : found->events) Fill(event, *answer.add_events());
        FillMeta(found->total, page, answer);
        call->Answer(std::move(answer));
      });
    });
  }

  ServerUnaryReactor* ListSubscriptions(CallbackServerContext* context, const pb::ListSubscriptionsRequest* request,
                                        pb::ListSubscriptionsResponse* response) override {
    return Serve(guard_, context, METHOD("ListSubscriptions"), request, response,
                 [this](CallPtr<pb::ListSubscriptionsResponse> call, const pb::ListSubscriptionsRequest*) {
      OnPool(pool_, call, [call, &events = events_] {
        auto views = events.Subscriptions();
        if (!views.ok()) return call->Fail(views.status());
        auto open = events.OpenTransactions();
        if (!open.ok()) return call->Fail(open.status());
        pb::ListSubscriptionsResponse answer;
        const EngineView engine = events.Engine();
        answer.mutable_engine()->set_name(engine.name);
        answer.mutable_engine()->set_status(engine.fault.empty() ? "up" : "degraded");
        answer.mutable_engine()->set_message(ValidUtf8(engine.fault));
        for (const SubscriptionView& view : *views) Fill(view, *answer.add_subscriptions());
        for (const ::bulkhead::OpenTransaction& one : *open) {
          pb::OpenTransaction& message = *answer.add_open_transactions();
          message.set_pid(one.pid);
          message.set_module(one.module);
          *message.mutable_since() = ToTimestamp(one.since);
          message.set_state(one.state);
          message.set_query(one.query);
        }
        call->Answer(std::move(answer));
      });
    });
  }

  ServerUnaryReactor* ReplayEvents(CallbackServerContext* context, const pb::ReplayEventsRequest* request, pb::ReplayEventsResponse* response) override {
    return Serve(guard_, context, METHOD("ReplayEvents"), request, response,
                 [this](CallPtr<pb::ReplayEventsResponse> call, const pb::ReplayEventsRequest* request) {
      const auto since = ParseWall(request->since());
      if (!since) return call->Fail(BadParameter("since", "must be a time such as 2026-01-31T09:30:00Z"));
      OnPool(pool_, call, [call, module = request->module(), since = *since, forget = request->forget(), &events = events_] {
        auto count = events.Replay(module, since, forget, {.by = call->actor(), .action = "events.replay"});
        if (!count.ok()) return call->Fail(count.status());
        pb::ReplayEventsResponse answer;
        answer.set_events(*count);
        call->Answer(std::move(answer));
      });
    });
  }

  ServerUnaryReactor* ListDeadLetters(CallbackServerContext* context, const pb::ListDeadLettersRequest* request,
                                      pb::ListDeadLettersResponse* response) override {
    return Serve(guard_, context, METHOD("ListDeadLetters"), request, response,
                 [this](CallPtr<pb::ListDeadLettersResponse> call, const pb::ListDeadLettersRequest* request) {
      auto page = PageOf(*request);
      if (!page.ok()) return call->Fail(page.status());
      OnPool(pool_, call, [call, module = request->module(), topic = request->topic(), page = *page, &events = events_] {
        auto found = events.DeadLetters(module, topic, page.number, page.size);
        if (!found.ok()) return call->Fail(found.status());
        pb::ListDeadLettersResponse answer;
        for (const auto& letter : found->letters) Fill(letter, *answer.add_dead_letters());
        FillMeta(found->total, page, answer);
        call->Answer(std::move(answer));
      });
    });
  }

  ServerUnaryReactor* GetDeadLetter(CallbackServerContext* context, const pb::GetDeadLetterRequest* request, pb::DeadLetterResponse* response) override {
    return Serve(guard_, context, METHOD("GetDeadLetter"), request, response,
                 [this](CallPtr<pb::DeadLetterResponse> call, const pb::GetDeadLetterRequest* request) {
      OnPool(pool_, call, [call, id = LetterId(request->id()), &events = events_] { AnswerLetter(call, events.GetDeadLetter(id)); });
    });
  }

  ServerUnaryReactor* ReplayDeadLetter(CallbackServerContext* context, const pb::ReplayDeadLetterRequest* request,
                                       pb::DeadLetterResponse* response) override {
    return Serve(guard_, context, METHOD("ReplayDeadLetter"), request, response,
                 [this](CallPtr<pb::DeadLetterResponse> call, const pb::ReplayDeadLetterRequest* request) {
      OnPool(pool_, call, [call, id = LetterId(request->id()), &events = events_] {
        AnswerLetter(call, events.ReplayDeadLetter(id, {.by = call->actor(), .action = "events.dead_letter.replay"}));
      });
    });
  }

  ServerUnaryReactor* ReplayDeadLetters(CallbackServerContext* context, const pb::ReplayDeadLettersRequest* request,
                                        pb::ReplayDeadLettersResponse* response) override {
    return Serve(guard_, context, METHOD("ReplayDeadLetters"), request, response,
                 [this](CallPtr<pb::ReplayDeadLettersResponse> call, const pb::ReplayDeadLettersRequest* request) {
      if (!request->topic().empty() && !IsEventTopic(request->topic(), true))
        return call->Fail(BadParameter("topic", "must be an event such as order.created or order.*"));
      OnPool(pool_, call, [call, module = request->module(), topic = request->topic(), &events = events_] {
        auto count = events.ReplayDeadLetters(module, topic, {.by = call->actor(), .action = "events.dead_letter.replay"});
        if (!count.ok()) return call->Fail(count.status());
        pb::ReplayDeadLettersResponse answer;
        answer.set_dead_letters(*count);
        call->Answer(std::move(answer));
      });
    });
  }

  ServerUnaryReactor* DropDeadLetter(CallbackServerContext* context, const pb::DropDeadLetterRequest* request, pb::DeadLetterResponse* response) override {
    return Serve(guard_, context, METHOD("DropDeadLetter"), request, response,
                 [this](CallPtr<pb::DeadLetterResponse> call, const pb::DropDeadLetterRequest* request) {
      OnPool(pool_, call, [call, id = LetterId(request->id()), &events = events_] {
        AnswerLetter(call, events.DropDeadLetter(id, {.by = call->actor(), .action = "events.dead_letter.drop"}));
      });
    });
  }

 private:
  static void AnswerLetter(const CallPtr<pb::DeadLetterResponse>& call, const absl::StatusOr<::bulkhead::DeadLetter>& letter) {
    if (!letter.ok()) return call->Fail(letter.status());
    pb::DeadLetterResponse answer;
    Fill(*letter, *answer.mutable_dead_letter());
    call->Answer(std::move(answer));
  }

  const Guard& guard_;
  EventQueries& events_;
  BlockingPool& pool_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeEventsService(const Guard& guard, EventQueries& events, BlockingPool& pool) {
  return std::make_unique<EventsService>(guard, events, pool);
}

#undef METHOD

}  // namespace bulkhead
