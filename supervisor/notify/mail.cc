// A mail as RFC 5322 and MIME want it: every text in base64, so that no line of the author's is a line of the protocol.
#include <cstdio>
#include <ctime>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/text.h"
#include "supervisor/notify/delivery.h"

namespace bulkhead {
namespace {

constexpr size_t kBase64Line = 76;   // RFC 2045, 6.8
constexpr size_t kEncodedWord = 42;  // bytes of text in one encoded word, which has at most 75 characters (RFC 2047, 2)

std::string Base64Lines(std::string_view text) {
  const std::string encoded = absl::Base64Escape(View(text));
  std::string lines;
  for (size_t at = 0; at < encoded.size(); at += kBase64Line) absl::StrAppend(&lines, encoded.substr(at, kBase64Line), "\r\n");
  return lines;
}

// A header's text: as it is when it is printable ASCII of one line, else in encoded words.
std::string HeaderText(std::string_view text) {
  bool plain = text.size() <= kBase64Line;
  for (const char c : text) plain = plain && c >= ' ' && c < 0x7f;
  if (plain && text.find("=?") == std::string_view::npos) return std::string(text);
  std::string words;
  while (!text.empty()) {
    std::string_view piece = CutUtf8(text, kEncodedWord);
    if (piece.empty()) piece = text.substr(0, 1);
    text.remove_prefix(piece.size());
    absl::StrAppend(&words, words.empty() ? "" : "\r\n ", "=?UTF-8?B?", absl::Base64Escape(View(piece)), "?=");
  }
  return words;
}

std::string Part(const char* type, const std::string& text) {
  return absl::StrCat("Content-Type: ", type, "; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n", Base64Lines(text));
}

// RFC 5322, 3.3, in UTC and in English whatever the locale.
std::string MailDate(WallTime now) {
  constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const time_t seconds = static_cast<time_t>(UnixSeconds(now));
  tm parts{};
  gmtime_r(&seconds, &parts);
  char text[64];
  std::snprintf(text, sizeof text, "%s, %02d %s %04d %02d:%02d:%02d +0000", kDays[parts.tm_wday], parts.tm_mday, kMonths[parts.tm_mon],
                parts.tm_year + 1900, parts.tm_hour, parts.tm_min, parts.tm_sec);
  return text;
}

}  // namespace

std::string MailText(const SmtpSettings& smtp, const Notification& notification, WallTime now) {
  const nlohmann::json message = nlohmann::json::parse(notification.message_json);
  const auto text_of = [&](const char* name) {
    const auto found = message.find(name);
    return found != message.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  std::vector<std::string> receivers;
  const nlohmann::json& to = message.at("to");
  for (const nlohmann::json& one : to.is_array() ? to : nlohmann::json::array({to})) receivers.push_back(one.get<std::string>());
  std::string mail = absl::StrCat("Date: ", MailDate(now), "\r\nFrom: ", smtp.from, "\r\nTo: ", absl::StrJoin(receivers, ",\r\n "),
                                  "\r\nSubject: ", HeaderText(text_of("subject")), "\r\nMessage-ID: <", notification.id, "@",
                                  smtp.from.substr(smtp.from.find('@') + 1), ">\r\nAuto-Submitted: auto-generated\r\nX-Bulkhead-Module: ", notification.module,
                                  "\r\nMIME-Version: 1.0\r\n");
  const std::string text = text_of("text"), html = text_of("html");
  if (text.empty() || html.empty()) return mail + (html.empty() ? Part("text/plain", text) : Part("text/html", html));
  // In base64 no line begins with "--".
  const std::string boundary = "bulkhead-" + notification.id;
  absl::StrAppend(&mail, "Content-Type: multipart/alternative; boundary=\"", boundary, "\"\r\n\r\n--", boundary, "\r\n", Part("text/plain", text));
  absl::StrAppend(&mail, "--", boundary, "\r\n", Part("text/html", html), "--", boundary, "--\r\n");
  return mail;
}

}  // namespace bulkhead
