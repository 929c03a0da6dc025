// REST as a client sees it, through Handle(), the transcoder, the in-process channel and the guard.
#include "gmock/gmock.h"
#include "supervisor/manifest/manifest_schema.h"
#include "tests/unit/admin/admin_harness.h"

namespace bulkhead {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

std::vector<std::string> Keys(const json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

class Probes : public AdminTest {};

TEST_F(Probes, AnswerWithoutATokenAndWithoutTheEnvelope) {
  LocalRequest request = Request("GET", "/health");
  request.authorization.clear();
  const Reply health = Send(request);
  EXPECT_EQ(health.status, 200);
  EXPECT_THAT(Keys(health.json()), UnorderedElementsAre("status", "timestamp", "uptime", "environment"));
  EXPECT_EQ(health.json()["status"], "ok");
  EXPECT_EQ(health.json()["environment"], "test");
  EXPECT_GE(health.json()["uptime"], 0);
  request.path = "/healthz";
  EXPECT_EQ(Send(request).body, R"({"status":"ok"})");
  request.path = "/readyz";
  EXPECT_EQ(Send(request).status, 503);
  EXPECT_EQ(Send(request).body, R"({"status":"starting"})");
  EXPECT_EQ(Send(request).header("retry-after"), "1");
  node_.ready = true;
  EXPECT_EQ(Send(request).status, 200);
  EXPECT_EQ(Send(request).body, R"({"status":"ready"})");
  node_.stopping = true;
  EXPECT_EQ(Send(request).status, 503);
  EXPECT_EQ(Send(request).body, R"({"status":"stopping"})");
  request.method = "POST";
  EXPECT_EQ(Send(request).status, 405);
  EXPECT_EQ(Send(request).header("allow"), "GET, HEAD");
}

class WhoMay : public AdminTest {};

TEST_F(WhoMay, NothingIsToldWithoutAToken) {
  for (const char* path : {"/api/v1/modules", "/api/v1/nothing", "/api/", "/api/v1/system/modules"}) {
    for (const char* authorization : {"", "Bearer", "Bearer ", "Bearer x", "Basic YTpi", "bhk_1234"}) {
      LocalRequest request = Request("POST", path, "{broken");
      request.authorization = authorization;
      const Reply reply = Send(request);
      EXPECT_EQ(reply.status, 401) << path << authorization;
      EXPECT_EQ(reply.code(), "UNAUTHENTICATED");
      EXPECT_EQ(reply.header("www-authenticate"), "Bearer");
      EXPECT_EQ(reply.json()["error"]["requestId"], "request-1");
    }
  }
  LocalRequest elsewhere = Request("GET", "/favicon.ico");
  elsewhere.authorization.clear();
  EXPECT_EQ(Send(elsewhere).status, 404);
  LocalRequest lower = Request("GET", "/api/v1/modules");
  lower.authorization = "bearer " + admin_token_;
  EXPECT_EQ(Send(lower).status, 200);
}

TEST_F(WhoMay, ARefusedWriteIsWrittenDownAndARefusedReadIsNot) {
  const std::string reader = MakeToken("reader", {"modules:read"});
  const auto log = [&](const std::string& secret, const std::string& method, const std::string& path) {
    testing::internal::CaptureStderr();
    As(secret, Request(method, path, "{broken"));
    return testing::internal::GetCapturedStderr();
  };
  EXPECT_THAT(log(reader, "POST", "/api/v1/modules"),
              testing::AllOf(HasSubstr("modules.register"), HasSubstr("subject=reader"), HasSubstr("address=192.0.2.7:1234"),
                             HasSubstr("request=request-1"), HasSubstr("result=FORBIDDEN")));
  EXPECT_THAT(log("wrong", "DELETE", "/api/v1/modules/x"),
              testing::AllOf(HasSubstr("modules.delete"), HasSubstr("subject=-"), HasSubstr("result=UNAUTHENTICATED")));
  EXPECT_THAT(log(admin_token_, "POST", "/api/v1/modules"),
              testing::AllOf(HasSubstr("modules.register"), HasSubstr("subject=admin"), HasSubstr("result=INVALID_JSON")));
  EXPECT_EQ(log("wrong", "GET", "/api/v1/modules"), "");
}

TEST_F(WhoMay, ATokenMayWhatItHoldsEvenBeforeTheBodyIsLookedAt) {
  const std::string reader = MakeToken("reader", {"modules:read"});
  EXPECT_EQ(As(reader, Request("GET", "/api/v1/modules")).status, 200);
  for (const auto& [method, path] : {std::pair{"POST", "/api/v1/modules"},
                                     {"DELETE", "/api/v1/modules/x"},
                                     {"GET", "/api/v1/tokens"},
                                     {"GET", "/api/v1/system/modules"}}) {
    const Reply reply = As(reader, Request(method, path, "{broken"));
    EXPECT_EQ(reply.status, 403) << path;
    EXPECT_EQ(reply.code(), "FORBIDDEN");
  }
}

TEST_F(WhoMay, TokensAreMadeListedAndEndAtOnce) {
  const Reply made =
      Post("/api/v1/tokens", {{"name", "ci"}, {"permissions", {"modules:*"}}, {"expiresAt", "2999-01-01T00:00:00Z"}});
  ASSERT_EQ(made.status, 201) << made.body;
  EXPECT_THAT(Keys(made.data()), UnorderedElementsAre("id", "name", "subject", "roles", "permissions", "secret", "createdAt", "expiresAt", "lastUsedAt"));
  const std::string secret = made.data()["secret"];
  EXPECT_EQ(As(secret, Request("GET", "/api/v1/modules")).status, 200);
  EXPECT_EQ(Post("/api/v1/tokens", {{"name", "ci"}, {"permissions", {"modules:*"}}}).code(), "TOKEN_EXISTS");
  const Reply list = Get("/api/v1/tokens");
  EXPECT_EQ(list.data()[0]["secret"], "");
  EXPECT_EQ(list.json()["meta"], (json{{"total", 1}, {"page", 1}, {"pageSize", 1}}));
  EXPECT_EQ(Send(Request("DELETE", "/api/v1/tokens/ci")).status, 200);
  EXPECT_EQ(As(secret, Request("GET", "/api/v1/modules")).status, 401);
  EXPECT_EQ(Send(Request("DELETE", "/api/v1/tokens/ci")).code(), "TOKEN_NOT_FOUND");
  const Reply bad = Post("/api/v1/tokens", {{"name", "Not Kebab"}, {"permissions", json::array()}});
  EXPECT_EQ(bad.status, 400);
  EXPECT_EQ(bad.json()["error"]["details"].size(), 3u) << bad.body;
}

class Requests : public AdminTest {};

TEST_F(Requests, ToPathsAndMethodsThatDoNotExistAre404And405) {
  EXPECT_EQ(Get("/api/v1/nothing").code(), "ROUTE_NOT_FOUND");
  const Reply reply = Send(Request("PATCH", "/api/v1/modules", "{}"));
  EXPECT_EQ(reply.status, 405);
  EXPECT_EQ(reply.code(), "METHOD_NOT_ALLOWED");
  EXPECT_EQ(reply.header("allow"), "GET, HEAD, POST");
}

TEST_F(Requests, ThatAreMalformedAre400Or415WithThePlace) {
  EXPECT_EQ(Send(Request("POST", "/api/v1/modules", "{\"manifest\": ")).code(), "INVALID_JSON");
  EXPECT_EQ(Send(Request("POST", "/api/v1/modules", "\xff\xfe")).code(), "INVALID_JSON");
  const Reply type = Post("/api/v1/modules", {{"manifest", 7}});
  EXPECT_EQ(type.status, 400);
  EXPECT_EQ(type.json()["error"]["details"][0]["path"], "/manifest");
  EXPECT_EQ(Get("/api/v1/modules?pageSize=501").json()["error"]["details"][0]["path"], "pageSize");
  EXPECT_EQ(Get("/api/v1/modules?page=0").status, 400);
  EXPECT_EQ(Post("/api/v1/modules").json()["error"]["details"][0]["path"], "manifest");
  LocalRequest form = Request("POST", "/api/v1/modules", "a=b");
  form.content_type = "application/x-www-form-urlencoded";
  EXPECT_EQ(Send(form).status, 415);
}

TEST_F(Requests, FiftyAtOnceAreAllAnswered) {
  Register("one");
  std::vector<std::thread> clients;
  std::atomic<int> good{0};
  for (int i = 0; i < 50; ++i) {
    clients.emplace_back([&, i] {
      const Reply reply = i % 2 == 0 ? Get("/api/v1/modules") : Get("/api/v1/modules/one");
      if (reply.status == 200) ++good;
    });
  }
  for (auto& client : clients) client.join();
  EXPECT_EQ(good, 50);
}

TEST_F(Requests, NeitherWaitForOthersNorHoldTheThreadThatBringsThem) {
  Register("slow");
  modules_.HoldStarts(true);
  std::vector<std::future<Reply>> waiting;
  for (int i = 0; i < 100; ++i) waiting.push_back(Begin(Request("POST", "/api/v1/modules/slow/enable")));
  while (Get("/api/v1/modules/slow").data()["observed"]["state"] != "STARTING") {
  }
  modules_.HoldStarts(false);
  for (auto& reply : waiting) EXPECT_EQ(reply.get().status, 200);
}

class ModulesApi : public AdminTest {};

TEST_F(ModulesApi, RegisterAnswersTheWholeModuleAndItsPlace) {
  const json manifest = ManifestOf("meter");
  const Reply reply =
      Post("/api/v1/modules", {{"manifest", manifest}, {"path", "/opt/meter"}, {"config", {{"password", "geheim"}}}});
  ASSERT_EQ(reply.status, 201) << reply.body;
  EXPECT_EQ(reply.header("location"), "/api/v1/modules/meter");
  EXPECT_EQ(reply.header("content-type"), "application/json");
  const json module = reply.data();
  EXPECT_THAT(Keys(module),
              UnorderedElementsAre("id", "name", "version", "displayName", "description", "author", "path", "status", "desired",
                                   "observed", "offer", "workers", "exits", "exitCounts", "isolation", "config", "configRevision",
                                   "configAppliedRevision", "lastUpgrade", "enabledAt", "createdAt", "updatedAt", "manifest", "restartPolicy",
                                   "healthPolicy", "files"));
  EXPECT_EQ(module["status"], "REGISTERED");
  EXPECT_EQ(module["desired"], (json{{"state", "DISABLED"}, {"generation", 1}, {"workers", 1}, {"workersOverride", nullptr}}));
  EXPECT_EQ(module["observed"]["reason"], nullptr);
  EXPECT_EQ(module["lastUpgrade"], nullptr);
  EXPECT_EQ(module["enabledAt"], nullptr);
  EXPECT_EQ(module["manifest"], manifest) << "whole numbers must stay whole: " << module["manifest"];
  EXPECT_THAT(module["manifest"].dump(), HasSubstr("\"timeout\":30000}"));
  EXPECT_EQ(module["config"], (json{{"host", "localhost"}, {"password", "********"}})) << "defaults shown, secrets not";
  EXPECT_THAT(reply.body, testing::Not(HasSubstr("geheim")));
  EXPECT_EQ(Post("/api/v1/modules", {{"manifest", manifest}}).status, 409);
}

TEST_F(ModulesApi, RegisterRefusesAnInvalidManifestWithEveryFinding) {
  const Reply reply = Post("/api/v1/modules", {{"manifest", {{"name", "Bad Name"}, {"version", "one"}}}});
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.code(), "MANIFEST_INVALID");
  EXPECT_GE(reply.json()["error"]["details"].size(), 2u);
}

TEST_F(ModulesApi, ValidateAnswers200WhateverTheManifestIsLike) {
  const Reply good = Post("/api/v1/modules/validate", {{"manifest", ManifestOf("meter")}});
  EXPECT_EQ(good.status, 200);
  EXPECT_EQ(good.data()["valid"], true) << good.body;
  EXPECT_EQ(good.json().contains("meta"), false);
  const Reply bad = Post("/api/v1/modules/validate", {{"manifest", json::object()}});
  EXPECT_EQ(bad.status, 200);
  EXPECT_EQ(bad.data()["valid"], false);
  EXPECT_THAT(Keys(bad.data()["errors"][0]), UnorderedElementsAre("path", "line", "code", "message"));
  EXPECT_EQ(Get("/api/v1/modules").json()["meta"]["total"], 0);
}

TEST_F(ModulesApi, ATextIsValidatedWithItsLines) {
  const Reply yaml = Post("/api/v1/modules/validate", {{"text", "name: meter\nversion: 1.0.0\nworkers: 99\n"}, {"format", "yaml"}});
  EXPECT_EQ(yaml.status, 200);
  EXPECT_EQ(yaml.data()["errors"], json::parse(R"([{"path": "/workers", "line": 3, "code": "OUT_OF_RANGE",
                                                    "message": "\"workers\" must be a whole number from 1 to 32."}])"));
  const Reply text = Post("/api/v1/modules/validate", {{"text", "{\n\"name\": \"meter\",\n}"}});
  EXPECT_EQ(text.data()["errors"][0]["line"], 3);
  EXPECT_EQ(text.data()["errors"][0]["code"], "SYNTAX");
  EXPECT_EQ(Post("/api/v1/modules/validate", {{"text", ""}}).data()["valid"], false);
  EXPECT_EQ(Post("/api/v1/modules/validate", {{"text", ManifestOf("meter").dump()}}).data()["valid"], true);
  for (const json& wrong : {json::object(), json{{"text", "{}"}, {"manifest", json::object()}}, json{{"text", "{}"}, {"format", "toml"}}}) {
    const Reply refused = Post("/api/v1/modules/validate", wrong);
    EXPECT_EQ(refused.status, 400) << wrong;
    EXPECT_EQ(refused.code(), "INVALID_ARGUMENT") << wrong;
  }
}

