// Manifests: the example of old validates as it stands; everything wrong is found at once, with its place.
#include <fstream>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/status.h"
#include "supervisor/manifest/manifest.h"
#include "tests/unit/manifest/brief.h"

namespace bulkhead {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// "path CODE" of each.
json Minimal() { return {{"name", "order-intake"}, {"version", "1.2.3"}}; }

// Minimal() with a patch merged into it.
ManifestResult Read(const char* patch) {
  json manifest = Minimal();
  manifest.merge_patch(json::parse(patch));
  ManifestResult result = ParseManifestJson(manifest);
  for (const auto* list : {&result.errors, &result.warnings}) {
    for (const Finding& f : *list) {
      EXPECT_FALSE(f.code.empty());
      EXPECT_THAT(f.message, testing::AnyOf(testing::EndsWith("."), testing::EndsWith("?"))) << f.message;
    }
  }
  EXPECT_EQ(result.manifest.has_value(), result.errors.empty());
  return result;
}
std::vector<std::string> Errors(const char* patch) { return Brief(Read(patch).errors); }
std::vector<std::string> Warnings(const char* patch) {
  const ManifestResult result = Read(patch);
  EXPECT_THAT(Brief(result.errors), IsEmpty());
  return Brief(result.warnings);
}
Manifest Good(const char* patch) {
  ManifestResult result = Read(patch);
  EXPECT_THAT(Brief(result.errors), IsEmpty());
  return result.manifest.value_or(Manifest());
}
std::string FirstMessage(const char* patch) {
  const ManifestResult result = Read(patch);
  return result.errors.empty() ? "" : result.errors[0].message;
}

TEST(Manifest, TheExampleOfTheOlderSystemValidatesAsItStands) {
  std::ifstream file(BULKHEAD_TEST_FOLDER "/vmware_vcenter.json");
  std::stringstream text;
  text << file.rdbuf();
  const ManifestResult result = ParseManifest(text.str(), false);
  EXPECT_THAT(Brief(result.errors), IsEmpty());
  EXPECT_THAT(Brief(result.warnings), ElementsAre("/capabilities/ui NOT_APPLIED", "/dependencies/system/node NOT_APPLIED",
                                                  "/dependencies/npm NOT_APPLIED"));
  ASSERT_TRUE(result.manifest);
  const Manifest& m = *result.manifest;
  EXPECT_EQ(m.name, "vmware-vcenter");
  EXPECT_EQ(m.display_name, "VMware vCenter Module");
  EXPECT_EQ(m.license, "MIT");
  EXPECT_EQ(m.entry, "bin/vmware-vcenter");
  ASSERT_EQ(m.routes.size(), 2u);
  EXPECT_EQ(m.routes[1].method, "POST");
  EXPECT_EQ(m.routes[1].path, "/vms");
  EXPECT_THAT(m.routes[1].permissions, ElementsAre("vmware:write"));
  EXPECT_FALSE(m.routes[1].is_public);
  ASSERT_EQ(m.jobs.size(), 1u);
  EXPECT_EQ(m.jobs[0].schedule, "0 */6 * * *");
  EXPECT_EQ(m.jobs[0].timeout, Millis(300'000));
  EXPECT_EQ(m.jobs[0].retries, 3);
  EXPECT_EQ(m.jobs[0].time_zone, "UTC");
  ASSERT_EQ(m.dependencies.size(), 1u);
  EXPECT_EQ(m.dependencies[0].module, "core-auth");
  EXPECT_EQ(m.dependencies[0].range, "^1.0.0");
  EXPECT_EQ(m.config_schema.size(), 4u);
  EXPECT_EQ(m.config_defaults_json, R"({"syncInterval":6})");
  EXPECT_THAT(m.permissions, ElementsAre("vmware:read", "vmware:write", "vmware:delete"));
  EXPECT_THAT(m.tags, ElementsAre("vmware", "virtualization", "infrastructure"));
  EXPECT_FALSE(m.has_database);
  EXPECT_EQ(json::parse(m.json), json::parse(text.str()));
  EXPECT_FALSE(EffectiveConfig(m, "{}").errors.empty());  // three required fields
  EXPECT_TRUE(EffectiveConfig(m, R"({"vcenterHost":"h","vcenterUsername":"u","vcenterPassword":"p"})").errors.empty());
}

TEST(Manifest, NameAndVersionAreEnoughAndTheRestHasDefaults) {
  const Manifest m = Good("{}");
  EXPECT_EQ(m.display_name, "order-intake");
  EXPECT_EQ(m.entry, "bin/order-intake");
  EXPECT_EQ(m.workers, 1);
  EXPECT_EQ(m.transport, Transport::kLink);
  EXPECT_EQ(m.config_reload, ConfigReload::kPush);
  EXPECT_TRUE(m.critical == std::nullopt && !m.warm_spare);
  EXPECT_EQ(m.migrations_dir, "migrations");
  EXPECT_EQ(m.handshake_timeout, limits::kHandshakeTimeout);
  EXPECT_EQ(m.stop_timeout, limits::kStopTimeout);
  EXPECT_EQ(m.limit_memory, 0);
}

TEST(Manifest, EveryFieldIsTaken) {
  const Manifest m = Good(R"({
    "$schema": "https://x", "manifestVersion": 1, "entry": "libexec/run", "args": ["-v", "--x=1"], "workers": 4, "critical": false, "warmSpare": true,
    "featureFlag": "enable_orders", "transport": "http", "configReload": "restart", "permissions": ["orders:read"],
    "capabilities": {
      "api": {"openapi": "openapi.yaml", "routes": [
        {"method": "get", "path": "/", "public": true},
        {"method": "PUT", "path": "/orders/:orderId/lines/:line_id", "permissions": ["orders:read"], "timeout": 500, "bodyLimit": 0},
        {"method": "GET", "path": "/files/*"}]},
      "jobs": {"handlers": [{"name": "sweep", "schedule": "*/5 * * * *", "timeZone": "Europe/Berlin", "timeout": 1000, "retries": 2, "overlap": "replace",
                             "catchUp": "latest", "config": {"depth": 3}}, {"name": "by-hand", "schedule": null}]},
      "events": {"publishes": ["order.created"], "subscribes": ["order.*", "price.updated"]}},
    "dependencies": {"modules": {"pricing-engine": ">=1 <3"}, "system": {"bulkhead": "^0.1.0", "node": "whatever"}},
    "database": {"migrations": "sql/", "extensions": ["pg_trgm", "uuid-ossp"]},
    "health": {"interval": 2000, "timeout": 500, "readiness": {"failureThreshold": 5, "successThreshold": 2}, "liveness": {"interval": 9000}},
    "restart": {"policy": "on-failure", "burst": 100, "backoff": {"base": 200, "cap": 5000, "factor": 1.5},
      "quarantine": {"windows": 7, "span": 10000, "retry": 6000}},
    "lifecycle": {"handshakeTimeout": 1, "startTimeout": 2, "stopTimeout": 3, "drainTimeout": 4},
    "limits": {"memory": "512Mi", "cpu": "500m", "pids": 64, "storage": "2Gi", "files": 7}, "metadata": {"tags": ["a"]}})");
  EXPECT_EQ(m.entry, "libexec/run");
  EXPECT_THAT(m.args, ElementsAre("-v", "--x=1"));
  EXPECT_EQ(m.workers, 4);
  EXPECT_EQ(m.critical, false);
  EXPECT_TRUE(m.warm_spare);
  EXPECT_EQ(m.feature_flag, "enable_orders");
  EXPECT_EQ(m.transport, Transport::kHttp);
  EXPECT_EQ(m.config_reload, ConfigReload::kRestart);
  ASSERT_EQ(m.routes.size(), 3u);
  EXPECT_EQ(m.routes[0].method, "GET");
  EXPECT_TRUE(m.routes[0].is_public);
  EXPECT_EQ(m.routes[0].timeout, limits::kDefaultRouteTimeout);
  EXPECT_EQ(m.routes[1].timeout, Millis(500));
  EXPECT_EQ(m.routes[1].body_limit, 0);
  ASSERT_EQ(m.jobs.size(), 2u);
  EXPECT_EQ(m.jobs[0].overlap, Overlap::kReplace);
  EXPECT_EQ(m.jobs[0].catch_up, "latest");
  EXPECT_EQ(m.jobs[0].config_json, R"({"depth":3})");
  EXPECT_EQ(m.jobs[0].time_zone, "Europe/Berlin");
  EXPECT_EQ(m.jobs[1].schedule, "");
  EXPECT_EQ(m.jobs[1].timeout, limits::kDefaultJobTimeout);
  EXPECT_THAT(m.publishes, ElementsAre("order.created"));
  EXPECT_THAT(m.subscribes, ElementsAre("order.*", "price.updated"));
  EXPECT_EQ(m.bulkhead_range, "^0.1.0");
  EXPECT_TRUE(m.has_database);
  EXPECT_EQ(m.migrations_dir, "sql");
  EXPECT_THAT(m.extensions, ElementsAre("pg_trgm", "uuid-ossp"));
  EXPECT_EQ(m.health, (HealthPolicy{std::nullopt, {Millis(2000), Millis(500), 5, 2}, {Millis(9000), Millis(500), 3, 1}}));
  EXPECT_EQ(m.restart, (RestartPolicy{RestartWhen::kOnFailure, 100, limits::kRestartWindow, Millis(200), Millis(5000), 1.5, 7, Millis(10'000),
                                      Millis(6000), Millis(10'000)}));
  EXPECT_EQ(m.drain_timeout, Millis(4));
  EXPECT_EQ(m.limit_memory, 512 << 20);
  EXPECT_EQ(m.limit_cpu_millis, 500);
  EXPECT_EQ(m.limit_pids, 64);
  EXPECT_EQ(m.limit_storage, int64_t{2} << 30);
  EXPECT_EQ(m.limit_files, 7);
}

TEST(Manifest, NamesAreKebabCase) {
  for (const char* good : {R"({"name":"a"})", R"({"name":"a1-b2"})"}) EXPECT_THAT(Errors(good), IsEmpty());
  for (const char* bad : {R"({"name":""})", R"({"name":"Orders"})", R"({"name":"a_b"})", R"({"name":"1a"})", R"({"name":"-a"})",
                          R"({"name":"a-"})", R"({"name":"a--b"})", R"({"name":"a/b"})", R"({"name":"ä"})", R"({"name":".."})"}) {
    EXPECT_THAT(Errors(bad), Contains("/name INVALID_NAME")) << bad;
  }
  EXPECT_THAT(Errors(("{\"name\":\"" + std::string(63, 'a') + "\"}").c_str()), IsEmpty());
  EXPECT_THAT(Errors(("{\"name\":\"" + std::string(64, 'a') + "\"}").c_str()), ElementsAre("/name INVALID_NAME"));
}

TEST(Manifest, IdentityIsChecked) {
  EXPECT_THAT(Errors(R"({"name":null,"version":null})"), testing::UnorderedElementsAre("/name REQUIRED", "/version REQUIRED"));
  EXPECT_THAT(Errors(R"({"version":"1.0"})"), ElementsAre("/version INVALID_VERSION"));
  EXPECT_THAT(Errors(R"({"version":"v1.0.0"})"), ElementsAre("/version INVALID_VERSION"));
  EXPECT_THAT(Errors(R"({"version":1.0})"), ElementsAre("/version WRONG_TYPE"));
  EXPECT_THAT(FirstMessage(R"({"version":1.5})"), HasSubstr("Put it in quotes."));
  EXPECT_THAT(Errors(R"({"manifestVersion":2})"), ElementsAre("/manifestVersion MANIFEST_VERSION_UNSUPPORTED"));
  EXPECT_THAT(Errors(R"({"permissions":["has space", 5, "ok"]})"),
              testing::UnorderedElementsAre("/permissions/0 INVALID_PERMISSION", "/permissions/1 WRONG_TYPE"));
  EXPECT_THAT(Warnings(R"({"permissions":["a","a"]})"), ElementsAre("/permissions/1 DUPLICATE"));
  // What no token can hold, no manifest can ask for.
  EXPECT_THAT(Errors(R"({"permissions":["Orders:Write", "a/b", "a:*:b", "a::b", "orders:*", "a_1.b-c:d"]})"),
              testing::UnorderedElementsAre("/permissions/0 INVALID_PERMISSION", "/permissions/1 INVALID_PERMISSION",
                                            "/permissions/2 INVALID_PERMISSION", "/permissions/3 INVALID_PERMISSION"));
  EXPECT_THAT(Errors(R"({"description":"a\u0000b"})"), ElementsAre("/description INVALID_TEXT"));
}

TEST(Manifest, WhatIsNoObjectIsOneError) {
  EXPECT_THAT(Brief(ParseManifestJson(json::array()).errors), ElementsAre(" WRONG_TYPE"));
  EXPECT_THAT(Brief(ParseManifestJson(nullptr).errors), ElementsAre(" WRONG_TYPE"));
  EXPECT_THAT(Errors(R"({"capabilities":[],"config":"x","limits":5})"),
              testing::UnorderedElementsAre("/capabilities WRONG_TYPE", "/config WRONG_TYPE", "/limits WRONG_TYPE"));
}

TEST(Manifest, TheProcessIsChecked) {
  for (const char* bad : {R"({"entry":"/bin/sh"})", R"({"entry":"../x"})", R"({"entry":"bin/../../x"})", R"({"entry":""})",
                          R"({"entry":"bin//x"})", R"({"entry":"./x"})", R"({"entry":"a\\b"})"}) {
    EXPECT_THAT(Errors(bad), ElementsAre("/entry INVALID_PATH")) << bad;
  }
  EXPECT_THAT(Errors(R"({"workers":0})"), ElementsAre("/workers OUT_OF_RANGE"));
  EXPECT_THAT(Errors(R"({"workers":33})"), ElementsAre("/workers OUT_OF_RANGE"));
  EXPECT_THAT(Errors(R"({"workers":1.5})"), ElementsAre("/workers OUT_OF_RANGE"));
  EXPECT_THAT(Errors(R"({"workers":"2"})"), ElementsAre("/workers WRONG_TYPE"));
  EXPECT_THAT(Errors(R"({"transport":"carrier-pigeon"})"), ElementsAre("/transport INVALID_VALUE"));
  EXPECT_THAT(Errors(R"({"featureFlag":"a b"})"), ElementsAre("/featureFlag INVALID_NAME"));
  EXPECT_THAT(Errors(R"({"configReload":"maybe"})"), ElementsAre("/configReload INVALID_VALUE"));
  EXPECT_THAT(Errors(R"({"lifecycle":{"startTimeout":0,"stopTimeout":600001}})"),
              ElementsAre("/lifecycle/startTimeout OUT_OF_RANGE", "/lifecycle/stopTimeout OUT_OF_RANGE"));
  EXPECT_THAT(Errors(R"({"health":{"interval":1}})"), ElementsAre("/health/interval OUT_OF_RANGE"));
  EXPECT_THAT(Errors(R"({"health":{"startup":{"failureThreshold":0},"readiness":{"timeout":1},"liveness":{"interval":"1s"}}})"),
              testing::UnorderedElementsAre("/health/startup/failureThreshold OUT_OF_RANGE", "/health/readiness/timeout OUT_OF_RANGE",
                                            "/health/liveness/interval WRONG_TYPE"));
  EXPECT_THAT(Errors(R"({"database":{"migrations":"/etc"}})"), ElementsAre("/database/migrations INVALID_PATH"));
  EXPECT_THAT(Errors(R"({"database":{"extensions":["a;b"]}})"), ElementsAre("/database/extensions/0 INVALID_NAME"));
}

TEST(Manifest, ARestartPolicyStaysWithinTheSupervisorsCaps) {
  EXPECT_EQ(Good("{}").restart, RestartPolicy{});
  EXPECT_EQ(Good(R"({"restart":{}})").restart, RestartPolicy{});
  EXPECT_EQ(Good(R"({"restart":{"backoff":{"cap":2000}}})").restart.reset_after, Millis(4000)) << "twice the cap";
  EXPECT_EQ(Good(R"({"restart":{"backoff":{"base":90000}}})").restart.cap, Millis(90'000)) << "never less than the base";
  EXPECT_THAT(Errors(R"({"restart":{"policy":"sometimes"}})"), ElementsAre("/restart/policy INVALID_VALUE"));
  EXPECT_THAT(Errors(R"({"restart":{"burst":-1,"window":999,"resetAfter":1,"backoff":{"base":99,"factor":0.5},"quarantine":{"windows":0,"retry":10}}})"),
              testing::UnorderedElementsAre("/restart/burst OUT_OF_RANGE", "/restart/window OUT_OF_RANGE", "/restart/resetAfter OUT_OF_RANGE",
                                            "/restart/backoff/base OUT_OF_RANGE", "/restart/backoff/factor OUT_OF_RANGE",
                                            "/restart/quarantine/windows OUT_OF_RANGE", "/restart/quarantine/retry OUT_OF_RANGE"));
  EXPECT_THAT(Errors(R"({"restart":{"backoff":{"base":5000,"cap":1000}}})"), ElementsAre("/restart/backoff/cap INVALID_COMBINATION"));
  EXPECT_THAT(Errors(R"({"restart":{"quarantine":{"retry":1000}}})"), ElementsAre("/restart/quarantine/retry INVALID_COMBINATION"));
  EXPECT_EQ(Good(R"({"restart":{"backoff":{"cap":900000}}})").restart.quarantine_retry, Millis(900'000));
  // More than ten starts in a second for long are nobody's wish.
  EXPECT_THAT(Errors(R"({"restart":{"burst":1000}})"), ElementsAre("/restart/burst INVALID_COMBINATION"));
  EXPECT_THAT(Errors(R"({"restart":{"burst":20,"window":1999}})"), ElementsAre("/restart/window INVALID_COMBINATION"));
  EXPECT_EQ(Good(R"({"restart":{"burst":20,"window":2000}})").restart.burst, 20);
  EXPECT_THAT(Warnings(R"({"restart":{"bursts":1,"backoff":{"bas":1}}})"),
              testing::UnorderedElementsAre("/restart/bursts UNKNOWN_FIELD", "/restart/backoff/bas UNKNOWN_FIELD"));
}

TEST(Manifest, AStartUpProbeIsOnlyThereWhenItIsAskedFor) {
  EXPECT_EQ(Good("{}").health, HealthPolicy{});
  const HealthPolicy health = Good(R"({"health":{"timeout":700,"startup":{}}})").health;
  EXPECT_EQ(health.startup, (HealthProbe{limits::kStartupInterval, Millis(700), limits::kStartupFailures}));
  EXPECT_EQ(health.readiness, (HealthProbe{limits::kHealthInterval, Millis(700)}));
}

TEST(Manifest, QuantitiesAreNumbersOrTexts) {
  EXPECT_EQ(Good(R"({"limits":{"memory":1073741824}})").limit_memory, 1 << 30);
  EXPECT_EQ(Good(R"({"limits":{"memory":"256MB"}})").limit_memory, 256'000'000);
  EXPECT_EQ(Good(R"({"limits":{"memory":"1.5 GiB"}})").limit_memory, 3 << 29);
  EXPECT_EQ(Good(R"({"limits":{"memory":"4194304"}})").limit_memory, 4 << 20);
  EXPECT_EQ(Good(R"({"limits":{"cpu":0.5}})").limit_cpu_millis, 500);
  EXPECT_EQ(Good(R"({"limits":{"cpu":"2"}})").limit_cpu_millis, 2000);
  for (const char* bad : {R"({"limits":{"memory":"lots"}})", R"({"limits":{"memory":"12Zi"}})", R"({"limits":{"memory":-5}})",
                          R"({"limits":{"memory":"1k"}})", R"({"limits":{"memory":true}})", R"({"limits":{"memory":"1e9"}})",
                          R"({"limits":{"memory":1e300}})"}) {
    EXPECT_THAT(Errors(bad), ElementsAre("/limits/memory INVALID_QUANTITY")) << bad;
  }
  for (const char* bad :
       {R"({"limits":{"cpu":0}})", R"({"limits":{"cpu":"m"}})", R"({"limits":{"cpu":"1u"}})", R"({"limits":{"cpu":5000}})"}) {
    EXPECT_THAT(Errors(bad), ElementsAre("/limits/cpu INVALID_QUANTITY")) << bad;
  }
  EXPECT_THAT(Errors(R"({"limits":{"pids":0}})"), ElementsAre("/limits/pids OUT_OF_RANGE"));
  EXPECT_THAT(Errors(R"({"limits":{"storage":0,"files":0}})"), IsEmpty());
  for (const char* bad : {R"({"limits":{"storage":-1}})", R"({"limits":{"storage":"much"}})", R"({"limits":{"storage":17592186044417}})"}) {
    EXPECT_THAT(Errors(bad), ElementsAre("/limits/storage INVALID_QUANTITY")) << bad;
  }
  EXPECT_THAT(Errors(R"({"limits":{"files":100001}})"), ElementsAre("/limits/files OUT_OF_RANGE"));
}

// One route, or several.
std::vector<std::string> RouteErrors(const std::string& routes) {
  std::vector<std::string> brief =
      Errors((R"({"permissions":["a:read"],"capabilities":{"api":{"routes":[)" + routes + "]}}}").c_str());
  for (std::string& line : brief) line = line.substr(std::string("/capabilities/api/routes/").size());
  return brief;
}

TEST(Manifest, RoutesAreChecked) {
  EXPECT_THAT(RouteErrors(R"({"method":"GET"},{"path":"/a"},7)"),
              ElementsAre("0/path REQUIRED", "1/method REQUIRED", "2 WRONG_TYPE"));
  EXPECT_THAT(RouteErrors(R"({"method":"FETCH","path":"/a"})"), ElementsAre("0/method INVALID_METHOD"));
  for (const char* bad : {"", "a", "//", "/a/", "/a//b", "/a b", "/*/a", "/a/*x", "/:", "/:1a", "/:a/:a", "/a?b", "/a#b", "/..",
                          "/a/../b", "/.", "/a%2fb", "/ä", "/{id}"}) {
    EXPECT_THAT(RouteErrors(std::string(R"({"method":"GET","path":")") + bad + "\"}"), ElementsAre("0/path INVALID_ROUTE_PATH"))
        << bad;
  }
  for (const char* good : {"/", "/a", "/a/:b", "/*", "/a/*", "/a.b/c-d/~e", "/:a/:b/*"}) {
    EXPECT_THAT(RouteErrors(std::string(R"({"method":"GET","path":")") + good + "\"}"), IsEmpty()) << good;
  }
  EXPECT_THAT(RouteErrors(R"({"method":"GET","path":"/a","permissions":["a:raed"]})"),
              ElementsAre("0/permissions/0 UNDECLARED_PERMISSION"));
  EXPECT_THAT(RouteErrors(R"({"method":"GET","path":"/a","permissions":["a:read"],"public":true})"),
              ElementsAre("0/public PUBLIC_WITH_PERMISSIONS"));
  EXPECT_THAT(RouteErrors(R"({"method":"GET","path":"/a","timeout":0,"bodyLimit":-1})"),
              ElementsAre("0/timeout OUT_OF_RANGE", "0/bodyLimit OUT_OF_RANGE"));
  EXPECT_THAT(RouteErrors(R"({"method":"GET","path":"/a","timeout":3600001,"bodyLimit":1073741825})"),
              ElementsAre("0/timeout OUT_OF_RANGE", "0/bodyLimit OUT_OF_RANGE"));
}

std::vector<std::string> Pair(const std::string& a, const std::string& b, const char* method = "GET") {
  return RouteErrors(R"({"method":"GET","path":")" + a + R"("},{"method":")" + method + R"(","path":")" + b + "\"}");
}

TEST(Manifest, NoTwoRoutesClaimTheSameRequest) {
  EXPECT_THAT(Pair("/a", "/a"), ElementsAre("1 DUPLICATE_ROUTE"));
  EXPECT_THAT(Pair("/a/:id", "/a/:name"), ElementsAre("1 DUPLICATE_ROUTE"));
  EXPECT_THAT(Pair("/a/*", "/a/*"), ElementsAre("1 DUPLICATE_ROUTE"));
  EXPECT_THAT(Pair("/a", "/a", "get"), ElementsAre("1 DUPLICATE_ROUTE"));
  EXPECT_THAT(Pair("/a/:x", "/:y/b"), ElementsAre("1 ROUTE_CONFLICT"));
  EXPECT_THAT(Pair("/a/:x/*", "/:y/b/*"), ElementsAre("1 ROUTE_CONFLICT"));
  EXPECT_THAT(Pair("/a", "/a", "POST"), IsEmpty());
  EXPECT_THAT(Pair("/a/:id", "/a/new"), IsEmpty());  // the literal is the more specific
  EXPECT_THAT(Pair("/a/*", "/a/:id"), IsEmpty());
  EXPECT_THAT(Pair("/a/:x", "/:y/:z"), IsEmpty());
  EXPECT_THAT(Pair("/a/:x/c", "/:y/b/d"), IsEmpty());  // no request fits both
  EXPECT_THAT(Pair("/a/:x", "/a/:x/b"), IsEmpty());
}

std::vector<std::string> JobErrors(const std::string& jobs) {
  std::vector<std::string> brief = Errors((R"({"capabilities":{"jobs":{"handlers":[)" + jobs + "]}}}").c_str());
  for (std::string& line : brief) line = line.substr(std::string("/capabilities/jobs/handlers/").size());
  return brief;
}

TEST(Manifest, JobsAreChecked) {
  EXPECT_THAT(JobErrors(R"({},{"name":"Sync"},{"name":"a"},{"name":"a"})"),
              ElementsAre("0/name REQUIRED", "1/name INVALID_NAME", "3/name DUPLICATE"));
  EXPECT_THAT(JobErrors(R"({"name":"a","schedule":"every day"})"), ElementsAre("0/schedule CRON_INVALID"));
  EXPECT_THAT(JobErrors(R"({"name":"a","schedule":"0 0 30 2 *"})"), ElementsAre("0/schedule CRON_INVALID"));
  EXPECT_THAT(JobErrors(R"({"name":"a","schedule":""})"), ElementsAre("0/schedule CRON_INVALID"));
  EXPECT_THAT(JobErrors(R"({"name":"a","schedule":5})"), ElementsAre("0/schedule WRONG_TYPE"));
  EXPECT_THAT(JobErrors(R"({"name":"a","timeZone":"Mars/Olympus"})"), ElementsAre("0/timeZone TIME_ZONE_UNKNOWN"));
  EXPECT_THAT(JobErrors(R"({"name":"a","timeout":0,"retries":-1})"),
              ElementsAre("0/timeout OUT_OF_RANGE", "0/retries OUT_OF_RANGE"));
  EXPECT_THAT(JobErrors(R"({"name":"a","overlap":"sometimes","catchUp":"all"})"),
              ElementsAre("0/overlap INVALID_VALUE", "0/catchUp INVALID_VALUE"));
  EXPECT_THAT(JobErrors(R"({"name":"a","config":[]})"), ElementsAre("0/config WRONG_TYPE"));
}

TEST(Manifest, EventsAreEntityAndAction) {
  EXPECT_THAT(
      Errors(
          R"({"capabilities":{"events":{"publishes":["created","order.*","a..b","a.b c",".a","a."],"subscribes":["*","*.created","a.*.b","order.*"]}}})"),
      ElementsAre("/capabilities/events/publishes/0 INVALID_TOPIC", "/capabilities/events/publishes/1 INVALID_TOPIC",
                  "/capabilities/events/publishes/2 INVALID_TOPIC", "/capabilities/events/publishes/3 INVALID_TOPIC",
                  "/capabilities/events/publishes/4 INVALID_TOPIC", "/capabilities/events/publishes/5 INVALID_TOPIC",
                  "/capabilities/events/subscribes/0 INVALID_TOPIC", "/capabilities/events/subscribes/1 INVALID_TOPIC",
                  "/capabilities/events/subscribes/2 INVALID_TOPIC"));
  EXPECT_THAT(Warnings(R"({"capabilities":{"events":{"publishes":["a.b","a.b"]}}})"),
              ElementsAre("/capabilities/events/publishes/1 DUPLICATE"));
}

TEST(Manifest, ClientsAreNamesOrSayThatTheyAreOptional) {
  const Manifest manifest = Good(R"({"capabilities": {"clients": ["woocommerce", {"name": "billing", "optional": true}, {"name": "crm"}]}})");
  EXPECT_EQ(manifest.clients, (std::vector<ClientUse>{{"woocommerce", false}, {"billing", true}, {"crm", false}}));
  EXPECT_TRUE(Good("{}").clients.empty());
  EXPECT_THAT(Errors(R"({"capabilities": {"clients": ["Shop", 7, {"optional": true}, {"name": "a"}, "a", {"name": "b", "optional": 1}]}})"),
              testing::UnorderedElementsAre("/capabilities/clients/0 INVALID_NAME", "/capabilities/clients/1 WRONG_TYPE",
                                            "/capabilities/clients/2/name REQUIRED",
                                            "/capabilities/clients/4 DUPLICATE", "/capabilities/clients/5/optional WRONG_TYPE"));
  EXPECT_THAT(Warnings(R"({"capabilities": {"clients": [{"name": "a", "optinal": true}]}})"), ElementsAre("/capabilities/clients/0/optinal UNKNOWN_FIELD"));
  std::string many = "\"a0\"";
  for (int i = 1; i < 33; ++i) many += ", \"a" + std::to_string(i) + "\"";
  EXPECT_THAT(Errors((R"({"capabilities": {"clients": [)" + many + "]}}").c_str()), ElementsAre("/capabilities/clients TOO_MANY"));
}

TEST(Manifest, DependenciesAreRanges) {
  EXPECT_THAT(
      Errors(
          R"({"dependencies":{"modules":{"a":"latest","B":"1","order-intake":"*","c":1,"d":""},"system":{"bulkhead":"nope"}}})"),
      testing::UnorderedElementsAre("/dependencies/modules/a INVALID_RANGE", "/dependencies/modules/B INVALID_NAME",
                                    "/dependencies/modules/order-intake SELF_DEPENDENCY", "/dependencies/modules/c WRONG_TYPE",
                                    "/dependencies/system/bulkhead INVALID_RANGE"));
}

TEST(Manifest, ARangeThatNoVersionIsWithinIsSaid) {
  EXPECT_THAT(
      Errors(
          R"({"dependencies":{"modules":{"a":">2 <1","b":">=1.0.0 <1.0.0","c":"1.2.3 2.3.4","d":">2 <1 || 3","e":"<0.0.0-0","f":">1.2.2 <1.2.3-beta"},
                          "system":{"bulkhead":"<0.1 >=0.2"}}})"),
      testing::UnorderedElementsAre("/dependencies/modules/a UNSATISFIABLE_RANGE", "/dependencies/modules/b UNSATISFIABLE_RANGE",
                                    "/dependencies/modules/c UNSATISFIABLE_RANGE", "/dependencies/modules/e UNSATISFIABLE_RANGE",
                                    "/dependencies/system/bulkhead UNSATISFIABLE_RANGE"));
}

TEST(Manifest, WhatTheModulesOwnBuildNeedsIsNotedAndRefusesNothing) {
  EXPECT_THAT(Warnings(R"({"dependencies":{"npm":{"left-pad":"nonsense"},"system":{"node":"nonsense","bulkhaed":"*"}}})"),
              testing::UnorderedElementsAre("/dependencies/npm NOT_APPLIED", "/dependencies/system/node NOT_APPLIED",
                                            "/dependencies/system/bulkhaed UNKNOWN_FIELD"));
  EXPECT_THAT(Warnings(R"({"dependencies":{"npm":["left-pad"],"system":{"node":20}}})"),
              testing::UnorderedElementsAre("/dependencies/npm NOT_APPLIED", "/dependencies/system/node NOT_APPLIED"));
}

TEST(Manifest, MissedTicksMayAllBeWanted) {
  for (const char* all : {R"("all:25")", R"({"all":25})"}) {
    const std::string patch = R"({"capabilities":{"jobs":{"handlers":[{"name":"a","catchUp":)" + std::string(all) + "}]}}}";
    const Manifest m = Good(patch.c_str());
    EXPECT_EQ(m.jobs[0].catch_up, "all");
    EXPECT_EQ(m.jobs[0].catch_up_most, 25);
    EXPECT_THAT(Warnings(patch.c_str()), testing::IsEmpty());
  }
  for (const char* bad :
       {R"("all:0")", R"("all:1001")", R"("all:")", R"("all:-1")", R"("all:1e2")", R"("all: 5")", R"("all:05")", R"("All:5")"}) {
    EXPECT_THAT(JobErrors(R"({"name":"a","catchUp":)" + std::string(bad) + "}"), ElementsAre("0/catchUp INVALID_VALUE")) << bad;
  }
  EXPECT_THAT(JobErrors(R"({"name":"a","catchUp":{"all":0}},{"name":"b","catchUp":{}},{"name":"c","catchUp":5})"),
              ElementsAre("0/catchUp/all OUT_OF_RANGE", "1/catchUp/all REQUIRED", "2/catchUp WRONG_TYPE"));
}

TEST(Manifest, PagesHaveAPathEachAndFilesOfTheirOwnFolder) {
  EXPECT_THAT(
      Errors(R"({"capabilities":{"ui":{"pages":[{"path":"/a"},{"path":"/a"},{"path":"/b/:id","component":"pages/B.tsx"}],
                         "navigation":[{"path":"/a"},{"path":"/a"},{"path":"/c","children":[{"path":"d","permissions":["x:y"]}]}]}}})"),
      ElementsAre("/capabilities/ui/pages/1/path DUPLICATE", "/capabilities/ui/navigation/2/children/0/path INVALID_ROUTE_PATH",
                  "/capabilities/ui/navigation/2/children/0/permissions/0 UNDECLARED_PERMISSION"));
}

TEST(Manifest, UnknownFieldsAreFoundAtEveryLevel) {
  EXPECT_THAT(
      Warnings(R"({"metadata":{"homepag":"x"},"lifecycle":{"stopTimout":1},"limits":{"pid":1},"database":{"migration":"m"},
                           "config":{"schema":{"a":{"type":"select","lable":"A","options":[{"value":1,"labl":"x"}],"validation":{"mim":1}}}},
                           "capabilities":{"jobs":{"handlers":[{"name":"a","schedul":"x"}]},"ui":{"pages":[{"path":"/a","titel":"x"}]}}})"),
      testing::UnorderedElementsAre("/metadata/homepag UNKNOWN_FIELD", "/lifecycle/stopTimout UNKNOWN_FIELD",
                                    "/limits/pid UNKNOWN_FIELD", "/database/migration UNKNOWN_FIELD",
                                    "/config/schema/a/lable UNKNOWN_FIELD", "/config/schema/a/options/0/labl UNKNOWN_FIELD",
                                    "/config/schema/a/validation/mim UNKNOWN_FIELD",
                                    "/capabilities/jobs/handlers/0/schedul UNKNOWN_FIELD",
                                    "/capabilities/ui/pages/0/titel UNKNOWN_FIELD", "/capabilities/ui NOT_APPLIED"));
}

TEST(Manifest, LabelsOfOlderSystemsAreTexts) {
  EXPECT_THAT(RouteErrors(R"({"method":"GET","path":"/a","handler":"../handlers/a.ts"})"), IsEmpty());  // a label, no path
  EXPECT_THAT(RouteErrors(R"({"method":"GET","path":"/a","handler":5,"summary":{},"tags":"x"})"),
              ElementsAre("0/handler WRONG_TYPE", "0/summary WRONG_TYPE", "0/tags WRONG_TYPE"));
}

TEST(Manifest, ReadingItsOwnDocumentAgainGivesTheSame) {
  std::ifstream file(BULKHEAD_TEST_FOLDER "/../../interface/manifest_full.json");
  std::stringstream text;
  text << file.rdbuf();
  const ManifestResult once = ParseManifest(text.str(), false);
  ASSERT_TRUE(once.manifest);
  const ManifestResult again = ParseManifest(once.manifest->json, false);
  ASSERT_TRUE(again.manifest);
  EXPECT_EQ(*again.manifest, *once.manifest);
}

TEST(Manifest, PagesUseDeclaredPermissions) {
  EXPECT_THAT(Errors(R"({"capabilities":{"ui":{"pages":[{"path":"orders","permissions":["x:y"]},{"component":"a.tsx"}]}}})"),
              testing::UnorderedElementsAre("/capabilities/ui/pages/0/path INVALID_ROUTE_PATH",
                                            "/capabilities/ui/pages/0/permissions/0 UNDECLARED_PERMISSION",
                                            "/capabilities/ui/pages/1/path REQUIRED"));
}

TEST(Manifest, UnknownFieldsAreWarningsWithTheNearestKnownName) {
  const ManifestResult result = Read(
      R"({"verison":"2","capabilites":{},"capabilities":{"api":{"routes":[{"method":"GET","path":"/a","permission":[]}]}}})");
  EXPECT_THAT(Brief(result.errors), IsEmpty());
  EXPECT_THAT(Brief(result.warnings), testing::UnorderedElementsAre("/verison UNKNOWN_FIELD", "/capabilites UNKNOWN_FIELD",
                                                                    "/capabilities/api/routes/0/permission UNKNOWN_FIELD"));
  for (const Finding& f : result.warnings) EXPECT_THAT(f.message, HasSubstr("Did you mean")) << f.message;
  EXPECT_THAT(Brief(Read(R"({"zzzzzzzz":1})").warnings), ElementsAre("/zzzzzzzz UNKNOWN_FIELD"));
}

TEST(Manifest, TheVersionsOfTheSupervisorThatAModuleWorksWithAreKept) {
  auto check = [](const std::string& range) {
    const std::string patch = R"({"dependencies":{"system":{"bulkhead":")" + range + R"("}}})";
    return CheckBulkheadRange(Good(patch.c_str()));
  };
  EXPECT_TRUE(check("").ok());
  EXPECT_TRUE(check(">=0.1.0").ok());
  EXPECT_TRUE(CheckBulkheadRange(Good("{}")).ok());
  const absl::Status refused = check(">=99");
  EXPECT_EQ(ErrorCode(refused), "DEPENDENCY_UNSATISFIED");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("needs bulkhead >=99, this is "));
  EXPECT_EQ(ErrorDetails(refused).at(0).path, "/dependencies/system/bulkhead");
}

TEST(Manifest, FieldsThatThisVersionDoesNotApplyAreSaid) {
  EXPECT_THAT(Warnings(R"({"capabilities":{"api":{"openapi":"openapi.yaml"},"ui":{"pages":[]},
                           "events":{"publishes":["order.created"],"subscribes":[]}}})"),
              testing::UnorderedElementsAre("/capabilities/api/openapi NOT_APPLIED", "/capabilities/ui NOT_APPLIED"));
}

TEST(Manifest, WhatAModuleMayReachIsRead) {
  const Manifest plain = Good(R"({})");
  EXPECT_THAT(plain.access_files, IsEmpty());
  EXPECT_EQ(plain.network, std::nullopt);
  EXPECT_FALSE(plain.strict_isolation);
  const Manifest full = Good(R"({"access":{"files":["/opt/a",{"path":"/opt/b","mode":"write"},{"path":"/opt/c"},{"path":"/opt/a","mode":"write"}],
                                           "network":{"ports":[443,5432,443]}},"isolation":"strict"})");
  EXPECT_EQ(full.access_files, (std::vector<FileAccess>{{"/opt/a", true}, {"/opt/b", true}, {"/opt/c", false}}));
  EXPECT_EQ(full.network, NetworkAccess::kPorts);
  EXPECT_THAT(full.network_ports, ElementsAre(443, 5432));
  EXPECT_TRUE(full.strict_isolation);
  for (auto [text, access] : {std::pair{"none", NetworkAccess::kNone}, {"loopback", NetworkAccess::kLoopback}, {"outbound", NetworkAccess::kOutbound}})
    EXPECT_EQ(Good((R"({"access":{"network":")" + std::string(text) + "\"}}").c_str()).network, access);
  const Manifest beside = Good(R"({"access":{"network":"ports","ports":[]},"isolation":{"mode":"strict"}})");
  EXPECT_EQ(beside.network, NetworkAccess::kPorts);
  EXPECT_THAT(beside.network_ports, IsEmpty());
  EXPECT_TRUE(beside.strict_isolation);
  EXPECT_FALSE(Good(R"({"isolation":{}})").strict_isolation);
  EXPECT_FALSE(Good(R"({"isolation":"available"})").strict_isolation);
  EXPECT_THAT(Warnings(R"({"access":{"files":["/a","/a"],"network":{"ports":[1,1]}}})"),
              testing::UnorderedElementsAre("/access/files/1 DUPLICATE", "/access/network/ports/1 DUPLICATE"));
}

