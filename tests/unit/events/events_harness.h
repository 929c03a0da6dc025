// For the tests of events: subscribers that are scripted by the test, and the events of one or more supervisors on a real PostgreSQL.
#pragma once

#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/events/events.h"
#include "tests/fakes/postgres_fixture.h"
#include "tests/fakes/redis_fixture.h"

namespace bulkhead::events_testing {

using namespace std::chrono_literals;
namespace pb = module::v1;

// A worker's control port that answers each delivered event by a function of the test's, and keeps what came.
class FakeSubscriber : public ControlPort {
 public:
  using Answer = std::function<pb::EventOutcome::Verdict(const pb::Event&)>;  // VERDICT_UNSPECIFIED: no outcome
  void Initialize(const pb::InitializeRequest&, Millis, Done<pb::InitializeResponse>) override {}
  void Start(Millis, Done<pb::StartResponse>) override {}
  void Stop(Millis, Done<pb::StopResponse>) override {}
  void Health(Millis, Done<pb::HealthResponse>) override {}
  void Metrics(Millis, Done<pb::MetricsResponse>) override {}
  void Configure(const pb::ConfigureRequest&, Millis, Done<pb::ConfigureResponse>) override {}
  std::shared_ptr<JobCall> RunJob(const pb::RunJobRequest&, Millis, std::function<void(const pb::RunJobUpdate&)>,
                                  std::function<void(absl::Status)>) override {
    return nullptr;
  }
  void DeliverEvents(const pb::DeliverEventsRequest& request, Millis, Done<pb::DeliverEventsResponse> done) override {
    pb::DeliverEventsResponse response;
    absl::Status status;
    {
      std::lock_guard lock(mutex_);
      for (const pb::Event& event : request.events()) came_.push_back(event);
      const bool wanted = held_key_.empty() || std::any_of(request.events().begin(), request.events().end(),
                                                            [&](const pb::Event& event) { return event.key() == held_key_; });
      if (hold_ && wanted) {
        held_.push_back([request, done, this](absl::Status how) {
          pb::DeliverEventsResponse late;
          if (how.ok()) Fill(request, late);
          done(how, late);
        });
        changed_.notify_all();
        return;
      }
      status = status_;
    }
    changed_.notify_all();
    if (status.ok()) Fill(request, response);
    done(status, response);
  }

  void Say(Answer answer) {
    std::lock_guard lock(mutex_);
    answer_ = std::move(answer);
  }
  void Die(absl::Status status) {  // each call from now on ends so; OK: no more
    std::lock_guard lock(mutex_);
    status_ = std::move(status);
  }
  // Calls, with a key those that have an event of it, wait until they are let go.
  void Hold(const std::string& key = "") {
    std::lock_guard lock(mutex_);
    hold_ = true;
    held_key_ = key;
  }
  void LetGo(absl::Status how = absl::OkStatus()) {
    std::vector<std::function<void(absl::Status)>> held;
    {
      std::lock_guard lock(mutex_);
      hold_ = false;
      held.swap(held_);
    }
    for (auto& one : held) one(how);
  }
  // What has come so far, once `wanted` of that holds.
  std::vector<pb::Event> Await(const std::function<bool(const std::vector<pb::Event>&)>& wanted, const char* what) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, 20s, [&] { return wanted(came_); })) << what << "; " << came_.size() << " have come";
    return came_;
  }
  std::vector<pb::Event> Await(size_t count) {
    return Await([&](const auto& came) { return came.size() >= count; }, "too few events");
  }
  std::vector<pb::Event> came() {
    std::lock_guard lock(mutex_);
    return came_;
  }
  std::vector<std::string> Payloads() {
    std::vector<std::string> payloads;
    for (const pb::Event& event : came()) payloads.push_back(event.payload_json());
    return payloads;
  }

 private:
  void Fill(const pb::DeliverEventsRequest& request, pb::DeliverEventsResponse& response) {
    Answer answer;
    {
      std::lock_guard lock(mutex_);
      answer = answer_;
    }
    for (const pb::Event& event : request.events()) {
      const auto verdict = answer ? answer(event) : pb::EventOutcome::ACK;
      if (verdict == pb::EventOutcome::VERDICT_UNSPECIFIED) continue;
      pb::EventOutcome& outcome = *response.add_outcomes();
      outcome.set_id(event.id());
      outcome.set_verdict(verdict);
      if (verdict != pb::EventOutcome::ACK) outcome.set_message("as the test wants it");
    }
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<pb::Event> came_;
  Answer answer_;
  absl::Status status_;
  bool hold_ = false;
  std::string held_key_;
  std::vector<std::function<void(absl::Status)>> held_;
};

// What supervisors of a cluster share.
struct SharedStores {
  std::string conninfo;
  std::optional<RedisAddress> redis;
};

