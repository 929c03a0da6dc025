// Writes down each event once, together with the remark that it is done, and notes what is out of order. A payload may ask for trouble:
// {"n": 1, "ms": how long, "trouble": "fail" | "refuse" | "crash"}, which is had as long as PUT /mode says {"does": "trouble"}.
#include <cstdlib>
#include <string>
#include <thread>

#include "bulkhead/module.h"

namespace {

using namespace bulkhead::sdk;

void WriteDown(Context& context, Transaction& t, const Event& event) {
  if (!context.once(event, t)) return;
  const int64_t n = event.payload.value("n", int64_t{0});
  Rows last = t.Query("SELECT last FROM keys WHERE key = $1", {event.key});
  const int64_t expected = last.empty() ? 1 : last.front().Get<int64_t>(0) + 1;
  if (n != expected) t.Query("INSERT INTO disorder VALUES ($1, $2, $3)", {event.key, expected, n});
  t.Query("INSERT INTO keys VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET last = excluded.last", {event.key, n});
  t.Query("INSERT INTO entries (key, n, event, topic, attempt) VALUES ($1, $2, $3, $4, $5)", {event.key, n, event.id, event.topic, event.attempt});
}

void Handle(Context& context, const Event& event) {
  if (event.payload.contains("ms")) std::this_thread::sleep_for(std::chrono::milliseconds(event.payload["ms"].get<int>()));
  if (event.payload.contains("trouble") && context.database().Query("SELECT does FROM mode").front().Get<std::string>(0) == "trouble") {
    const std::string trouble = event.payload["trouble"];
    if (trouble == "crash") std::abort();
    if (trouble == "refuse") throw EventRefused("told to refuse");
    throw std::runtime_error("told to fail");
  }
  context.database().Transact([&](Transaction& t) { WriteDown(context, t, event); });
}

Response State(Context& context) {
  Rows rows = context.database().Query(
      "SELECT (SELECT count(*) FROM entries) AS entries, (SELECT count(*) FROM (SELECT DISTINCT key, n FROM entries) d) AS different,"
      " (SELECT count(*) FROM disorder) AS disorder, (SELECT coalesce(sum(last), 0)::bigint FROM keys) AS last");
  return Ok(rows.front().ToJson());
}

class Ledger : public Module {
 public:
  void Initialize(Context& context) override {
    context.events().Subscribe("ledger.*", [&context](const Event& event) { Handle(context, event); });
    context.router().Get("/state", [&context](Request&) { return State(context); });
    context.router().Get("/keys/:key", [&context](Request& request) {
      return Ok(context.database().Query("SELECT n, event, topic, attempt FROM entries WHERE key = $1 ORDER BY id", {request.param("key")}).ToJson());
    });
    context.router().Put("/mode", [&context](Request& request) {
      context.database().Query("UPDATE mode SET does = $1", {request.json().at("does").get<std::string>()});
      return Ok({{"does", request.json().at("does")}});
    });
  }
};

}  // namespace

int main(int argc, char** argv) { return Run<Ledger>(argc, argv); }
