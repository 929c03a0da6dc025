// `notifications` of the configuration: where secrets come from, what is refused with its place, what SIGHUP tells of a change.
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

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::Pair;
using testing::UnorderedElementsAre;

constexpr char kHiddenText[] = "a-secret-of-somebody";

class NotificationSettingsTest : public testing::Test {
 protected:
  NotificationSettingsTest() {
    char name[] = "/tmp/bulkhead-config-XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~NotificationSettingsTest() override { std::filesystem::remove_all(folder_); }

  absl::StatusOr<Config> Parse(const std::string& notifications) {
    std::ofstream(folder_ + "/b.yaml") << "notifications:\n  " << notifications << "\n";
    const char* arguments[] = {"bulkhead", "serve", "--config", "b.yaml"};
    auto line = ParseCommandLine(4, arguments, environment_, false, folder_);
    if (!line.ok()) return line.status();
    if (absl::Status read = ReadSecretFiles(line->config); !read.ok()) return read;
    return line->config;
  }
  Config Good(const std::string& notifications) {
    auto config = Parse(notifications);
    EXPECT_TRUE(config.ok()) << config.status();
    return config.ok() ? *config : Config();
  }
  std::string Bad(const std::string& notifications) {
    auto config = Parse(notifications);
    if (config.ok()) return "nothing wrong";
    EXPECT_THAT(std::string(config.status().message()), Not(HasSubstr(kHiddenText)));
    return std::string(config.status().message());
  }
  void File(const std::string& name, const std::string& content) {
    std::ofstream(folder_ + "/" + name) << content;
    chmod((folder_ + "/" + name).c_str(), 0600);
  }

  std::string folder_;
  std::map<std::string, std::string> environment_;
};

TEST_F(NotificationSettingsTest, SecretsComeFromFiles) {
  File("mail", std::string(kHiddenText) + "\n");
  File("url", "https://hooks.example.org/services/T0/B0\r\n");
  File("signing", "sixteen characters and more");
  File("header", "Bearer abc");
  const auto settings = Good("{smtp: {host: h, from: a@b, user: u, passwordFile: mail},"
                             " webhooks: {ops: {urlFile: url, secretFile: signing, headers: {X-Team: ops}, headerFiles: {Authorization: header}}}}")
                            .notifications;
  EXPECT_EQ(settings.smtp->password, kHiddenText);
  const WebhookSettings& ops = settings.webhooks.at("ops");
  EXPECT_EQ(ops.url, "https://hooks.example.org/services/T0/B0");
  EXPECT_EQ(ops.secret, "sixteen characters and more");
  EXPECT_THAT(ops.headers, ElementsAre(Pair("X-Team", "ops"), Pair("Authorization", "Bearer abc")));
}

TEST_F(NotificationSettingsTest, VariablesCountForMoreThanTheFile) {
  environment_ = {{"BULKHEAD_SMTP_PASSWORD", kHiddenText}, {"BULKHEAD_WEBHOOK_ON_CALL_SECRET", "a secret of the environment"},
                  {"BULKHEAD_WEBHOOK_ON_CALL_URL", "https://elsewhere.example.org/x"}, {"BULKHEAD_WEBHOOK_ON_CALL_HEADER_X_API_KEY", "key"},
                  {"BULKHEAD_WEBHOOK_ON_CALL_HEADER_AUTHORIZATION", "Bearer env"}, {"BULKHEAD_WEBHOOK_OTHER_SECRET", "of none that is there"}};
  const Config config = Good("{smtp: {host: h, from: a@b, user: u, passwordFile: not-read},"
                             " webhooks: {on-call: {url: 'https://a', secretFile: not-read, headerFiles: {Authorization: not-read}}}}");
  EXPECT_EQ(config.notifications.smtp->password, kHiddenText);
  const WebhookSettings& webhook = config.notifications.webhooks.at("on-call");
  EXPECT_EQ(webhook.url, "https://elsewhere.example.org/x");
  EXPECT_EQ(webhook.secret, "a secret of the environment");
  EXPECT_THAT(webhook.headers, UnorderedElementsAre(Pair("Authorization", "Bearer env"), Pair("x-api-key", "key")));
  EXPECT_THAT(config.warnings, ElementsAre(HasSubstr("BULKHEAD_WEBHOOK_OTHER_SECRET")));
}

TEST_F(NotificationSettingsTest, WhatIsNoGoodIsNamedWithoutBeingShown) {
  File("short", "short");
  File("lines", "two\nlines");
  File("no-url", std::string("ftp://") + kHiddenText);
  const std::string smtp = "smtp: {host: h, from: a@b, ", webhook = "webhooks: {ops: {";
  EXPECT_THAT(Bad(smtp + "user: u}"), AllOf(HasSubstr("b.yaml"), HasSubstr("BULKHEAD_SMTP_PASSWORD")));
  EXPECT_THAT(Bad(smtp + "passwordFile: short}"), HasSubstr("belong together"));
  EXPECT_THAT(Bad(smtp + "user: u, password: a, passwordFile: short}"), HasSubstr("not both"));
  EXPECT_THAT(Bad(smtp + "user: u, passwordFile: nowhere}"), AllOf(HasSubstr("notifications.smtp.passwordFile"), HasSubstr("/nowhere")));
  EXPECT_THAT(Bad(smtp + "user: u, passwordFile: lines}"), HasSubstr("one line"));
  EXPECT_THAT(Bad(smtp + "caFile: short}"), HasSubstr("no certificate"));
  EXPECT_THAT(Bad(webhook + "timeout: 3s}}"), AllOf(HasSubstr("notifications.webhooks.ops"), HasSubstr("BULKHEAD_WEBHOOK_OPS_URL")));
  EXPECT_THAT(Bad(webhook + "url: 'https://a', urlFile: no-url}}"), HasSubstr("not both"));
  EXPECT_THAT(Bad(webhook + "urlFile: no-url}}"), HasSubstr("http:// or https://"));
  EXPECT_THAT(Bad(webhook + "url: 'https://a', secretFile: short}}"), HasSubstr("16 characters"));
  EXPECT_THAT(Bad(webhook + "url: 'https://a', headers: {A: b}, headerFiles: {a: short}}}"), HasSubstr("in headers and in headerFiles"));
  environment_ = {{"BULKHEAD_WEBHOOK_OPS_HEADER_A", std::string(kHiddenText) + "\n"}};
  EXPECT_THAT(Bad(webhook + "url: 'https://a'}}"), AllOf(HasSubstr("BULKHEAD_WEBHOOK_OPS_HEADER_A"), HasSubstr("printable")));
}

TEST_F(NotificationSettingsTest, ChangesAreToldWithoutSecrets) {
  const Config before = Good("{smtp: {host: old, from: a@b, user: u, password: " + std::string(kHiddenText) + "},"
                             " webhooks: {gone: {url: 'https://a'}, ops: {url: 'https://u:" + kHiddenText + "@hooks.example.org:444/" + kHiddenText + "'}}}");
  const Config after = Good("{smtp: {host: new, from: a@b, user: u, password: " + std::string(kHiddenText) + "},"
                            " webhooks: {ops: {url: 'https://hooks.example.org:444/" + kHiddenText + "/x', headers: {A: " + kHiddenText + "}}}}");
  const auto delta = CompareConfigs(before, after);
  ASSERT_TRUE(delta.ok()) << delta.status();
  EXPECT_TRUE(delta->notifications);
  std::vector<std::string> keys;
  for (const auto& changed : delta->changed) {
    keys.push_back(changed.key);
    EXPECT_THAT(changed.before + changed.after, Not(HasSubstr(kHiddenText)));
  }
  EXPECT_THAT(keys, ElementsAre("notifications.smtp", "notifications.webhooks.gone", "notifications.webhooks.ops"));
  EXPECT_EQ(delta->changed[0].after, "new, port by default, tls starttls, from a@b, user u, timeout 30s");
  EXPECT_EQ(delta->changed[1].after, "not set");
  EXPECT_EQ(delta->changed[2].before, "hooks.example.org:444, unsigned, timeout 30s");
  EXPECT_EQ(delta->changed[2].after, "hooks.example.org:444, unsigned, header A, timeout 30s");
}

TEST_F(NotificationSettingsTest, AnotherSecretIsAChangeThatShowsNothingOfIt) {
  const auto delta = CompareConfigs(Good("webhooks: {ops: {url: 'https://a/1'}}"), Good("webhooks: {ops: {url: 'https://a/2'}}"));
  ASSERT_TRUE(delta.ok());
  ASSERT_EQ(delta->changed.size(), 1u);
  EXPECT_EQ(delta->changed[0].after, "a, unsigned, timeout 30s, with other contents of what is not shown");
}

TEST_F(NotificationSettingsTest, WhatNobodyMaySeeIsKnown) {
  const std::string path = "/" + std::string(kHiddenText), url = "https://hooks.example.org" + path;
  const Config config = Good("webhooks: {ops: {url: '" + url + "', headers: {A: an-api-key, B: short}}}");
  EXPECT_THAT(SecretTexts(config.notifications.webhooks.at("ops")), UnorderedElementsAre(url, path, "an-api-key"));
}

}  // namespace
}  // namespace bulkhead