// The events of one supervisor.
class EventNode {
 public:
  EventNode(const std::string& name, const SharedStores& where)
      : database_(where.conninfo, 4), events_(Events::Make(loop_, database_, Clock::Real(), {.node = name, .redis = where.redis})),
        thread_([this] { loop_.Run(); }) {
    OnLoop([&] { events_->Start(); });
  }
  ~EventNode() {
    if (!stopped_) Stop(0ms);
    OnLoop([&] { events_.reset(); });
    loop_.Stop();
    thread_.join();
  }
  void OnLoop(std::function<void()> task) {
    std::promise<void> done;
    loop_.Post([&] {
      task();
      done.set_value();
    });
    done.get_future().wait();
  }
  using Workers = std::map<std::string, std::shared_ptr<ControlPort>>;
  // The subscribers by module, with the topics of their manifests and their ready workers.
  void Publish(const std::map<std::string, std::pair<std::vector<std::string>, Workers>>& modules) {
    auto directory = std::make_shared<Directory>();
    for (const auto& [name, what] : modules) {
      auto manifest = std::make_shared<Manifest>();
      manifest->name = name;
      manifest->subscribes = what.first;
      auto module = std::make_shared<DirectoryModule>();
      module->name = name;
      module->manifest = manifest;
      for (const auto& [instance, port] : what.second) module->workers.push_back({.slot = 0, .instance = instance, .control = port});
      directory->modules[name] = module;
    }
    bool adopted = false;
    OnLoop([&] { events_->Adopt(directory, [&] { adopted = true; }); });
    EXPECT_TRUE(adopted);
  }
  void Stop(Millis grace) {
    std::promise<void> stopped;
    loop_.Post([&] { events_->Stop(grace, [&] { stopped.set_value(); }); });
    EXPECT_EQ(stopped.get_future().wait_for(20s), std::future_status::ready);
    stopped_ = true;
  }
  absl::StatusOr<int64_t> Send(const std::string& topic, const std::string& key, const std::string& payload, const std::string& source = "orders") {
    std::promise<absl::StatusOr<int64_t>> answer;
    events_->Publish({source, topic, key, payload}, [&](absl::StatusOr<int64_t> id) { answer.set_value(std::move(id)); });
    return answer.get_future().get();
  }
  Events& events() { return *events_; }

 private:
  Loop loop_;
  Database database_;
  std::unique_ptr<Events> events_;
  std::thread thread_;
  bool stopped_ = false;
};

enum class Engine { kPostgres, kRedis };
inline std::string EngineName(const testing::TestParamInfo<Engine>& info) { return info.param == Engine::kRedis ? "Redis" : "Postgres"; }

class EventsTest : public testing::TestWithParam<Engine> {
 protected:
  // Registered as the lifecycle does it; ENABLED unless `status` says otherwise.
  void Register(const std::string& name, const std::string& events_json, const std::string& status = "ENABLED") {
    Sql("INSERT INTO bulkhead_internal.uid_slots (module) VALUES ('" + name + "') ON CONFLICT DO NOTHING");
    Sql("INSERT INTO bulkhead_internal.modules (name, version, manifest, uid_slot, status) SELECT '" + name + "', '1.0.0', "
        "'{\"capabilities\": {\"events\": " + events_json + "}}', slot, '" + status + "' FROM bulkhead_internal.uid_slots WHERE module = '" + name + "'");
  }
  Rows Sql(const std::string& sql) {
    auto rows = database_.Run(sql);
    EXPECT_TRUE(rows.ok()) << rows.status() << "\n" << sql;
    return rows.ok() ? *std::move(rows) : Rows();
  }
  std::string Append(const std::string& topic, const std::string& key, const std::string& payload) {
    return "SELECT bulkhead_internal.append_event('orders', '" + topic + "', '" + key + "', '" + payload + "')";
  }
  void Emit(const std::string& topic, const std::string& key, const std::string& payload) { Sql(Append(topic, key, payload)); }
  // The session is the module's from then on.
  void BecomeOrders(Connection& c) {
    Sql("DO $$ BEGIN CREATE ROLE bh_events_orders LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$");  // databases share their roles
    Sql("GRANT USAGE ON SCHEMA bulkhead TO bh_events_orders");
    Sql("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA bulkhead TO bh_events_orders");
    Sql("INSERT INTO bulkhead_internal.module_roles VALUES ('bh_events_orders', 'orders', 'orders')");
    ASSERT_TRUE(c.Run("SET SESSION AUTHORIZATION bh_events_orders").ok());
  }
  int Count(const std::string& table) { return static_cast<int>(Sql("SELECT count(*) AS n FROM bulkhead_internal." + table).Int(0, "n")); }
  void Until(const std::function<bool()>& holds, const char* what) {
    for (const Instant end = Clock::Real().Now() + 20s; Clock::Real().Now() < end;) {
      if (holds()) return;
      std::this_thread::sleep_for(10ms);
    }
    ADD_FAILURE() << what;
  }

  EventsTest() {
    if (GetParam() == Engine::kRedis) {
      redis_.emplace();
      where_.redis = redis_->address();
    }
    Register("orders", R"({"publishes": ["order.created", "order.paid", "price.updated"],
      "schemas": {"price.updated": {"type": "object", "required": ["cents"], "properties": {"cents": {"type": "integer", "minimum": 1}}}}})");
    Register("billing", R"({"subscribes": ["order.*"]})");
  }
  std::string conninfo_ = TestPostgres::Instance().FreshDatabase();
  SharedStores where_{conninfo_, std::nullopt};
  std::optional<TestRedis> redis_;
  Database database_{conninfo_, 4};
  std::shared_ptr<FakeSubscriber> billing_ = std::make_shared<FakeSubscriber>();
};

}  // namespace bulkhead::events_testing
