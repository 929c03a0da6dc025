// bulkhead events: what was published, who has come how far, what could not be delivered, and delivering it again.
#include "bulkhead/admin/v1/events.grpc.pb.h"
#include "supervisor/admin/json.h"
#include "supervisor/base/status.h"
#include "supervisor/cli/commands.h"
#include "supervisor/cli/format.h"
#include "supervisor/cli/report.h"

namespace bulkhead {
namespace {

using EventsStub = admin::v1::Events::Stub;

constexpr int kMostLag = 100'000;       // the API counts no further
constexpr Millis kReplayTimeout{600'000};  // places of many events are moved in one statement

std::string TopicsOf(const admin::v1::EventSubscription& subscription) {
  std::string topics;
  for (const std::string& topic : subscription.topics()) topics += (topics.empty() ? "" : " ") + topic;
  return topics;
}

// About how many events a replay delivers; nullopt when it can't be told.
std::optional<int> CountSince(Session& session, const std::string& module, const std::string& since) {
  const auto subscriptions = session.connection.Call(&EventsStub::ListSubscriptions, admin::v1::ListSubscriptionsRequest());
  if (!subscriptions.ok()) return std::nullopt;
  for (const auto& subscription : subscriptions->subscriptions()) {
    if (subscription.module() != module) continue;
    int count = 0;
    for (const std::string& topic : subscription.topics()) {
      admin::v1::ListEventsRequest request;
      request.set_topic(topic);
      request.set_since(since);
      request.set_page_size(1);
      const auto events = session.connection.Call(&EventsStub::ListEvents, request);
      if (!events.ok()) return std::nullopt;
      count += events->meta().total();
    }
    return count;
  }
  return std::nullopt;
}

void PrintLetter(const admin::v1::DeadLetter& letter, Terminal& terminal) {
  const auto& event = letter.event();
  std::string text = "Dead letter " + letter.id() + " for " + letter.module() + "\n";
  const auto line = [&](std::string name, const std::string& value) {
    name.resize(11, ' ');
    if (!value.empty()) text += "  " + name + value + "\n";
  };
  line("event", event.id() + " " + Escaped(event.topic()));
  line("key", Escaped(event.key()));
  line("source", event.source());
  line("published", FormatWall(FromTimestamp(event.at())));
  line("died", FormatWall(FromTimestamp(letter.died_at())));
  line("attempts", std::to_string(letter.attempts()));
  line("error", Escaped(letter.error()));
  line("payload", Inline(event.payload()));
  terminal.Out(text);
}

// Does the same to each of them, and goes on behind one that is not there.
template <typename Request>
Outcome ForEachLetter(Session& session, const std::vector<std::string>& ids, const char* done,
                      grpc::Status (EventsStub::*method)(grpc::ClientContext*, const Request&, admin::v1::DeadLetterResponse*)) {
  Outcome outcome = Outcome::kDone;
  std::string json;
  for (const std::string& id : ids) {
    Request request;
    request.set_id(id);
    const auto answer = session.connection.Call(method, request);
    if (!answer.ok()) {
      outcome = Failed(session, answer.status());
      if (outcome == Outcome::kUnreachable) return outcome;
    } else if (!session.options.json) {
      session.terminal.Out("Dead letter " + id + " for " + answer->dead_letter().module() + " " + done + "\n");
    } else if (ids.size() == 1) {
      PrintJson(*answer, "dead_letter", session.terminal);
    } else {
      json += json.empty() ? "" : ",";
      PrintMessage(answer->dead_letter(), json);
    }
  }
  if (session.options.json && ids.size() > 1 && outcome == Outcome::kDone) session.terminal.Out("{\"success\":true,\"data\":[" + json + "]}\n");
  return outcome;
}

admin::v1::ListDeadLettersRequest LettersOf(const std::string& module, const std::string& topic, int page_size) {
  admin::v1::ListDeadLettersRequest request;
  request.set_module(module);
  request.set_topic(topic);
  request.set_page_size(page_size);
  return request;
}

Outcome ReplayMany(Session& session, const ReplayDeadLettersCommand& command) {
  const auto found = session.connection.Call(&EventsStub::ListDeadLetters, LettersOf(command.module, command.topic, 1));
  if (!found.ok()) return Failed(session, found.status());
  const std::string whose = command.module.empty() ? " of all modules" : " of " + command.module;
  const std::string what = std::to_string(found->meta().total()) + " dead letters" + whose + (command.topic.empty() ? "" : " with the topic " + command.topic) +
                           " are delivered again.";
  if (const auto outcome = Unconfirmed(session, command.yes, what)) return *outcome;
  admin::v1::ReplayDeadLettersRequest request;
  request.set_module(command.module);
  request.set_topic(command.topic);
  session.terminal.Progress("delivering again");
  const auto answer = session.connection.Call(&EventsStub::ReplayDeadLetters, request, kReplayTimeout);
  if (!answer.ok()) return Failed(session, answer.status());
  if (session.options.json) {
    PrintJson(*answer, "", session.terminal);
  } else {
    session.terminal.Out(std::to_string(answer->dead_letters()) + " dead letters are being delivered again.\n");
  }
  return Outcome::kDone;
}

}  // namespace

Outcome Run(Session& session, const EventsCommand& command) {
  const auto since = SinceTime(command.since);
  if (!since.ok()) return Misused(session, since.status());
  admin::v1::ListEventsRequest request;
  request.set_topic(command.topic);
  request.set_since(*since);
  request.set_key(command.key);
  request.set_source(command.source);
  if (command.limit) request.set_page_size(*command.limit);
  const auto answer = session.connection.Call(&EventsStub::ListEvents, request);
  if (!answer.ok()) return Failed(session, answer.status());
  if (session.options.json) {
    PrintJson(*answer, "events", session.terminal);
    return Outcome::kDone;
  }
  Table table({"EVENT", "PUBLISHED", "TOPIC", "KEY", "SOURCE", "PAYLOAD"});
  for (const auto& event : answer->events())
    table.Add({event.id(), Moment(event.at()), event.topic(), event.key(), event.source(), Inline(event.payload())});
  session.terminal.Out(answer->events_size() == 0 ? "There are no such events.\n" : table.Text(session.terminal.columns()));
  TellRest(session, answer->events_size(), answer->meta().total());
  return Outcome::kDone;
}

Outcome Run(Session& session, const SubscriptionsCommand&) {
  const auto answer = session.connection.Call(&EventsStub::ListSubscriptions, admin::v1::ListSubscriptionsRequest());
  if (!answer.ok()) return Failed(session, answer.status());
  Terminal& terminal = session.terminal;
  if (session.options.json) {
    PrintJson(*answer, "", terminal);
    return Outcome::kDone;
  }
  if (answer->subscriptions_size() == 0) terminal.Out("No module subscribes to events.\n");
  if (answer->subscriptions_size() > 0) {
    Table table({"MODULE", "LAG", "OLDEST", "RETRYING", "DEAD", "LAST SETTLED", "NODE", "TOPICS"});
    for (const auto& one : answer->subscriptions()) {
      table.Add({one.module(), std::to_string(one.lag()) + (one.lag() >= kMostLag ? "+" : ""), one.has_oldest() ? Moment(one.oldest()) : "-",
                 std::to_string(one.retrying()), std::to_string(one.dead_letters()), one.has_delivered_at() ? Moment(one.delivered_at()) : "-",
                 one.node().empty() ? "none" : one.node(), TopicsOf(one)});
    }
    terminal.Out(table.Text(terminal.columns()));
  }
  if (answer->open_transactions_size() > 0) {
    terminal.Out("Open transactions in PostgreSQL, whose own events wait for their end:\n");
    Table table({"PID", "MODULE", "SINCE", "STATE", "LAST STATEMENT"});
    for (const auto& one : answer->open_transactions())
      table.Add({std::to_string(one.pid()), one.module().empty() ? "-" : one.module(), Moment(one.since()), one.state(), one.query()});
    terminal.Out(table.Text(terminal.columns()));
  }
  if (answer->engine().status() != "up")
    terminal.Out("The engine " + answer->engine().name() + " is " + answer->engine().status() + ": " + Escaped(answer->engine().message()) + "\n");
  return Outcome::kDone;
}

Outcome Run(Session& session, const ReplayEventsCommand& command) {
  const auto since = SinceTime(command.since);
  if (!since.ok()) return Misused(session, since.status());
  if (!command.yes) {
    const auto count = CountSince(session, command.module, *since);
    const std::string what = command.module + " is given again what was published since " + *since + (count ? " (" + std::to_string(*count) + " events)" : "") +
                             (command.forget ? ", and the effects of all of them are had again." : "; effects that it had with once() are not had again.");
    if (const auto outcome = Unconfirmed(session, false, what)) return *outcome;
  }
  admin::v1::ReplayEventsRequest request;
  request.set_module(command.module);
  request.set_since(*since);
  request.set_forget(command.forget);
  session.terminal.Progress("delivering again");
  const auto answer = session.connection.Call(&EventsStub::ReplayEvents, request, kReplayTimeout);
  if (!answer.ok()) return Failed(session, answer.status());
  if (session.options.json) {
    PrintJson(*answer, "", session.terminal);
  } else {
    session.terminal.Out(std::to_string(answer->events()) + " events are being delivered again. `bulkhead events subscriptions` shows how far they are.\n");
  }
  return Outcome::kDone;
}

Outcome Run(Session& session, const DeadLettersCommand& command) {
  if (!command.id.empty()) {
    admin::v1::GetDeadLetterRequest request;
    request.set_id(command.id);
    const auto answer = session.connection.Call(&EventsStub::GetDeadLetter, request);
    if (!answer.ok()) return Failed(session, answer.status());
    session.options.json ? PrintJson(*answer, "dead_letter", session.terminal) : PrintLetter(answer->dead_letter(), session.terminal);
    return Outcome::kDone;
  }
  constexpr int kShown = 50;
  const auto answer = session.connection.Call(&EventsStub::ListDeadLetters, LettersOf(command.module, command.topic, command.limit.value_or(kShown)));
  if (!answer.ok()) return Failed(session, answer.status());
  if (session.options.json) {
    PrintJson(*answer, "dead_letters", session.terminal);
    return Outcome::kDone;
  }
  Table table({"LETTER", "MODULE", "TOPIC", "KEY", "DIED", "ATTEMPTS", "ERROR"});
  for (const auto& letter : answer->dead_letters()) {
    table.Add({letter.id(), letter.module(), letter.event().topic(), letter.event().key(), Moment(letter.died_at()), std::to_string(letter.attempts()),
               letter.error()});
  }
  session.terminal.Out(answer->dead_letters_size() == 0 ? "There are no such dead letters.\n" : table.Text(session.terminal.columns()));
  TellRest(session, answer->dead_letters_size(), answer->meta().total());
  return Outcome::kDone;
}

Outcome Run(Session& session, const ReplayDeadLettersCommand& command) {
  return command.ids.empty() ? ReplayMany(session, command)
                             : ForEachLetter(session, command.ids, "is being delivered again", &EventsStub::ReplayDeadLetter);
}

Outcome Run(Session& session, const DropDeadLettersCommand& command) {
  const std::string what = command.ids.size() == 1 ? "Dead letter " + command.ids[0] + " is given up for good."
                                                   : std::to_string(command.ids.size()) + " dead letters are given up for good.";
  if (const auto outcome = Unconfirmed(session, command.yes, what)) return *outcome;
  return ForEachLetter(session, command.ids, "was dropped", &EventsStub::DropDeadLetter);
}

}  // namespace bulkhead