TEST_F(ModulesApi, TheSchemaOfManifestsIsServedAsItStands) {
  const Reply reply = Get("/api/v1/manifest-schema");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body, ManifestSchemaJson());
}

TEST_F(ModulesApi, ListsAreFilteredSortedAndPaged) {
  for (const char* name : {"a", "b", "c"}) Register(name);
  const auto names = [&](const std::string& query) {
    std::string list;
    for (const json& module : Get("/api/v1/modules" + query).data()) list += module["name"].get<std::string>();
    return list;
  };
  EXPECT_EQ(names(""), "abc");
  EXPECT_EQ(names("?sort=-name&pageSize=2"), "cb");
  EXPECT_EQ(names("?sort=-name&pageSize=2&page=2"), "a");
  EXPECT_EQ(names("?search=DISPLAY%20B"), "b");
  EXPECT_EQ(names("?search=METERING"), "abc");
  EXPECT_EQ(names("?status=ENABLED"), "");
  EXPECT_EQ(Get("/api/v1/modules?pageSize=2").json()["meta"], (json{{"total", 3}, {"page", 1}, {"pageSize", 2}}));
}

TEST_F(ModulesApi, EnableAndDisableAnswerWhenItIsSo) {
  Register("meter");
  const Reply enabled = Post("/api/v1/modules/meter/enable");
  EXPECT_EQ(enabled.status, 200);
  EXPECT_EQ(enabled.json()["meta"], json({{"converged", true}}));
  EXPECT_EQ(enabled.data()["status"], "ENABLED");
  EXPECT_EQ(enabled.data()["observed"]["state"], "RUNNING");
  EXPECT_THAT(Keys(enabled.data()["workers"][0]),
              UnorderedElementsAre("slot", "pid", "instance", "state", "version", "startedAt", "restarts", "ready", "retryAt", "exitCounts", "spare"));
  const Reply disabled = Send(Request("PUT", "/api/v1/modules/meter/status", R"({"status":"DISABLED"})"));
  EXPECT_EQ(disabled.status, 200);
  EXPECT_EQ(disabled.data()["status"], "DISABLED");
  for (const char* status : {R"("REGISTERED")", R"("enabled")", R"("")", "7"}) {
    EXPECT_EQ(Send(Request("PUT", "/api/v1/modules/meter/status", std::string("{\"status\":") + status + "}")).status, 400)
        << status;
  }
}

