// Flags over variables over the file over the defaults; every mistake with its place.
#include "supervisor/config.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/base/duration.h"
#include "supervisor/base/status.h"
#include "supervisor/manifest/manifest.h"

namespace bulkhead {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class ConfigTest : public testing::Test {
 protected:
  ConfigTest() {
    char name[] = "/tmp/bulkhead-config-XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~ConfigTest() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& text) { std::ofstream(folder_ + "/b.yaml") << text; }
  absl::StatusOr<CommandLine> Parse(std::vector<const char*> arguments, bool is_root = false) {
    arguments.insert(arguments.begin(), "bulkhead");
    return ParseCommandLine(static_cast<int>(arguments.size()), arguments.data(), environment_, is_root, folder_);
  }
  Config Good(std::vector<const char*> arguments, bool is_root = false) {
    auto line = Parse(std::move(arguments), is_root);
    EXPECT_TRUE(line.ok()) << line.status();
    if (!line.ok()) return {};
    EXPECT_EQ(line->command, Command::kServe);
    return line->config;
  }
  // All that is wrong, one line per mistake.
  std::string Bad(std::vector<const char*> arguments) {
    auto line = Parse(std::move(arguments));
    if (line.ok()) return "nothing wrong";
    EXPECT_EQ(ErrorCode(line.status()), "CONFIG_INVALID");
    const auto details = ErrorDetails(line.status());
    if (details.size() < 2) return std::string(line.status().message());
    std::string all;
    for (const ErrorDetail& detail : details) all += detail.path + ": " + detail.message + "\n";
    return all;
  }
  std::string BadFile(const std::string& text) {
    Write(text);
    return Bad({"serve", "--config", "b.yaml"});
  }

  std::string folder_;
  std::map<std::string, std::string> environment_;
};

TEST_F(ConfigTest, WithoutAnythingTheDefaultsHold) {
  const Config config = Good({"serve"});
  EXPECT_EQ(config.listen, "127.0.0.1:4000");
  EXPECT_EQ(config.admin_listen, "127.0.0.1:4001");
  EXPECT_EQ(config.data, folder_ + "/.bulkhead");
  EXPECT_EQ(config.modules_dir, folder_ + "/build/modules");
  EXPECT_EQ(config.store_url, "");
  EXPECT_THAT(config.store_extensions, ElementsAre("pg_trgm", "pgcrypto", "citext", "uuid-ossp", "btree_gin", "btree_gist", "timescaledb"));
  EXPECT_EQ(config.config_file, "");
  EXPECT_TRUE(config.critical_failure_exits);
  EXPECT_FALSE(config.discovery_development);
  EXPECT_EQ(config.environment, "production");
  EXPECT_THAT(config.warnings, testing::IsEmpty());
}

TEST_F(ConfigTest, TelemetryIsOffAndSet) {
  Config config = Good({"serve"});
  EXPECT_EQ(config.access_log, AccessLogging::kErrors);
  EXPECT_EQ(config.otlp.endpoint, "");
  EXPECT_EQ(config.otlp.sample_ratio, 1);
  Write(R"(
log: {access: all}
telemetry:
  otlp:
    endpoint: https://collector.example.org:4318
    headers: ["authorization=Bearer a=b", "x-tenant = blue"]
    sampleRatio: 0.25
)");
  config = Good({"serve", "--config", "b.yaml"});
  EXPECT_EQ(config.access_log, AccessLogging::kAll);
  EXPECT_EQ(config.otlp.endpoint, "https://collector.example.org:4318");
  EXPECT_THAT(config.otlp.headers, ElementsAre(std::pair("authorization", "Bearer a=b"), std::pair("x-tenant", "blue")));
  EXPECT_EQ(config.otlp.sample_ratio, 0.25);
  environment_ = {{"BULKHEAD_OTLP_HEADERS", "x-tenant=red"}, {"BULKHEAD_LOG_ACCESS", "off"}};
  config = Good({"serve", "--config", "b.yaml", "--otlp-sample-ratio", "0"});
  EXPECT_EQ(config.access_log, AccessLogging::kOff);
  EXPECT_THAT(config.otlp.headers, ElementsAre(std::pair("x-tenant", "red")));
  EXPECT_EQ(config.otlp.sample_ratio, 0);
}

TEST_F(ConfigTest, WrongTelemetryIsNamedAndNoSecretRepeated) {
  EXPECT_THAT(BadFile("telemetry:\n  otlp:\n    sampleratio: 1\n"),
              HasSubstr("b.yaml:3: telemetry.otlp.sampleratio: There is no such key. Did you mean \"sampleRatio\"?"));
  EXPECT_THAT(BadFile("telemetry: {otpl: {}}\n"), HasSubstr("Did you mean \"otlp\"?"));
  EXPECT_THAT(BadFile("telemetry: {otlp: 5}\n"), HasSubstr("telemetry.otlp: This must be a mapping of keys and values."));
  EXPECT_EQ(BadFile("telemetry: {otlp: }\n"), "nothing wrong");
  for (const char* ratio : {"-0.1", "1.1", "nan", "half", ""}) {
    EXPECT_THAT(BadFile(std::string("telemetry: {otlp: {sampleRatio: \"") + ratio + "\"}}\n"), HasSubstr("is no number from 0 to 1.")) << ratio;
  }
  for (const char* endpoint : {"127.0.0.1:4318", "grpc://h:4317", "http://", "http:///x", "http://user:geheim@h", "http://h/?token=geheim", "http://a b"}) {
    const std::string told = BadFile(std::string("telemetry: {otlp: {endpoint: \"") + endpoint + "\"}}\n");
    EXPECT_THAT(told, HasSubstr("The collector must be given as")) << endpoint;
    EXPECT_THAT(told, testing::Not(HasSubstr("geheim")));
  }
  for (const char* headers : {"geheim", "a b=geheim", "x=", "=geheim", "ok=1,geheim"}) {
    const std::string told = BadFile(std::string("telemetry: {otlp: {headers: \"") + headers + "\"}}\n");
    EXPECT_THAT(told, HasSubstr("is no NAME=VALUE.")) << headers;
    EXPECT_THAT(told, testing::Not(HasSubstr("geheim")));
  }
  std::string many;
  for (size_t i = 0; i <= limits::kMaxOtlpHeaders; ++i) many += "h" + std::to_string(i) + "=1,";
  EXPECT_THAT(BadFile("telemetry: {otlp: {headers: \"" + many + "\"}}\n"), HasSubstr("At most 16 headers"));
  EXPECT_THAT(BadFile("log: {access: some}\n"), HasSubstr("\"some\" is none of off, errors, all."));
}

TEST_F(ConfigTest, RootKeepsItsDataInVarLib) { EXPECT_EQ(Good({"serve"}, true).data, "/var/lib/bulkhead"); }

TEST_F(ConfigTest, EveryKeyOfTheFileIsTaken) {
  Write(R"(
listen: "[::1]:8080"
adminListen: 0.0.0.0:0
data: state/
modulesDir: /opt/modules
store: {url: postgresql://u:p@h/db}
log:
  level: debug
  format: json
discovery:
  development: true
boot:
  onCriticalFailure: degraded
isolation:
  uids: 100000-165535
flags:
  new-pricing: true
  old: off
clients:
  billing: {baseUrl: http://x}
modules:
  orders:
    enabled: true
    config: {limit: 5, tags: [a, b]}
  idle:
)");
  const Config config = Good({"serve", "--config", "b.yaml"});
  EXPECT_EQ(config.config_file, folder_ + "/b.yaml");
  EXPECT_EQ(config.listen, "[::1]:8080");
  EXPECT_EQ(config.admin_listen, "0.0.0.0:0");
  EXPECT_EQ(config.data, folder_ + "/state");
  EXPECT_EQ(config.modules_dir, "/opt/modules");
  EXPECT_EQ(config.store_url, "postgresql://u:p@h/db");
  EXPECT_EQ(config.log_level, LogLevel::kDebug);
  EXPECT_EQ(config.log_format, LogFormat::kJson);
  EXPECT_TRUE(config.discovery_development);
  EXPECT_EQ(config.environment, "development");
  EXPECT_FALSE(config.critical_failure_exits);
  EXPECT_EQ(config.first_uid, 100000u);
  EXPECT_EQ(config.last_uid, 165535u);
  EXPECT_THAT(config.flags, ElementsAre(std::pair("new-pricing", true), std::pair("old", false)));
  ASSERT_EQ(config.modules.size(), 2u);
  EXPECT_TRUE(config.modules.at("orders").enabled);
  EXPECT_EQ(config.modules.at("orders").config_json, R"({"limit":5,"tags":["a","b"]})");
  EXPECT_FALSE(config.modules.at("idle").enabled);
  EXPECT_EQ(config.modules.at("idle").config_json, "{}");
}

TEST_F(ConfigTest, OptionsGoBeforeVariablesBeforeTheFile) {
  Write("listen: 127.0.0.1:1\nadminListen: 127.0.0.1:2\ndata: /from/file\n");
  environment_ = {{"BULKHEAD_ADMIN_LISTEN", "127.0.0.1:3"}, {"BULKHEAD_DATA", "/from/variable"}, {"BULKHEAD_CONFIG", "b.yaml"}};
  const Config config = Good({"serve", "--data", "/from/option"});
  EXPECT_EQ(config.listen, "127.0.0.1:1");
  EXPECT_EQ(config.admin_listen, "127.0.0.1:3");
  EXPECT_EQ(config.data, "/from/option");
}

TEST_F(ConfigTest, AllVariablesAreRead) {
  environment_ = {{"BULKHEAD_LISTEN", "h:1"},
                  {"BULKHEAD_MODULES", "m"},
                  {"BULKHEAD_STORE_URL", "host=/x dbname=y"},
                  {"BULKHEAD_LOG_LEVEL", "warn"},
                  {"BULKHEAD_LOG_FORMAT", "json"},
                  {"BULKHEAD_ENVIRONMENT", "staging"},
                  {"BULKHEAD_UIDS", "5000-6000"},
                  {"BULKHEAD_ADMIN_LISTEN", "h:2"},
                  {"BULKHEAD_DISCOVERY_DEVELOPMENT", "true"},
                  {"BULKHEAD_ON_CRITICAL_FAILURE", "degraded"},
                  {"BULKHEAD_DATA", ""}};
  const Config config = Good({"serve"});
  EXPECT_EQ(config.listen, "h:1");
  EXPECT_EQ(config.modules_dir, folder_ + "/m");
  EXPECT_EQ(config.store_url, "host=/x dbname=y");
  EXPECT_EQ(config.log_level, LogLevel::kWarn);
  EXPECT_EQ(config.log_format, LogFormat::kJson);
  EXPECT_EQ(config.environment, "staging");
  EXPECT_EQ(config.first_uid, 5000u);
  EXPECT_EQ(config.admin_listen, "h:2");
  EXPECT_TRUE(config.discovery_development);
  EXPECT_FALSE(config.critical_failure_exits);
  EXPECT_EQ(config.data, folder_ + "/.bulkhead");  // an empty variable is none
}

TEST_F(ConfigTest, AVariableThatNothingReadsIsAWarningUnlessKubernetesMadeIt) {
  environment_ = {{"BULKHEAD_LISTN", "x"},
                  {"BULKHEAD_SERVICE_HOST", "10.0.0.1"},
                  {"BULKHEAD_PORT", "tcp://10.0.0.1:4000"},
                  {"BULKHEAD_PORT_4000_TCP", "x"}};
  EXPECT_THAT(Good({"serve"}).warnings,
              ElementsAre(HasSubstr("BULKHEAD_LISTN is read by nothing here. Did you mean \"BULKHEAD_LISTEN\"?")));
}

TEST_F(ConfigTest, FlagsOfVariablesAndOfTheFileAreKeptApart) {
  Write("flags: {new-pricing: true, kept: true}\n");
  environment_ = {{"FEATURE_FLAG_NEW_PRICING", "false"}, {"FEATURE_FLAG_ENABLE_SHIPPING", "1"}};
  const Config config = Good({"serve", "--config", "b.yaml"});
  using Flags = std::map<std::string, bool>;
  EXPECT_EQ(config.flags, (Flags{{"kept", true}, {"new-pricing", true}}));
  EXPECT_EQ(config.environment_flags, (Flags{{"enable_shipping", true}, {"new_pricing", false}}));
  environment_ = {{"FEATURE_FLAG_X", "maybe"}};
  EXPECT_THAT(Bad({"serve"}), HasSubstr("FEATURE_FLAG_X: \"maybe\" is neither true nor false."));
}

TEST_F(ConfigTest, ALaterOptionGoesBeforeAnEarlierOne) {
  EXPECT_EQ(Good({"serve", "--listen", "127.0.0.1:1", "--listen=127.0.0.1:2"}).listen, "127.0.0.1:2");
}

TEST_F(ConfigTest, DisableTakesSeveralNames) {
  EXPECT_THAT(Good({"serve", "--disable", "orders", "billing", "--data", "x", "--disable", "third"}).disable,
              ElementsAre("orders", "billing", "third"));
}

TEST_F(ConfigTest, AnUnknownKeyIsNamedWithFileLineAndTheNearestOne) {
  EXPECT_EQ(BadFile("listen: 127.0.0.1:1\n\nadminListn: x\n"),
            "b.yaml:3: adminListn: There is no such key. Did you mean \"adminListen\"?");
  EXPECT_EQ(BadFile("log:\n  levle: info\n"), "b.yaml:2: log.levle: There is no such key. Did you mean \"level\"?");
  EXPECT_EQ(BadFile("modules:\n  orders:\n    enable: true\n"),
            "b.yaml:3: modules.orders.enable: There is no such key. Did you mean \"enabled\"?");
  EXPECT_EQ(BadFile("store: {xyz: 1}\n"), "b.yaml:1: store.xyz: There is no such key.");
}

TEST_F(ConfigTest, AFlagOfTheFileHasANameThatTheApiTakesAndIsThereOnce) {
  EXPECT_EQ(BadFile("flags:\n  fine: true\n  a b: true\n"), "b.yaml:3: flags.a b: A flag's name is 1 to 128 letters, digits, \"_\", \"-\" and \".\".");
  EXPECT_THAT(BadFile("flags: {" + std::string(129, 'x') + ": true}\n"), HasSubstr("A flag's name is 1 to 128"));
  // In alphabetical order, as the file is read.
  EXPECT_EQ(BadFile("flags:\n  new-pricing: true\n  New.Pricing: true\n"),
            "b.yaml:2: flags.new-pricing: This is the same flag as \"New.Pricing\": keep one of them.");
}

TEST_F(ConfigTest, MeasuresOfIsolationThatAreSwitchedOffAreKnownOnes) {
  EXPECT_THAT(Good({"serve"}).isolation_off, testing::IsEmpty());
  Write("isolation: {off: [landlock, tmp]}\n");
  EXPECT_THAT(Good({"serve", "--config", "b.yaml"}).isolation_off, ElementsAre("landlock", "tmp"));
  EXPECT_THAT(Good({"serve", "--config", "b.yaml", "--isolation-off", "network, ipc"}).isolation_off, ElementsAre("ipc", "network"));
  EXPECT_THAT(Good({"serve", "--config", "b.yaml", "--isolation-off", "none"}).isolation_off, testing::IsEmpty());
  EXPECT_EQ(BadFile("isolation:\n  off: [uid]\n"),
            "b.yaml:2: isolation.off: \"uid\" is no measure that can be switched off: landlock, seccomp, network, tmp, proc, ipc.");
}

TEST_F(ConfigTest, ExtensionsOfTheStoreAreAListInTheFileAndSplitByCommasElsewhere) {
  Write("store:\n  extensions: [hstore, uuid-ossp, hstore]\n");
  EXPECT_THAT(Good({"serve", "--config", "b.yaml"}).store_extensions, ElementsAre("hstore", "uuid-ossp"));
  environment_ = {{"BULKHEAD_STORE_EXTENSIONS", " pg_trgm , citext,"}};
  EXPECT_THAT(Good({"serve", "--config", "b.yaml"}).store_extensions, ElementsAre("pg_trgm", "citext"));
  EXPECT_THAT(Good({"serve", "--config", "b.yaml", "--store-extensions", "none"}).store_extensions, testing::IsEmpty());
  environment_ = {{"BULKHEAD_STORE_EXTENSIONS", "a;b"}};
  EXPECT_EQ(Bad({"serve"}), "BULKHEAD_STORE_EXTENSIONS: \"a;b\" is no name of a PostgreSQL extension.");
  environment_.clear();
  Write("store: {extensions: []}\n");
  EXPECT_THAT(Good({"serve", "--config", "b.yaml"}).store_extensions, testing::IsEmpty());
  EXPECT_EQ(BadFile("store:\n  extensions:\n    - citext\n    - 5\n"), "b.yaml:4: store.extensions: This must be a list of names.");
  EXPECT_EQ(BadFile("store:\n  extensions: [\"a,b\"]\n"), "b.yaml:2: store.extensions: This must be a list of names.");
  EXPECT_EQ(BadFile("store:\n  extensions: {citext: true}\n"), "b.yaml:2: store.extensions: This must be a list of names.");
  EXPECT_EQ(BadFile("store: {url: [x]}\n"), "b.yaml:1: store.url: This must be a single value.");
  std::string many = "x";
  for (size_t i = 0; i < limits::kMaxExtensions; ++i) many += ",x" + std::to_string(i);
  EXPECT_THAT(Bad({"serve", "--store-extensions", many.c_str()}), HasSubstr("At most 64 extensions are possible."));
}

TEST_F(ConfigTest, EveryWrongValueIsReportedAtOnce) {
  const std::string all = BadFile(
      "listen: nowhere\nlog:\n  level: loud\n  format: xml\nboot: {onCriticalFailure: cry}\nisolation:\n  uids: 5-1\n"
      "flags:\n  x: 3\nmodules:\n  UPPER: {}\n  ok:\n    enabled: 5\n    config: []\ndiscovery: 5\nstore: {url: "
      "'http://secret'}\n");
  for (const char* line :
       {"b.yaml:1: listen: \"nowhere\" is no HOST:PORT", "b.yaml:3: log.level:", "b.yaml:4: log.format:",
        "b.yaml:5: boot.onCriticalFailure:", "b.yaml:7: isolation.uids:", "b.yaml:9: flags.x: A flag is true or false.",
        "b.yaml:11: modules.UPPER: This is no name",
        "b.yaml:13: modules.ok.enabled:", "b.yaml:14: modules.ok.config:", "b.yaml:15: discovery:", "b.yaml:16: store.url:"}) {
    EXPECT_THAT(all, HasSubstr(line));
  }
  EXPECT_THAT(all, testing::Not(HasSubstr("secret")));  // the value of store.url may hold a password
}

TEST_F(ConfigTest, BrokenYamlAndUnreadableFilesAreSentences) {
  EXPECT_THAT(BadFile("listen: [1,\n"), HasSubstr("b.yaml:"));
  EXPECT_THAT(BadFile("listen: a:1\nlisten: b:2\n"), HasSubstr("b.yaml:2: The key \"listen\" is there twice."));
  EXPECT_THAT(BadFile("- a\n"), HasSubstr("must hold keys and values"));
  EXPECT_THAT(Bad({"serve", "--config", "missing.yaml"}), HasSubstr("missing.yaml: The configuration file can't be read"));
  EXPECT_EQ(BadFile(""), "nothing wrong");
  EXPECT_EQ(BadFile("# only comments\n"), "nothing wrong");
}

TEST_F(ConfigTest, AddressesMustBeHostAndPort) {
  for (const char* good :
       {"127.0.0.1:0", "[::]:65535", "[fe80::1%eth0]:1", "localhost:4000", "my-host.example:80", "0.0.0.0:4000"}) {
    EXPECT_EQ(Good({"serve", "--listen", good}).listen, good);
  }
  for (const char* bad : {"4000", ":4000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "::1:4000", "a b:1",
                          "http://x:1", "x:12345678", "[]:1", ""}) {
    EXPECT_THAT(Bad({"serve", "--listen", bad}), HasSubstr("--listen: ")) << bad;
  }
}

TEST_F(ConfigTest, TheTwoAddressesMustDiffer) {
  EXPECT_THAT(Bad({"serve", "--listen", "127.0.0.1:4001"}), HasSubstr("can't both be served on 127.0.0.1:4001"));
  Good({"serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"});
}

TEST_F(ConfigTest, ATypoInAnOptionOrCommandIsAnsweredWithTheNearest) {
  EXPECT_THAT(Bad({"serve", "--lisen", "x:1"}), HasSubstr("Unknown option --lisen. Did you mean \"--listen\"?"));
  EXPECT_THAT(Bad({"serve", "--lisen=x:1"}), HasSubstr("Unknown option --lisen. Did you mean \"--listen\"?"));
  EXPECT_THAT(Bad({"sevre"}), HasSubstr("Unknown command sevre. Did you mean \"serve\"?"));
  EXPECT_THAT(Bad({"serve", "stray"}), HasSubstr("stray"));
  EXPECT_THAT(Bad({"serve", "--listen"}), HasSubstr("--listen"));
  EXPECT_THAT(Bad({"--verison"}), HasSubstr("Did you mean \"--version\"?"));
}

TEST_F(ConfigTest, CommandsOfTheClientAreReadWithTheirOptionsAndVariables) {
  const auto migrate = [&](std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "migrate");
    auto line = Parse(arguments);
    EXPECT_TRUE(line.ok()) << line.status();
    if (line.ok()) {
      EXPECT_EQ(line->command, Command::kClient);
    }
    return line.ok() ? line->client : ClientRequest();
  };
  const auto command = [](const ClientRequest& request) { return std::get<MigrateCommand>(request.command); };
  ClientRequest request = migrate({"--dry-run", "orders"});
  EXPECT_EQ(command(request).what, MigrateCommand::What::kPlan);
  EXPECT_EQ(command(request).module, "orders");
  EXPECT_FALSE(command(request).down);
  EXPECT_EQ(request.options.server, "127.0.0.1:4001");
  EXPECT_EQ(request.options.token, "");
  EXPECT_EQ(request.options.token_file, folder_ + "/.bulkhead/admin.token");
  EXPECT_EQ(command(migrate({"status"})).module, "");
  EXPECT_EQ(command(migrate({"up", "orders"})).what, MigrateCommand::What::kUp);
  request = migrate({"down", "orders", "--to", "3", "--json", "--server", "db:1"});
  EXPECT_EQ(command(request).what, MigrateCommand::What::kDown);
  EXPECT_EQ(command(request).to, 3);
  EXPECT_TRUE(request.options.json);
  EXPECT_EQ(request.options.server, "db:1");
  request = migrate({"down", "--dry-run", "orders"});
  EXPECT_EQ(command(request).what, MigrateCommand::What::kPlan);
  EXPECT_TRUE(command(request).down);

  environment_ = {{"BULKHEAD_SERVER", "host:2"}, {"BULKHEAD_TOKEN", "secret"}, {"BULKHEAD_DATA", "/data"}};
  request = migrate({"status", "orders"});
  EXPECT_EQ(request.options.server, "host:2");
  EXPECT_EQ(request.options.token, "secret");
  EXPECT_EQ(request.options.token_file, "/data/admin.token");
  request = migrate({"status", "--token-file", "mine", "--server", "other:3"});
  EXPECT_EQ(request.options.token, "") << "a file that was named goes before the variable";
  EXPECT_EQ(request.options.token_file, "mine");
  EXPECT_EQ(request.options.server, "other:3");
  EXPECT_TRUE(Good({"serve"}).warnings.empty()) << "they are known to serve, which reads none of them";
}

TEST_F(ConfigTest, TheCommandThatRotatesSecretsIsRead) {
  auto line = Parse({"secrets", "rotate", "--json"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->command, Command::kClient);
  EXPECT_TRUE(std::holds_alternative<RotateSecretsCommand>(line->client.command));
  EXPECT_TRUE(line->client.options.json);
}

TEST_F(ConfigTest, AMistakeInACommandOfTheClientIsNamed) {
  EXPECT_THAT(Bad({"migrate"}), HasSubstr("Say what to do"));
  EXPECT_THAT(Bad({"migrate", "orders"}), HasSubstr("Say what to do"));
  EXPECT_THAT(Bad({"migrate", "--dry-run"}), HasSubstr("NAME is missing"));
  EXPECT_THAT(Bad({"migrate", "up"}), HasSubstr("`bulkhead migrate up --help`"));
  EXPECT_THAT(Bad({"migrate", "up", "orders", "--jsn"}), HasSubstr("Unknown option --jsn. Did you mean \"--json\"? `bulkhead migrate up --help`"));
  EXPECT_THAT(Bad({"migrate", "down", "orders", "--to", "x"}), HasSubstr("--to"));
  EXPECT_THAT(Bad({"migrate", "down", "orders", "--to", "-1"}), HasSubstr("--to"));
  EXPECT_THAT(Bad({"migrat"}), HasSubstr("Did you mean \"migrate\"?"));
  EXPECT_THAT(Bad({"secrets"}), HasSubstr("`bulkhead secrets rotate`"));
  EXPECT_THAT(Bad({"secrets", "rotat"}), HasSubstr("Did you mean \"rotate\"?"));
}

TEST_F(ConfigTest, TheLimitOfAMigrationsStatementIsADuration) {
  EXPECT_EQ(Good({"serve"}).migration_timeout, Millis(3'600'000));
  EXPECT_EQ(Good({"serve", "--migration-timeout", "90s"}).migration_timeout, Millis(90'000));
  Write("store:\n  migrationTimeout: 0\n");
  EXPECT_EQ(Good({"serve", "--config", "b.yaml"}).migration_timeout, Millis(0));
  for (const char* bad : {"90", "soon", "-1s", "1w", "99999h", ""}) {
    EXPECT_THAT(Bad({"serve", "--migration-timeout", bad}), HasSubstr("--migration-timeout: ")) << bad;
  }
  for (const char* text : {"1h", "90s", "2m", "1500ms"}) EXPECT_EQ(FormatDuration(*ParseDuration(text)), text);
}

TEST_F(ConfigTest, HowLongEventsAreKeptIsADurationAboveNothing) {
  EXPECT_EQ(Good({"serve"}).events_kept, limits::kEventsKept);
  EXPECT_EQ(Good({"serve", "--events-keep", "48h"}).events_kept, Millis(48 * 3'600'000));
  Write("events:\n  keep: 1h\n  keepUnread: 90d\n");
  const Config config = Good({"serve", "--config", "b.yaml"});
  EXPECT_EQ(config.events_kept, Millis(3'600'000));
  EXPECT_EQ(config.events_kept_unread, Millis(int64_t{90} * 86'400'000));
  for (const char* bad : {"0", "soon", "-1s", ""}) EXPECT_THAT(Bad({"serve", "--events-keep", bad}), HasSubstr("--events-keep: ")) << bad;
}

TEST_F(ConfigTest, TheFilesOfAModuleHaveABound) {
  EXPECT_EQ(Good({"serve"}).files_bytes_per_module, limits::kStoragePerModule);
  EXPECT_EQ(Good({"serve", "--files-max-bytes-per-module", "2GiB"}).files_bytes_per_module, int64_t{2} << 30);
  EXPECT_EQ(Good({"serve", "--files-max-bytes-per-module", "0"}).files_bytes_per_module, 0);
  for (const char* bad : {"much", "-1", "20000GiB", ""})
    EXPECT_THAT(Bad({"serve", "--files-max-bytes-per-module", bad}), HasSubstr("--files-max-bytes-per-module: ")) << bad;
}

TEST_F(ConfigTest, TheCacheHasABoundForAllAndForEachModule) {
  EXPECT_EQ(Good({"serve"}).cache_bytes, limits::kCacheBytes);
  EXPECT_EQ(Good({"serve"}).cache_bytes_per_module, limits::kCacheBytesPerModule);
  EXPECT_EQ(Good({"serve", "--cache-max-bytes", "512MiB"}).cache_bytes, int64_t{512} << 20);
  EXPECT_EQ(Good({"serve", "--cache-max-bytes-per-module", "0"}).cache_bytes_per_module, 0);
  for (const char* bad : {"512KiB", "2000GiB", "much", "-1"}) EXPECT_THAT(Bad({"serve", "--cache-max-bytes", bad}), HasSubstr("--cache-max-bytes: ")) << bad;
}

TEST_F(ConfigTest, TheEngineRedisWantsToKnowWhereRedisIsAndNoSentenceShowsItsPassword) {
  EXPECT_FALSE(Good({"serve"}).events_on_redis);
  EXPECT_THAT(Bad({"serve", "--events-engine", "redis"}), HasSubstr("events.redis: The engine redis wants to know where Redis is"));
  EXPECT_THAT(Bad({"serve", "--events-engine", "kafka"}), HasSubstr("\"kafka\" is neither postgres nor redis"));
  EXPECT_THAT(Bad({"serve", "--events-redis", "rediss://h"}), HasSubstr("TLS"));
  for (const char* good : {"redis://127.0.0.1", "redis://:s%40cret@redis.example.org:6380/3", "redis://[::1]:6379", "unix:///run/redis.sock",
                           "unix://bulkhead:secret@/run/redis.sock?db=2"}) {
    const Config config = Good({"serve", "--events-engine", "redis", "--events-redis", good});
    EXPECT_TRUE(config.events_on_redis);
    EXPECT_EQ(config.events_redis, good);
  }
  for (const char* bad : {"127.0.0.1:6379", "redis://", "redis://:secret@h:0", "redis://secret@h", "redis://:secret@h/x", "redis://:secret@h:99999",
                          "redis://:%zsecret@h", "unix://", "unix://run/secret", "unix:///run/redis.sock?secret=1", "redis://:secret@h h"}) {
    EXPECT_THAT(Bad({"serve", "--events-redis", bad}), testing::AllOf(HasSubstr("--events-redis: "), testing::Not(HasSubstr("secret")))) << bad;
  }
}

TEST_F(ConfigTest, TheCacheIsSharedInRedisWhereThatIsConfiguredAndNoSentenceShowsItsPassword) {
  EXPECT_FALSE(Good({"serve"}).cache_on_redis);
  EXPECT_THAT(Bad({"serve", "--cache-engine", "redis"}), HasSubstr("cache.redis: The engine redis wants to know where Redis is"));
  EXPECT_THAT(Bad({"serve", "--cache-engine", "memcached"}), HasSubstr("\"memcached\" is neither memory nor redis"));
  Write("cache:\n  engine: redis\n  redis: redis://:s%40cret@redis.example.org:6380/3\n");
  const Config config = Good({"serve", "--config", "b.yaml"});
  EXPECT_TRUE(config.cache_on_redis);
  EXPECT_EQ(config.cache_redis, "redis://:s%40cret@redis.example.org:6380/3");
  EXPECT_FALSE(config.events_on_redis);
  EXPECT_THAT(Bad({"serve", "--cache-redis", "redis://:secret@h:0"}), testing::AllOf(HasSubstr("--cache-redis: "), testing::Not(HasSubstr("secret"))));
}

TEST_F(ConfigTest, HelpAndVersionArePrinted) {
  for (std::vector<const char*> arguments : {std::vector<const char*>{"--help"}, {}, {"-h"}}) {
    auto line = Parse(arguments);
    ASSERT_TRUE(line.ok()) << line.status();
    EXPECT_EQ(line->command, Command::kHelp);
    EXPECT_THAT(line->text, HasSubstr("serve"));
  }
  auto serve = Parse({"serve", "--help"});
  ASSERT_TRUE(serve.ok());
  for (const char* part : {"--listen HOST:PORT", "127.0.0.1:4000", "--disable NAME", "BULKHEAD_STORE_URL", "from the defaults"}) {
    EXPECT_THAT(serve->text, HasSubstr(part));
  }
  for (std::vector<const char*> arguments : {std::vector<const char*>{"--version"}, {"version"}}) {
    auto line = Parse(arguments);
    ASSERT_TRUE(line.ok()) << line.status();
    EXPECT_EQ(line->command, Command::kVersion);
    EXPECT_THAT(line->text, testing::MatchesRegex("bulkhead [0-9]+\\.[0-9]+\\.[0-9]+\n"));
  }
}

TEST_F(ConfigTest, TheSampleConfigurationIsValid) {
  const Config config = Good({"serve", "--config", BULKHEAD_SOURCE_FOLDER "/deploy/bulkhead.yaml"});
  EXPECT_TRUE(config.discovery_development);
  ASSERT_TRUE(config.modules.contains("consumption-monitor"));
  EXPECT_TRUE(config.modules.at("consumption-monitor").enabled);
}

TEST_F(ConfigTest, WhoseTokensAreTakenIsReadFromTheFile) {
  Write(R"(
auth:
  jwt:
    issuer: https://issuer
    audience: [a, b]
    clockSkew: 5m
    rolesClaim: realm_access.roles
    permissionsClaim: scope
    subjectClaim: email
    jwksUrl: https://issuer/keys
    jwksRefresh: 30s
    keys:
      - {id: one, algorithm: EdDSA, publicKeyFile: keys/one.pem}
      - {id: two, algorithm: HS256, secretFile: /etc/two}
)");
  const JwtSettings jwt = Good({"serve", "--config", "b.yaml"}).jwt;
  EXPECT_EQ(jwt.issuer, "https://issuer");
  EXPECT_THAT(jwt.audience, ElementsAre("a", "b"));
  EXPECT_EQ(jwt.clock_skew, Millis(300'000));
  EXPECT_EQ(jwt.roles_claim, "realm_access.roles");
  EXPECT_EQ(jwt.permissions_claim, "scope");
  EXPECT_EQ(jwt.subject_claim, "email");
  EXPECT_EQ(jwt.jwks_url, "https://issuer/keys");
  EXPECT_EQ(jwt.jwks_refresh, Millis(30'000));
  ASSERT_EQ(jwt.keys.size(), 2u);
  EXPECT_EQ(jwt.keys[0].file, folder_ + "/keys/one.pem");
  EXPECT_EQ(jwt.keys[1].file, "/etc/two");
  Write("auth: {jwt: {audience: one}}\n");
  const JwtSettings defaults = Good({"serve", "--config", "b.yaml"}).jwt;
  EXPECT_THAT(defaults.audience, ElementsAre("one"));
  EXPECT_EQ(defaults.clock_skew, Millis(60'000));
  EXPECT_EQ(defaults.roles_claim, "roles");
  EXPECT_EQ(defaults.jwks_refresh, Millis(300'000));
}

TEST_F(ConfigTest, EveryMistakeOfTheTokensHasItsLine) {
  const std::string wrong = BadFile(R"(auth:
  jwt:
    issuer: 7
    clockSkew: 301s
    jwksRefresh: 1s
    jwksUrl: http://elsewhere/keys
    audience: [1]
    keys:
      - {id: a, algorithm: none, secretFile: x}
      - {id: b, algorithm: RS256, secretFile: x}
      - {id: bulkhead, algorithm: HS256, secretFile: x}
      - {id: c, algorithm: HS256, secretFile: x, publicKeyFile: y}
      - {id: d, algorithm: HS256, secretFile: x}
      - {id: d, algorithm: HS256, secretFile: x}
      - {algorithm: HS256, secretFile: x}
      - {id: e, algorithm: HS256, secret: x}
  jwts: {}
)");
  for (const char* line : {":3: auth.jwt.issuer", ":4: auth.jwt.clockSkew", ":5: auth.jwt.jwksRefresh", ":6: auth.jwt.jwksUrl", ":7: auth.jwt.audience",
                           ":9: auth.jwt.keys[0]", ":10: auth.jwt.keys[1]", ":11: auth.jwt.keys[2]", ":12: auth.jwt.keys[3]", ":14: auth.jwt.keys[5]",
                           ":15: auth.jwt.keys[6]", ":16: auth.jwt.keys[7].secret", ":17: auth.jwts"})
    EXPECT_THAT(wrong, HasSubstr(std::string("b.yaml") + line));
  EXPECT_THAT(wrong, testing::Not(HasSubstr(":13:")));
}

}  // namespace
}  // namespace bulkhead
