// What notifications look like on the wire: no text of a module's becomes a line of the protocol, and a receiver can tell who signed.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/digest.h"
#include "supervisor/manifest/manifest.h"
#include "supervisor/notify/delivery.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;
using testing::Not;

const WallTime kNow{std::chrono::seconds(1'767'225'600)};  // 2026-01-01, a Thursday

SmtpSettings Server() {
  SmtpSettings smtp;
  smtp.host = "mail.example.org";
  smtp.from = "bulkhead@example.org";
  return smtp;
}

Notification Mail(const nlohmann::json& message) { return {"7f0c5b9e", "orders", message.dump()}; }

std::string HeadOf(const std::string& mail) { return mail.substr(0, mail.find("\r\n\r\n")); }

TEST(MailTest, HasTheHeadersThatReadersWantAndAnIdThatStays) {
  const std::string mail = MailText(Server(), Mail({{"to", "a@example.org"}, {"subject", "Disk"}, {"text", "full"}}), kNow);
  EXPECT_THAT(mail, HasSubstr("Date: Thu, 01 Jan 2026 00:00:00 +0000\r\n"));
  EXPECT_THAT(mail, HasSubstr("From: bulkhead@example.org\r\nTo: a@example.org\r\nSubject: Disk\r\nMessage-ID: <7f0c5b9e@example.org>\r\n"));
  EXPECT_THAT(mail, HasSubstr("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nZnVsbA==\r\n"));
}

TEST(MailTest, NoLineOfAModulesTextIsALineOfTheMail) {
  const std::string text = "a\r\n.\r\nQUIT\r\n--bulkhead-7f0c5b9e--\r\nBcc: x@example.org\r\n";
  const std::string mail = MailText(Server(), Mail({{"to", {"a@example.org"}}, {"subject", "x\r\nBcc: y@example.org"}, {"text", text}, {"html", text}}), kNow);
  EXPECT_THAT(mail, Not(HasSubstr("QUIT")));
  EXPECT_THAT(mail, Not(HasSubstr("Bcc:")));
  EXPECT_THAT(HeadOf(mail), HasSubstr("Subject: =?UTF-8?B?"));
  for (size_t begin = 0, end; (end = mail.find("\r\n", begin)) != std::string::npos; begin = end + 2) {
    EXPECT_LE(end - begin, 120u) << mail.substr(begin, end - begin);
    EXPECT_NE(mail.substr(begin, end - begin), ".");
  }
  EXPECT_EQ(mail.find('\n'), mail.find("\r\n") + 1);
}

TEST(MailTest, ALongSubjectIsFoldedBetweenCharacters) {
  std::string subject;
  for (int i = 0; i < 60; ++i) subject += "größe ";
  const std::string head = HeadOf(MailText(Server(), Mail({{"to", "a@example.org"}, {"subject", subject}, {"text", "x"}}), kNow));
  EXPECT_THAT(head, HasSubstr("?=\r\n =?UTF-8?B?"));
}

TEST(MailTest, AnAddressIsAPlainOne) {
  for (const char* good : {"a@example.org", "first.last+tag@mail.example.org", "root@localhost"}) EXPECT_TRUE(IsPlainAddress(good)) << good;
  for (const char* bad : {"", "a", "@b", "a@", "a@b@c", "<a@b>", "A B <a@b>", "a@b\r\nRCPT TO:<c@d>", "a b@c", "a@b,c@d", "gr\xc3\xb6\xc3\x9f""e@example.org"})
    EXPECT_FALSE(IsPlainAddress(bad)) << bad;
}

TEST(WebhookTest, TheBodyNamesItsSenderAndTheSignatureCoversTimeAndBody) {
  const Notification notification = Mail({{"subject", "Disk"}, {"data", {{"free", 0}}}});
  const std::string body = WebhookBody(notification, "webhook:ops");
  EXPECT_EQ(nlohmann::json::parse(body),
            nlohmann::json({{"id", "7f0c5b9e"}, {"module", "orders"}, {"channel", "webhook:ops"}, {"subject", "Disk"}, {"data", {{"free", 0}}}}));
  EXPECT_EQ(WebhookSignature("secret", 5, "body"), "t=5,v1=" + HmacHex("secret", "5.body"));
}

TEST(ChannelsTest, AManifestNamesChannelsThatCanBe) {
  const auto read = [](const char* channels) {
    return ParseManifest(std::string(R"({"name":"m","version":"1.0.0","capabilities":{"notifications":)") + channels + "}}", false);
  };
  EXPECT_TRUE(read(R"(["smtp","webhook:ops"])").errors.empty());
  EXPECT_TRUE(read("null").errors.empty());
  for (const char* bad : {R"(["mail"])", R"(["webhook:"])", R"(["webhook:A"])", R"([7])", R"("smtp")"}) EXPECT_FALSE(read(bad).errors.empty()) << bad;
}

}  // namespace
}  // namespace bulkhead