TEST_F(ModulesApi, AWaitThatEndsFirstIs202AndNotConverged) {
  Register("slow");
  modules_.HoldStarts(true);
  for (const char* wait : {"false", "20ms"}) {
    const Reply reply = Post(std::string("/api/v1/modules/slow/enable?wait=") + wait);
    EXPECT_EQ(reply.status, 202) << wait;
    EXPECT_EQ(reply.json()["meta"]["converged"], false);
    EXPECT_EQ(reply.data()["desired"]["state"], "ENABLED");
  }
  for (const char* wait : {"soon", "601s", "-1s", "5"})
    EXPECT_EQ(Post(std::string("/api/v1/modules/slow/enable?wait=") + wait).status, 400) << wait;
}

TEST_F(ModulesApi, FailuresHaveTheStatusOfTheirCode) {
  EXPECT_EQ(Get("/api/v1/modules/nobody").code(), "MODULE_NOT_FOUND");
  Register("meter");
  modules_.FailStarts(Error("MODULE_START_FAILED", "It ended with exit code 3.", {{"", "EXIT", "last words"}}));
  const Reply failed = Post("/api/v1/modules/meter/enable");
  EXPECT_EQ(failed.status, 502);
  EXPECT_EQ(failed.code(), "MODULE_START_FAILED");
  EXPECT_EQ(failed.json()["error"]["details"][0]["message"], "last words");
  modules_.FailEverything(Error("DATABASE_UNAVAILABLE", "The database is away."));
  const Reply away = Get("/api/v1/modules");
  EXPECT_EQ(away.status, 503);
  EXPECT_EQ(away.header("retry-after"), "1");
}

