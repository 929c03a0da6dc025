// Publishes what the tests of events want: numbered entries within transactions that count them, single events with and without a
// transaction, and a transaction that stays open.
#include <algorithm>
#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "bulkhead/module.h"

namespace {

using namespace bulkhead::sdk;

constexpr int kTries = 20;
constexpr std::chrono::milliseconds kPause{50};
constexpr int64_t kSleep = 1'000;  // ms of one statement

// The next numbers of these keys, in one transaction. Sorted, so that two of them don't wait for each other in a circle.
void SendOnce(Context& context, const std::vector<std::string>& keys, bool at_once) {
  context.database().Transact([&](Transaction& t) {
    if (at_once) {
      std::vector<Publication> events;
      for (const std::string& key : keys) {
        Rows next = t.Query("INSERT INTO counters AS c VALUES ($1, 1) ON CONFLICT (key) DO UPDATE SET n = c.n + 1 RETURNING n", {key});
        events.push_back({"ledger.entry", key, {{"n", next.front().Get<int64_t>(0)}}});
      }
      context.events().PublishMany(t, events);
      return;
    }
    for (const std::string& key : keys) {
      t.Query("WITH next AS (INSERT INTO counters AS c VALUES ($1, 1) ON CONFLICT (key) DO UPDATE SET n = c.n + 1 RETURNING n)"
              " SELECT bulkhead.publish('ledger.entry', $1, jsonb_build_object('n', n)) FROM next", {key});
    }
  });
}

// body: {"count": events, "keys": among so many keys, "batch": events of a transaction}
Response Send(Context& context, Request& request) {
  const Json body = request.json();
  const int count = body.value("count", 1), key_count = body.value("keys", 1), batch = body.value("batch", 1);
  std::mt19937 chance{std::random_device{}()};
  for (int sent = 0; sent < count; sent += batch) {
    std::vector<std::string> keys;
    for (int i = 0; i < std::min(batch, count - sent); ++i) keys.push_back("k" + std::to_string(chance() % unsigned(key_count)));
    std::sort(keys.begin(), keys.end());
    for (int tries = 1;; ++tries) {
      try {
        SendOnce(context, keys, chance() % 2 == 0);
        break;
      } catch (const DatabaseError& error) {
        if (!error.transient() || tries == kTries) throw;
        std::this_thread::sleep_for(kPause);
      }
    }
  }
  return Ok({{"sent", count}});
}

// body: {"topic", "key", "payload", "transaction": true | false}
Response PublishOne(Context& context, Request& request) {
  const Json body = request.json();
  const std::string topic = body.at("topic"), key = body.value("key", "");
  try {
    if (!body.value("transaction", false)) return Ok({{"id", context.events().Publish(topic, key, body.at("payload"))}});
    const std::string id = context.database().Transact([&](Transaction& t) { return context.events().Publish(t, topic, key, body.at("payload")); });
    return Ok({{"id", id}});
  } catch (const HostError& error) {
    throw HttpError(error.transient() ? 503 : 400, "NOT_PUBLISHED", error.what());
  } catch (const DatabaseError& error) {
    throw HttpError(error.transient() ? 503 : 400, "NOT_PUBLISHED", error.what());
  }
}

// body: {"events": [{"topic", "key", "payload"}, …]}
Response PublishMany(Context& context, Request& request) {
  const Json body = request.json();
  std::vector<Publication> events;
  for (const Json& event : body.at("events")) events.push_back({event.at("topic"), event.value("key", ""), event.at("payload")});
  try {
    return Ok({{"ids", context.database().Transact([&](Transaction& t) { return context.events().PublishMany(t, events); })}});
  } catch (const DatabaseError& error) {
    throw HttpError(error.transient() ? 503 : 400, "NOT_PUBLISHED", error.what());
  }
}

// Publishes, and keeps the transaction open for ?ms=.
Response Hold(Context& context, Request& request) {
  const int64_t ms = request.query_int("ms", 1000, 0, 100'000);
  context.database().Transact([&](Transaction& t) {
    context.events().Publish(t, "ledger.entry", "held", {{"n", 1}});
    for (int64_t left = ms; left > 0; left -= kSleep) t.Query("SELECT pg_sleep($1::float8 / 1000)", {std::min(left, kSleep)});
  });
  return Ok({{"held", ms}});
}

class Sender : public Module {
 public:
  void Initialize(Context& context) override {
    Router& router = context.router();
    router.Post("/send", [&context](Request& request) { return Send(context, request); });
    router.Post("/publish", [&context](Request& request) { return PublishOne(context, request); });
    router.Post("/publish-many", [&context](Request& request) { return PublishMany(context, request); });
    router.Post("/hold", [&context](Request& request) { return Hold(context, request); });
    router.Get("/sent", [&context](Request&) {
      return Ok({{"events", context.database().Query("SELECT coalesce(sum(n), 0)::bigint FROM counters").front().Get<int64_t>(0)}});
    });
  }
};

}  // namespace

int main(int argc, char** argv) { return Run<Sender>(argc, argv); }
