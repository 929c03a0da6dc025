// `clients` of the configuration: what is taken, what is refused with its place, and that no secret is told.
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/base/status.h"
#include "supervisor/config.h"
#include "supervisor/reconfigure.h"

namespace bulkhead {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::Pair;

constexpr char kSecret[] = "cs-secret-of-the-shop";

class ClientsTest : public testing::Test {
 protected:
  ClientsTest() {
    char name[] = "/tmp/bulkhead-config-XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~ClientsTest() override { std::filesystem::remove_all(folder_); }

  absl::StatusOr<CommandLine> Parse(const std::string& clients) {
    std::ofstream(folder_ + "/b.yaml") << "clients:\n  shop: " << clients << "\n";
    const char* arguments[] = {"bulkhead", "serve", "--config", "b.yaml"};
    return ParseCommandLine(4, arguments, environment_, false, folder_);
  }
  Config Good(const std::string& clients) {
    auto line = Parse(clients);
    EXPECT_TRUE(line.ok()) << line.status();
    return line.ok() ? line->config : Config();
  }
  std::string Bad(const std::string& clients) {
    auto line = Parse(clients);
    if (line.ok()) return "nothing wrong";
    EXPECT_THAT(std::string(line.status().message()), Not(HasSubstr(kSecret)));
    return std::string(line.status().message());
  }
  std::string File(const std::string& content) {
    std::ofstream(folder_ + "/secret") << content;
    chmod((folder_ + "/secret").c_str(), 0600);
    return "secret";
  }

  std::string folder_;
  std::map<std::string, std::string> environment_;
};

TEST_F(ClientsTest, ABaseUrlIsEnoughAndTheRestHasDefaults) {
  const ServiceClient client = Good("{baseUrl: 'https://shop.example.org'}").clients.at("shop");
  ServiceClient expected;
  expected.base_url = "https://shop.example.org";
  EXPECT_EQ(client, expected);
}

TEST_F(ClientsTest, EveryKeyIsTaken) {
  const ServiceClient client = Good("{baseUrl: 'http://[::1]:8080/api', auth: {type: basic, username: ck, password: pw}, timeout: 20s, attemptTimeout: 2s, "
                                    "connectTimeout: 500ms, retries: 0, maxConnections: 3, maxBody: 1MiB, headers: {Accept-Language: de}, caFile: ca.pem, "
                                    "breaker: {failures: 0, percent: 20, window: 1m, openFor: 1s}}").clients.at("shop");
  EXPECT_EQ(client.timeout, Millis(20'000));
  EXPECT_EQ(client.attempt_timeout, Millis(2'000));
  EXPECT_EQ(client.connect_timeout, Millis(500));
  EXPECT_EQ(std::tuple(client.retries, client.max_connections, client.max_body), std::tuple(0, 3, 1 << 20));
  EXPECT_EQ(std::tuple(client.breaker, client.breaker_failures, client.breaker_percent), std::tuple(true, 0, 20));
  EXPECT_EQ(client.breaker_window, Millis(60'000));
  EXPECT_EQ(client.breaker_open, Millis(1'000));
  EXPECT_THAT(client.headers, ElementsAre(Pair("accept-language", "de")));
  EXPECT_EQ(client.ca_file, folder_ + "/ca.pem");
  EXPECT_THAT(SecretHeaders(client), ElementsAre(Pair("authorization", "Basic Y2s6cHc=")));
  EXPECT_FALSE(Good("{baseUrl: 'http://a', breaker: false}").clients.at("shop").breaker);
}

TEST_F(ClientsTest, EachKindOfLoginGoesWhereItBelongs) {
  const auto client = [&](const std::string& auth) { return Good("{baseUrl: 'http://a', auth: {" + auth + "}}").clients.at("shop"); };
  EXPECT_THAT(SecretHeaders(client("type: bearer, token: t")), ElementsAre(Pair("authorization", "Bearer t")));
  EXPECT_THAT(SecretHeaders(client("type: header, name: X-Key, value: v")), ElementsAre(Pair("X-Key", "v")));
  EXPECT_THAT(SecretQuery(client("type: query, name: key, value: v")), ElementsAre(Pair("key", "v")));
  EXPECT_TRUE(SecretHeaders(client("type: query, name: key, value: v")).empty());
  EXPECT_TRUE(SecretHeaders(client("type: none")).empty());
}

TEST_F(ClientsTest, ASecretComesFromTheVariableBeforeTheFile) {
  const std::string bearer = "{baseUrl: 'http://a', auth: {type: bearer}}";
  EXPECT_THAT(Bad(bearer), testing::AllOf(HasSubstr("b.yaml:2: clients.shop.auth"), HasSubstr("BULKHEAD_CLIENT_SHOP_SECRET")));
  environment_["BULKHEAD_CLIENT_SHOP_SECRET"] = kSecret;
  EXPECT_EQ(Good(bearer).clients.at("shop").secret, kSecret);
  const ServiceClient over = Good("{baseUrl: 'http://a', auth: {type: bearer, tokenFile: nowhere}}").clients.at("shop");
  EXPECT_EQ(std::pair(over.secret, over.secret_file), (std::pair<std::string, std::string>(kSecret, "")));
  environment_["BULKHEAD_CLIENT_SHOP_SECRET"] = std::string(kSecret) + "\n";
  EXPECT_THAT(Bad(bearer), HasSubstr("BULKHEAD_CLIENT_SHOP_SECRET"));
  environment_ = {{"BULKHEAD_CLIENT_SHPO_SECRET", kSecret}};
  EXPECT_THAT(Good("{baseUrl: 'http://a'}").warnings, ElementsAre(HasSubstr("BULKHEAD_CLIENT_SHPO_SECRET is read by nothing")));
}

TEST_F(ClientsTest, FilesAreReadApartAndMustHoldASecret) {
  ServiceClients clients = Good("{baseUrl: 'http://a', auth: {type: bearer, tokenFile: " + File(std::string(kSecret) + "\n") + "}}").clients;
  ASSERT_TRUE(ReadClientFiles(clients).ok());
  EXPECT_EQ(clients.at("shop").secret, kSecret);
  for (const std::string& content : {std::string(), std::string("\n"), std::string(kSecret) + "\nmore", std::string("\xc3\xa4")}) {
    File(content);
    const absl::Status read = ReadClientFiles(clients);
    EXPECT_EQ(ErrorCode(read), "CONFIG_INVALID");
    EXPECT_THAT(std::string(read.message()), testing::AllOf(HasSubstr("clients.shop.auth"), Not(HasSubstr(kSecret))));
  }
  std::filesystem::remove(folder_ + "/secret");
  EXPECT_THAT(std::string(ReadClientFiles(clients).message()), HasSubstr("can't be read"));
}

TEST_F(ClientsTest, EveryMistakeHasItsPlace) {
  const std::string url = "baseUrl: 'https://a', ";
  for (const auto& [clients, told] : std::map<std::string, std::string>{
           {"{}", "b.yaml:2: clients.shop: The client needs a baseUrl"}, {"7", "clients.shop: This must be a mapping"},
           {"{baseUrl: 7}", "clients.shop.baseUrl: This must be a text"}, {"{baseUrl: 'ftp://a'}", "clients.shop.baseUrl"},
           {"{baseUrl: 'https://u:" + std::string(kSecret) + "@a'}", "clients.shop.baseUrl: The URL may hold no user"},
           {"{baseUrl: 'https://a?x=1'}", "no query"}, {"{baseUrl: 'https://a:0'}", "a port from 1 to 65535"}, {"{baseUrl: 'https://:80'}", "name a host"},
           {"{" + url + "timout: 1s}", "clients.shop.timout: There is no such key. Did you mean \"timeout\"?"},
           {"{" + url + "timeout: 0s}", "from 1ms to 10m"}, {"{" + url + "timeout: 5}", "clients.shop.timeout"}, {"{" + url + "retries: 1.5}", "from 0 to 10"},
           {"{" + url + "retries: '2'}", "from 0 to 10"}, {"{" + url + "maxBody: 2GiB}", "at most 1GiB"}, {"{" + url + "maxConnections: 0}", "from 1 to 256"},
           {"{" + url + "breaker: true}", "or false for none"}, {"{" + url + "breaker: {percent: 101}}", "clients.shop.breaker.percent"},
           {"{" + url + "headers: {'a b': c}}", "clients.shop.headers.a b"}, {"{" + url + "headers: {a: 1}}", "clients.shop.headers.a"},
           {"{" + url + "headers: {a: \"" + kSecret + "\\r\\nb: c\"}}", "clients.shop.headers.a"},
           {"{" + url + "auth: {type: basic, password: p}}", "needs a username"},
           {"{" + url + "auth: {type: basic, username: 'a:b', password: p}}", "without a colon"},
           {"{" + url + "auth: {type: header, value: v}}", "needs a name"}, {"{" + url + "auth: {type: header, name: Host, value: v}}", "needs a name"},
           {"{" + url + "auth: {type: bearer, token: " + kSecret + ", tokenFile: f}}", "not both"},
           {"{" + url + "auth: {type: bearer, tocken: t}}", "Did you mean \"token\"?"}}) {
    EXPECT_THAT(Bad(clients), HasSubstr(told)) << clients;
  }
}

TEST_F(ClientsTest, NamesAreThoseThatAManifestCanHave) {
  for (const char* name : {"Shop", "a_b", "-a", "a--b", "7a", "a."}) {
    std::ofstream(folder_ + "/b.yaml") << "clients: {\"" << name << "\": {baseUrl: 'http://a'}}\n";
    const char* arguments[] = {"bulkhead", "serve", "--config", "b.yaml"};
    EXPECT_FALSE(ParseCommandLine(4, arguments, {}, false, folder_).ok()) << name;
  }
}

TEST_F(ClientsTest, ChangesAreToldWithoutSecrets) {
  const Config before = Good("{baseUrl: 'https://a', auth: {type: bearer, token: " + std::string(kSecret) + "}, headers: {x-tenant: " + kSecret + "}}");
  auto same = CompareConfigs(before, before);
  ASSERT_TRUE(same.ok());
  EXPECT_FALSE(same->clients);
  const Config after = Good("{baseUrl: 'https://a', auth: {type: bearer, token: " + std::string(kSecret) + "-2}, headers: {x-tenant: " + kSecret + "}}");
  for (const Config& next : {after, Good("{baseUrl: 'https://b', retries: 0}"), Config(before)}) {
    Config gone = next;
    if (next.clients == before.clients) gone.clients.clear();
    auto delta = CompareConfigs(before, gone);
    ASSERT_TRUE(delta.ok()) << delta.status();
    EXPECT_TRUE(delta->clients);
    ASSERT_EQ(delta->changed.size(), 1u);
    EXPECT_EQ(delta->changed[0].key, "clients.shop");
    EXPECT_NE(delta->changed[0].before, delta->changed[0].after);
    EXPECT_THAT(delta->changed[0].before + delta->changed[0].after, Not(HasSubstr(kSecret)));
    EXPECT_THAT(delta->changed[0].before, HasSubstr("********"));
  }
}

TEST(ServiceClient, WhereItLeadsIsReadFromItsUrl) {
  const auto place = [](const std::string& url) {
    ServicePlace found;
    EXPECT_EQ(BaseUrlFault(url, &found), "") << url;
    return std::tuple(found.host, found.port, found.by_name, found.loopback);
  };
  EXPECT_EQ(place("https://shop.example.org/a"), std::tuple("shop.example.org", 443, true, false));
  EXPECT_EQ(place("http://192.0.2.7"), std::tuple("192.0.2.7", 80, false, false));
  EXPECT_EQ(place("http://127.0.0.2:8080/"), std::tuple("127.0.0.2", 8080, false, true));
  EXPECT_EQ(place("https://[::1]:9443/x"), std::tuple("::1", 9443, false, true));
  EXPECT_EQ(place("http://localhost"), std::tuple("localhost", 80, false, true));
  EXPECT_EQ(place("http://127.evil.example.org"), std::tuple("127.evil.example.org", 80, true, false));
  for (const char* wrong : {"http://a:99999", "http://a:", "http://a:x", "http://[::1", "http://[]", "http://a b", "http://a\n"})
    EXPECT_NE(BaseUrlFault(wrong), "") << wrong;
}

}  // namespace
}  // namespace bulkhead