TEST_F(ModulesApi, AStaleIfMatchIs412AndChangesNothing) {
  Register("meter");
  LocalRequest request = Request("POST", "/api/v1/modules/meter/enable");
  request.if_match = "\"999\"";
  EXPECT_EQ(Send(request).status, 412);
  EXPECT_EQ(Get("/api/v1/modules/meter").data()["status"], "REGISTERED");
  request.if_match = "\"1\"";
  EXPECT_EQ(Send(request).status, 200);
  LocalRequest gone = Request("DELETE", "/api/v1/modules/meter");
  gone.if_match = "\"1\"";
  EXPECT_EQ(Send(gone).code(), "PRECONDITION_FAILED");
}

TEST_F(ModulesApi, DeleteTellsWhetherTheDataWentToo) {
  Register("meter");
  EXPECT_EQ(Post("/api/v1/modules/meter/enable").status, 200);
  EXPECT_EQ(Send(Request("DELETE", "/api/v1/modules/meter")).code(), "MODULE_ENABLED");
  EXPECT_EQ(Post("/api/v1/modules/meter/disable").status, 200);
  EXPECT_EQ(Send(Request("DELETE", "/api/v1/modules/meter?purge=true")).data(), (json{{"name", "meter"}, {"purged", true}}));
  EXPECT_EQ(Get("/api/v1/modules/meter").status, 404);
}

