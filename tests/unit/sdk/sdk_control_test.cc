// The calls of the contract on the control socket.
#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "harness.h"

namespace bulkhead::sdk_test {
namespace {

std::vector<pb::RunJobUpdate> RunToEnd(ModuleProcess& module, pb::RunJobRequest request, grpc::Status* status = nullptr) {
  if (request.deadline_ms() == 0) request.set_deadline_ms(10'000);
  auto call = module.Call();
  auto reader = module.stub().RunJob(call.get(), request);
  std::vector<pb::RunJobUpdate> out;
  pb::RunJobUpdate update;
  while (reader->Read(&update)) out.push_back(update);
  grpc::Status finished = reader->Finish();
  if (status) *status = finished;
  return out;
}

pb::RunJobRequest Job(const std::string& name, const std::string& payload = "null") {
  pb::RunJobRequest request;
  request.set_run_id("run-1");
  request.set_job(name);
  request.set_payload_json(payload);
  request.set_attempt(2);
  request.set_fence(41);
  request.set_config_json(R"({"unit":"kWh"})");
  return request;
}

TEST(Control, RefusesEveryCallWithoutTheToken) {
  ModuleProcess module;
  auto refused = [&](auto method, auto request, auto response) {
    for (const char* token : {"", "wrong"}) {
      grpc::Status status = (module.stub().*method)(module.Call(std::chrono::seconds(5), token).get(), request, &response);
      EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
    }
  };
  using Stub = pb::Module::Stub;
  refused(&Stub::Initialize, pb::InitializeRequest(), pb::InitializeResponse());
  refused(&Stub::Start, pb::StartRequest(), pb::StartResponse());
  refused(&Stub::Stop, pb::StopRequest(), pb::StopResponse());
  refused(&Stub::Health, pb::HealthRequest(), pb::HealthResponse());
  refused(&Stub::Metrics, pb::MetricsRequest(), pb::MetricsResponse());
  refused(&Stub::Configure, pb::ConfigureRequest(), pb::ConfigureResponse());
  refused(&Stub::DeliverEvents, pb::DeliverEventsRequest(), pb::DeliverEventsResponse());
  auto call = module.Call(std::chrono::seconds(5), "wrong");
  auto reader = module.stub().RunJob(call.get(), Job("add"));
  pb::RunJobUpdate update;
  EXPECT_FALSE(reader->Read(&update));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
  Link link(module.data_socket());
  EXPECT_EQ(link.Ask("GET", "/hello/you").status, 200) << "the refused Stop did nothing";
}

TEST(Control, KeepsTheOrderOfTheLifecycle) {
  ModuleProcess module({.initialize = false});
  EXPECT_EQ(module.Start().error_code(), grpc::StatusCode::ABORTED);
  EXPECT_TRUE(module.Initialize({}).ok());
  EXPECT_EQ(module.Initialize({}).error_code(), grpc::StatusCode::ABORTED);
  EXPECT_TRUE(module.Start().ok());
  EXPECT_EQ(module.Start().error_code(), grpc::StatusCode::ABORTED);
}

TEST(Control, RequestsWaitUntilStart) {
  ModuleProcess module({.start = false});
  Link link(module.data_socket());
  uint32_t stream = link.Send("GET", "/hello/early");
  EXPECT_FALSE(link.Readable(std::chrono::milliseconds(30)));
  EXPECT_TRUE(module.Start().ok());
  EXPECT_EQ(link.Await(stream).status, 200);
}

TEST(Jobs, EndWithOneResult) {
  ModuleProcess module;
  grpc::Status status;
  auto updates = RunToEnd(module, Job("add", R"({"a":2,"b":3})"), &status);
  EXPECT_TRUE(status.ok());
  ASSERT_EQ(updates.size(), 3u);
  EXPECT_EQ(updates[0].progress().fraction(), 0.5);
  EXPECT_EQ(updates[0].progress().message(), "half way");
  EXPECT_EQ(updates[1].log().message(), "adding");
  EXPECT_EQ(Json::parse(updates[2].result().result_json()), Json::parse(R"({"sum":5,"attempt":2,"fence":41,"unit":"kWh"})"));
}

TEST(Jobs, EndWithOneError) {
  ModuleProcess module;
  auto failed = RunToEnd(module, Job("fail"));
  ASSERT_EQ(failed.size(), 1u);
  EXPECT_EQ(failed[0].error().code(), "NO_DISK");
  EXPECT_EQ(failed[0].error().message(), "the disk is full");
  EXPECT_FALSE(failed[0].error().retryable());
  auto thrown = RunToEnd(module, Job("throw"));
  ASSERT_EQ(thrown.size(), 1u);
  EXPECT_EQ(thrown[0].error().code(), "INTERNAL");
  EXPECT_EQ(thrown[0].error().message(), "index 7");
  EXPECT_EQ(thrown[0].error().stack(), "std::out_of_range");
  EXPECT_TRUE(thrown[0].error().retryable());
  EXPECT_EQ(RunToEnd(module, Job("unknown")).at(0).error().code(), "JOB_NOT_FOUND");
  EXPECT_EQ(RunToEnd(module, Job("add", "{")).at(0).error().code(), "INVALID_ARGUMENT");
  EXPECT_EQ(RunToEnd(module, Job("add", "{}")).back().error().code(), "INTERNAL");
  EXPECT_EQ(RunToEnd(module, Job("long-result")).at(0).error().code(), "RESULT_TOO_LARGE");
}

TEST(Jobs, BytesThatAreNoTextAreReplacedAndTheRunEndsInOrder) {
  ModuleProcess module;
  grpc::Status status;
  auto updates = RunToEnd(module, Job("no-text"), &status);
  EXPECT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(updates.size(), 4u);
  EXPECT_TRUE(updates[0].progress().message().starts_with("x\uFFFD"));
  EXPECT_EQ(updates[1].log().level(), "\uFFFD");
  EXPECT_EQ(updates[1].log().message(), "a\uFFFD");
  EXPECT_EQ(updates[2].log().message(), "x\u00e4" + std::string(4'092, 'b') + "\uFFFD") << "cut within a character";
  EXPECT_EQ(updates[3].error().code(), "NO_\uFFFD");
  EXPECT_EQ(updates[3].error().message(), "b\uFFFD");
}

TEST(Jobs, ACancelledCallCancelsTheRun) {
  ModuleProcess module;
  Link link(module.data_socket());
  auto call = module.Call();
  pb::RunJobRequest request = Job("wait");
  request.set_deadline_ms(60'000);
  auto reader = module.stub().RunJob(call.get(), request);
  pb::RunJobUpdate update;
  ASSERT_TRUE(reader->Read(&update));
  call->TryCancel();
  while (reader->Read(&update)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([&] { return link.Ask("GET", "/cancelled").body == "1"; }));
}

TEST(Jobs, ACancelledRunIsNamedUntilItsHandlerHasReturned) {
  ModuleProcess module;
  const auto running = [&] {
    auto call = module.Call();
    pb::RunningJobsResponse response;
    EXPECT_TRUE(module.stub().RunningJobs(call.get(), {}, &response).ok());
    return std::multiset<int64_t>(response.fences().begin(), response.fences().end());
  };
  EXPECT_TRUE(running().empty());
  for (const auto& [job, fence] : {std::pair("hang", 7), std::pair("wait", 8)}) {
    auto call = module.Call();
    pb::RunJobRequest request = Job(job);
    request.set_deadline_ms(60'000);
    request.set_fence(fence);
    auto reader = module.stub().RunJob(call.get(), request);
    pb::RunJobUpdate update;
    ASSERT_TRUE(reader->Read(&update));
    EXPECT_TRUE(running().contains(fence));
    call->TryCancel();
    while (reader->Read(&update)) {
    }
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_TRUE(Eventually([&] { return running() == std::multiset<int64_t>{7}; })) << "the one that does not look whether it was cancelled";
}

TEST(Jobs, ARunKnowsItsDeadline) {
  ModuleProcess module;
  pb::RunJobRequest request = Job("wait");
  request.set_deadline_ms(50);
  auto updates = RunToEnd(module, request);
  ASSERT_FALSE(updates.empty());
  EXPECT_EQ(updates.back().error().code(), "CANCELLED");
}

TEST(Jobs, StoppingInterruptsRuns) {
  ModuleProcess module;
  auto call = module.Call();
  pb::RunJobRequest request = Job("wait");
  request.set_deadline_ms(60'000);
  auto reader = module.stub().RunJob(call.get(), request);
  pb::RunJobUpdate update;
  ASSERT_TRUE(reader->Read(&update));
  EXPECT_TRUE(module.Stop().ok());
  ASSERT_TRUE(reader->Read(&update));
  EXPECT_EQ(update.error().code(), "INTERRUPTED");
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(module.AwaitExit(), 0);
}

TEST(Jobs, ARunThatIgnoresTheStopIsGivenUp) {
  ModuleProcess module;
  auto call = module.Call();
  pb::RunJobRequest request = Job("hang");
  request.set_deadline_ms(60'000);
  auto reader = module.stub().RunJob(call.get(), request);
  pb::RunJobUpdate update;
  ASSERT_TRUE(reader->Read(&update));
  EXPECT_TRUE(module.Stop(500).ok());
  ASSERT_TRUE(reader->Read(&update));
  EXPECT_EQ(update.error().code(), "INTERRUPTED");
  EXPECT_EQ(module.AwaitExit(), 0);
}

TEST(Jobs, ProgressAndLogsAreBounded) {
  ModuleProcess module;
  auto updates = RunToEnd(module, Job("chatty"));
  size_t progress = 0, logs = 0;
  double last = 0;
  for (const auto& update : updates) {
    progress += update.has_progress();
    logs += update.has_log();
    if (update.has_progress()) last = update.progress().fraction();
  }
  EXPECT_EQ(logs, 1'001u);
  EXPECT_LE(progress, 20u);
  EXPECT_EQ(last, 1.0) << "the last one is never lost";
  EXPECT_TRUE(updates.back().has_result());
}

TEST(Jobs, BeyondSixteenAtOnceARunIsRefused) {
  ModuleProcess module;
  std::vector<std::unique_ptr<grpc::ClientContext>> calls;
  std::vector<std::unique_ptr<grpc::ClientReader<pb::RunJobUpdate>>> readers;
  for (int i = 0; i < 16; ++i) {
    calls.push_back(module.Call());
    pb::RunJobRequest request = Job("wait");
    request.set_deadline_ms(60'000);
    readers.push_back(module.stub().RunJob(calls.back().get(), request));
    pb::RunJobUpdate update;
    ASSERT_TRUE(readers.back()->Read(&update));
  }
  EXPECT_EQ(RunToEnd(module, Job("add", R"({"a":1,"b":1})")).back().error().code(), "OVERLOADED");
  for (auto& call : calls) call->TryCancel();
  for (auto& reader : readers) reader->Finish();
}

TEST(Jobs, ARunThatGetsNoThreadFailsAndTakesNoPlace) {
  ModuleProcess module;
  Link link(module.data_socket());
  ASSERT_EQ(link.Ask("POST", "/threads/off").status, 204);
  for (int i = 0; i < 17; ++i) {
    auto updates = RunToEnd(module, Job("add", R"({"a":1,"b":1})"));
    ASSERT_EQ(updates.size(), 1u);
    EXPECT_EQ(updates[0].error().code(), "OVERLOADED");
    EXPECT_EQ(updates[0].error().message(), "no thread could be started");
    EXPECT_TRUE(updates[0].error().retryable());
  }
  ASSERT_EQ(link.Ask("POST", "/threads/on").status, 204);
  EXPECT_TRUE(RunToEnd(module, Job("add", R"({"a":1,"b":1})")).back().has_result());
}

TEST(Health, SaysThatACheckGotNoThread) {
  ModuleProcess module;
  Link link(module.data_socket());
  ASSERT_EQ(link.Ask("POST", "/threads/off").status, 204);
  pb::HealthResponse health;
  ASSERT_TRUE(module.stub().Health(module.Call().get(), {}, &health).ok());
  EXPECT_EQ(health.status(), pb::UNHEALTHY);
  ASSERT_GE(health.checks_size(), 1);
  EXPECT_EQ(health.checks(0).status(), pb::UNHEALTHY);
  EXPECT_EQ(health.checks(0).message(), "no thread could be started");
  ASSERT_EQ(link.Ask("POST", "/threads/on").status, 204);
  ASSERT_TRUE(module.stub().Health(module.Call().get(), {}, &health).ok());
  EXPECT_EQ(health.status(), pb::HEALTHY);
}

TEST(Health, IsTheWorstOfItsChecks) {
  ModuleProcess module({.config = {{"throwingCheck", true}}});
  pb::HealthResponse health;
  ASSERT_TRUE(module.stub().Health(module.Call().get(), {}, &health).ok());
  EXPECT_EQ(health.status(), pb::UNHEALTHY);
  ASSERT_EQ(health.checks_size(), 2);
  EXPECT_EQ(health.checks(0).name(), "disk");
  EXPECT_EQ(health.checks(0).status(), pb::HEALTHY);
  EXPECT_EQ(health.checks(1).message(), "no such disk");
}

TEST(Health, AHungCheckTimesOutAloneAndIsNotPiledUp) {
  ModuleProcess module({.config = {{"hungCheck", true}}});
  Link link(module.data_socket());
  for (int i = 0; i < 2; ++i) {
    pb::HealthResponse health;
    auto before = std::chrono::steady_clock::now();
    ASSERT_TRUE(module.stub().Health(module.Call(std::chrono::milliseconds(2'000)).get(), {}, &health).ok());
    EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::milliseconds(2'000));
    EXPECT_EQ(health.status(), pb::UNHEALTHY);
    EXPECT_EQ(health.checks(0).name(), "hung");
    EXPECT_EQ(health.checks(0).message(), "timed out");
    EXPECT_EQ(health.checks(1).status(), pb::HEALTHY);
  }
  EXPECT_EQ(link.Ask("GET", "/gate/waiting").body, "1") << "the second call started no second check";
  link.Ask("POST", "/gate/open");
  EXPECT_TRUE(Eventually([&] {
    pb::HealthResponse health;
    return module.stub().Health(module.Call().get(), {}, &health).ok() && health.status() == pb::HEALTHY;
  }));
}

TEST(Health, UsesAShortDeadlineForItsChecks) {
  ModuleProcess module({.config = {{"checkMs", 200}}});
  pb::HealthResponse health;
  ASSERT_TRUE(module.stub().Health(module.Call(std::chrono::milliseconds(1'000)).get(), {}, &health).ok());
  EXPECT_EQ(health.status(), pb::HEALTHY) << health.checks(0).message();
}

TEST(Health, AnswersWithinAShortDeadlineWhateverHangs) {
  ModuleProcess module({.config = {{"hungCheck", true}, {"hungOverall", true}}});
  Link link(module.data_socket());
  pb::HealthResponse health;
  grpc::Status status = module.stub().Health(module.Call(std::chrono::milliseconds(800)).get(), {}, &health);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(health.status(), pb::UNHEALTHY);
  EXPECT_EQ(health.checks(0).message(), "timed out");
  link.Ask("POST", "/gate/open");
}

TEST(Health, IsUnhealthyBeforeInitialize) {
  ModuleProcess module({.initialize = false});
  pb::HealthResponse health;
  ASSERT_TRUE(module.stub().Health(module.Call().get(), {}, &health).ok());
  EXPECT_EQ(health.status(), pb::UNHEALTHY);
}

TEST(Metrics, CountsByItselfAndTakesTheAuthors) {
  ModuleProcess module;
  Link link(module.data_socket());
  for (int i = 0; i < 3; ++i) link.Ask("GET", "/hello/you");
  link.Ask("GET", "/throw");
  link.Ask("GET", "/nowhere");
  link.Send("GET", "/gate");
  ASSERT_TRUE(Eventually([&] { return link.Ask("GET", "/gate/waiting").body == "1"; }));
  // A thread of the pool counts as busy until its handler has returned, which is after its answer was written.
  pb::MetricsResponse metrics;
  EXPECT_TRUE(Eventually([&] {
    return module.stub().Metrics(module.Call().get(), {}, &metrics).ok() && metrics.active_workers() == 1;
  })) << metrics.active_workers();
  EXPECT_GE(metrics.request_count(), 6);
  EXPECT_EQ(metrics.error_count(), 1);
  EXPECT_GT(metrics.avg_response_time(), 0);
  EXPECT_EQ(metrics.custom().at("echoes"), 3);
  EXPECT_EQ(metrics.custom().at("answer"), 42);
  EXPECT_EQ(metrics.custom().at("own"), 7);
  link.Ask("POST", "/gate/open");
}

TEST(Metrics, DoNotWaitForAHungCheck) {
  ModuleProcess module({.config = {{"hungCheck", true}}});
  Link link(module.data_socket());
  pb::HealthResponse health;
  auto call = module.Call();
  grpc::Status checked;
  std::thread checking([&] { checked = module.stub().Health(call.get(), {}, &health); });
  EXPECT_TRUE(Eventually([&] { return link.Ask("GET", "/gate/waiting").body == "1"; }));
  pb::MetricsResponse metrics;
  EXPECT_TRUE(module.stub().Metrics(module.Call(std::chrono::milliseconds(1'500)).get(), {}, &metrics).ok());
  EXPECT_EQ(link.Ask("POST", "/gate/open").status, 204);
  checking.join();
  EXPECT_TRUE(checked.ok());
  EXPECT_EQ(health.status(), pb::HEALTHY) << "the check was still waited for";
}

TEST(Configure, IsAppliedOrRefusedWithASentence) {
  ModuleProcess module;
  Link link(module.data_socket());
  pb::ConfigureRequest request;
  request.set_revision(6);
  request.set_config_json(R"({"greeting":"moin"})");
  pb::ConfigureResponse response;
  ASSERT_TRUE(module.stub().Configure(module.Call().get(), request, &response).ok());
  EXPECT_TRUE(response.has_applied());
  EXPECT_EQ(link.Ask("GET", "/hello/you").json()["data"]["greeting"], "moin");
  request.set_config_json("{}");
  ASSERT_TRUE(module.stub().Configure(module.Call().get(), request, &response).ok());
  EXPECT_EQ(response.refused().message(), "greeting is missing");
  request.set_config_json("[1");
  ASSERT_TRUE(module.stub().Configure(module.Call().get(), request, &response).ok());
  EXPECT_TRUE(response.has_refused());
  EXPECT_EQ(link.Ask("GET", "/hello/you").json()["data"]["greeting"], "moin");
}

TEST(Events, AreKeptByTheSupervisorWhileThereIsNoHandler) {
  ModuleProcess module;
  pb::DeliverEventsRequest request;
  request.add_events()->set_id("e1");
  request.add_events()->set_id("e2");
  pb::DeliverEventsResponse response;
  ASSERT_TRUE(module.stub().DeliverEvents(module.Call().get(), request, &response).ok());
  ASSERT_EQ(response.outcomes_size(), 2);
  EXPECT_NE(response.outcomes(0).id(), response.outcomes(1).id());
  for (const pb::EventOutcome& outcome : response.outcomes()) {
    EXPECT_EQ(outcome.verdict(), pb::EventOutcome::RETRY);
    EXPECT_EQ(outcome.message(), "no handler");
  }
}

}  // namespace
}  // namespace bulkhead::sdk_test