TEST(Manifest, WhatIsWrongInAccessAndIsolationHasItsPathAndCode) {
  for (const char* path : {"", "/", "opt", "/opt/", "/opt//a", "/opt/../etc", "/opt/.", "/opt/a\\u0007"})
    EXPECT_THAT(Errors((R"({"access":{"files":[")" + std::string(path) + "\"]}}").c_str()), ElementsAre("/access/files/0 INVALID_PATH")) << path;
  EXPECT_THAT(Errors(R"({"access":{"files":[{"mode":"read"}]}})"), ElementsAre("/access/files/0/path REQUIRED"));
  EXPECT_THAT(Errors(R"({"access":{"files":[{"path":"/a","mode":"append"}]}})"), ElementsAre("/access/files/0/mode INVALID_VALUE"));
  EXPECT_THAT(Errors(R"({"access":{"files":[5]}})"), ElementsAre("/access/files/0 WRONG_TYPE"));
  EXPECT_THAT(Errors(R"({"access":{"network":"everything"}})"), ElementsAre("/access/network INVALID_VALUE"));
  EXPECT_THAT(Errors(R"({"access":{"network":7}})"), ElementsAre("/access/network WRONG_TYPE"));
  EXPECT_THAT(Errors(R"({"access":{"network":"ports"}})"), ElementsAre("/access/ports REQUIRED"));
  EXPECT_THAT(Errors(R"({"access":{"network":{}}})"), ElementsAre("/access/network/ports REQUIRED"));
  EXPECT_THAT(Errors(R"({"access":{"network":{"mode":"all"}}})"), ElementsAre("/access/network/mode INVALID_VALUE"));
  EXPECT_THAT(Errors(R"({"access":{"network":"none","ports":[1]}})"), ElementsAre("/access/ports INVALID_VALUE"));
  EXPECT_THAT(Errors(R"({"access":{"ports":[1]}})"), ElementsAre("/access/ports INVALID_VALUE"));
  EXPECT_THAT(Errors(R"({"access":{"network":{"ports":[1]},"ports":[2]}})"), ElementsAre("/access/ports INVALID_VALUE"));
  EXPECT_THAT(Errors(R"({"access":{"network":{"ports":[0,65536,1.5]}}})"),
              ElementsAre("/access/network/ports/0 OUT_OF_RANGE", "/access/network/ports/1 OUT_OF_RANGE", "/access/network/ports/2 OUT_OF_RANGE"));
  EXPECT_THAT(Errors(R"({"access":{"network":{"ports":["http"]}}})"), ElementsAre("/access/network/ports/0 WRONG_TYPE"));
  EXPECT_THAT(Errors(R"({"isolation":"paranoid"})"), ElementsAre("/isolation INVALID_VALUE"));
  EXPECT_THAT(Errors(R"({"isolation":{"mode":"paranoid"}})"), ElementsAre("/isolation/mode INVALID_VALUE"));
  EXPECT_THAT(Errors(R"({"isolation":3})"), ElementsAre("/isolation WRONG_TYPE"));
}

TEST(FeatureFlags, VariablesAreUpperCasedWithUnderscores) {
  EXPECT_EQ(FeatureFlagVariable("enable_shipping"), "FEATURE_FLAG_ENABLE_SHIPPING");
  EXPECT_EQ(FeatureFlagVariable("new-pricing.v2"), "FEATURE_FLAG_NEW_PRICING_V2");
}

}  // namespace
}  // namespace bulkhead