TEST_F(ModulesApi, ShowsCrashReportsWhateverBytesTheyHold) {
  Register("meter");
  modules_.Edit("meter", [](ModuleView& view) {
    view.observed = ObservedState::kBackoff;
    view.reason_code = "EXIT";
    view.reason_message = "exit code 3";
    view.exits.push_back({"SIGNAL", 9, 0, WallTime(Millis(1500)), 12, "bytes: \xff\xfe\n\x1b[31m", "ended by signal 9"});
    view.exit_counts = {{"SIGNAL", 4}, {"OOM", int64_t{1} << 40}};
    view.isolation.push_back({"uid", IsolationItem::State::kUnavailable, "not root"});
  });
  const json module = Get("/api/v1/modules/meter").data();
  EXPECT_EQ(module["exits"][0], (json{{"cause", "SIGNAL"},
                                      {"signal", 9},
                                      {"exitCode", 0},
                                      {"at", "1970-01-01T00:00:01.500Z"},
                                      {"ranMs", 12},
                                      {"message", "ended by signal 9"},
                                      {"output", "bytes: \xEF\xBF\xBD\xEF\xBF\xBD\n\x1b[31m"}}));
  EXPECT_EQ(module["exitCounts"], (json{{"SIGNAL", 4}, {"OOM", int64_t{1} << 40}}));
  EXPECT_EQ(module["isolation"][0], (json{{"name", "uid"}, {"state", "unavailable"}, {"why", "not root"}}));
  EXPECT_EQ(module["observed"]["reason"], (json{{"code", "EXIT"}, {"message", "exit code 3"}}));
}

class SystemApi : public AdminTest {};

TEST_F(SystemApi, TellsTheWorstOfAllEnabledModulesRaw) {
  EXPECT_EQ(Get("/api/v1/system/modules").json()["status"], "healthy");
  for (const char* name : {"well", "tired", "ill", "off"}) Register(name);
  for (const char* name : {"well", "tired", "ill"})
    ASSERT_EQ(Post(std::string("/api/v1/modules/") + name + "/enable").status, 200);
  modules_.Edit("well", [](ModuleView& view) {
    view.health = {
        "healthy",
        {{"database", "healthy", 12.5, ""}, {"cache", "degraded", 3, "slow"}, {"api", "unhealthy", 0, "Connection timeout"}},
        WallTime(Millis(1000))};
  });
  EXPECT_EQ(Get("/api/v1/system/modules").json()["status"], "healthy");
  modules_.Edit("tired", [](ModuleView& view) { view.observed = ObservedState::kStarting; });
  EXPECT_EQ(Get("/api/v1/system/modules").json()["status"], "degraded");
  modules_.Edit("ill", [](ModuleView& view) {
    view.observed = ObservedState::kBackoff;
    view.health.status = "healthy";
  });
  const json system = Get("/api/v1/system/modules").json();
  EXPECT_THAT(Keys(system), UnorderedElementsAre("status", "modules", "checkedAt", "details"));
  EXPECT_EQ(system["status"], "unhealthy");
  EXPECT_THAT(Keys(system["modules"]), ElementsAre("ill", "tired", "well"));
  EXPECT_EQ(system["modules"]["ill"]["status"], "unhealthy");
  EXPECT_EQ(system["modules"]["tired"]["lastChecked"], nullptr);
  EXPECT_EQ(system["modules"]["well"]["details"]["database"], (json{{"status", "up"}, {"latency", 12.5}, {"message", ""}}));
  EXPECT_EQ(system["modules"]["well"]["details"]["cache"]["status"], "degraded");
  EXPECT_EQ(system["modules"]["well"]["details"]["api"],
            (json{{"status", "down"}, {"latency", 0}, {"message", "Connection timeout"}}));
  EXPECT_EQ(system["modules"]["well"]["lastChecked"], "1970-01-01T00:00:01.000Z");
}

class JobsApi : public AdminTest {};

TEST_F(JobsApi, ARunIs202WithItsPlaceOrWhenWaitedFor200WithItsResult) {
  Run("meter");
  const Reply queued = Post("/api/v1/modules/meter/jobs/collect/run", {{"payload", {{"n", 1}}}});
  ASSERT_EQ(queued.status, 202) << queued.body;
  EXPECT_EQ(queued.header("location"), "/api/v1/runs/run-1");
  EXPECT_THAT(Keys(queued.data()),
              UnorderedElementsAre("id", "module", "job", "status", "attempt", "trigger", "slot", "payload", "progress", "result",
                                   "error", "queuedAt", "startedAt", "finishedAt", "node", "worker", "priority", "notBefore",
                                   "cancelRequested", "maxAttempts", "artifacts"));
  const Reply waited =
      Post("/api/v1/modules/meter/jobs/collect/run?wait=10s", {{"payload", {{"n", 1}, {"list", {1, 2.5, nullptr}}}}});
  ASSERT_EQ(waited.status, 200) << waited.body;
  EXPECT_EQ(waited.data()["status"], "SUCCEEDED");
  EXPECT_EQ(waited.data()["result"].dump(), R"({"list":[1,2.5,null],"n":1})");
  EXPECT_EQ(waited.data()["progress"], (json{{"fraction", 1}, {"message", ""}}));
  EXPECT_EQ(waited.data()["error"], nullptr);
  jobs_.FailRuns(true);
  const Reply failed = Post("/api/v1/modules/meter/jobs/collect/run?wait=10s");
  EXPECT_EQ(failed.status, 200);
  EXPECT_EQ(failed.data()["payload"], nullptr);
  EXPECT_THAT(Keys(failed.data()["error"]), UnorderedElementsAre("code", "message", "stack"));
  jobs_.Hold(true);
  EXPECT_EQ(Post("/api/v1/modules/meter/jobs/collect/run?wait=20ms").status, 202);
  EXPECT_EQ(Get("/api/v1/runs/run-1").data()["id"], "run-1");
  const Reply runs = Get("/api/v1/modules/meter/jobs/collect/runs?pageSize=2");
  EXPECT_EQ(runs.data()[0]["id"], "run-4");
  EXPECT_EQ(runs.json()["meta"], (json{{"total", 4}, {"page", 1}, {"pageSize", 2}}));
  EXPECT_EQ(Get("/api/v1/modules/meter/jobs/collect/runs?status=FAILED").json()["meta"]["total"], 1);
}

TEST_F(JobsApi, ListsTheJobsOfTheManifest) {
  Run("meter");
  const json jobs = Get("/api/v1/modules/meter/jobs").data();
  ASSERT_EQ(jobs.size(), 2u);
  EXPECT_THAT(Keys(jobs[0]), UnorderedElementsAre("module", "name", "schedule", "timeZone", "timeoutMs", "retries", "overlap",
                                                  "active", "nextRunAt", "catchUp", "concurrency", "config", "description", "displayName",
                                                  "historyAgeMs", "historyCount"));
  EXPECT_EQ(jobs[0]["schedule"], "*/5 * * * *");
  EXPECT_EQ(jobs[0]["active"], true);
}

TEST_F(JobsApi, WhatIsNotThereIs404AndAModuleThatDoesNotRun409) {
  EXPECT_EQ(Post("/api/v1/modules/nobody/jobs/collect/run").code(), "MODULE_NOT_FOUND");
  EXPECT_EQ(Get("/api/v1/modules/nobody/jobs").code(), "MODULE_NOT_FOUND");
  EXPECT_EQ(Get("/api/v1/runs/nothing").code(), "RUN_NOT_FOUND");
  Register("off");
  EXPECT_EQ(Post("/api/v1/modules/off/jobs/collect/run").code(), "MODULE_NOT_RUNNING");
  EXPECT_EQ(Get("/api/v1/modules/off/jobs/nothing/runs").code(), "JOB_NOT_FOUND");
  EXPECT_EQ(Get("/api/v1/modules/off/jobs/collect/runs?status=HAPPY").status, 400);
  EXPECT_EQ(Post("/api/v1/modules/off/jobs/collect/run", {{"payload", std::string(300 * 1024, 'x')}}).status, 400);
}

class Stopping : public AdminTest {};

TEST_F(Stopping, EndsWhatWaitsWith503AndAnswersProbesOn) {
  Register("slow");
  modules_.HoldStarts(true);
  auto waiting = Begin(Request("POST", "/api/v1/modules/slow/enable"));
  while (Get("/api/v1/modules/slow").data()["observed"]["state"] != "STARTING") {
  }
  admin_->Stop(Millis(50));
  const Reply cut = waiting.get();
  EXPECT_EQ(cut.status, 503);
  EXPECT_EQ(cut.code(), "SHUTTING_DOWN");
  EXPECT_EQ(Get("/api/v1/modules").code(), "SHUTTING_DOWN");
  EXPECT_EQ(Get("/healthz").status, 200);
  modules_.HoldStarts(false);  // answers to nobody
}

TEST_F(Stopping, LetsWhatIsUnderWayEndWithinTheGrace) {
  Register("slow");
  modules_.HoldStarts(true);
  auto waiting = Begin(Request("POST", "/api/v1/modules/slow/enable"));
  while (Get("/api/v1/modules/slow").data()["observed"]["state"] != "STARTING") {
  }
  std::thread stop([&] { admin_->Stop(Millis(15'000)); });
  modules_.HoldStarts(false);
  EXPECT_EQ(waiting.get().status, 200);
  stop.join();
}

}  // namespace
}  // namespace bulkhead
