// `notifications` of the configuration file: where modules' notifications go. No sentence repeats a value: some are secrets.
#include <algorithm>
#include <array>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/duration.h"
#include "supervisor/config_layers.h"
#include "supervisor/manifest/document.h"
#include "supervisor/manifest/nearest.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr std::array kSmtpKeys{"host", "port", "tls", "caFile", "user", "password", "passwordFile", "from", "timeout"};
constexpr std::array kWebhookKeys{"url", "urlFile", "secret", "secretFile", "caFile", "headers", "headerFiles", "timeout"};
constexpr size_t kMaxText = 2'048;
constexpr char kPasswordVariable[] = "BULKHEAD_SMTP_PASSWORD";
constexpr char kWebhookVariable[] = "BULKHEAD_WEBHOOK_";  // then the webhook's name, and one of these
constexpr char kUrlEnding[] = "_URL";
constexpr char kWebhookSecretEnding[] = "_SECRET";
constexpr char kHeaderMiddle[] = "_HEADER_";  // then the header's name
constexpr char kWrongHeader[] = "A header is a name of letters, digits and \"-\", and a printable text.";

bool IsPrintable(const std::string& text, bool spaces) {
  return std::all_of(text.begin(), text.end(), [&](unsigned char c) { return c < 0x7f && (spaces ? c >= ' ' : c > ' '); });
}
bool IsName(const std::string& text) {
  return !text.empty() && text.size() <= 63 && text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-_") == std::string::npos;
}
bool IsHeaderName(const std::string& text) {
  return !text.empty() && text.size() <= 128 && std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_'; });
}

class NotificationReader {
 public:
  NotificationReader(const std::string& cwd, NotificationSettings& settings, const Blame& wrong) : cwd_(cwd), settings_(settings), wrong_(wrong) {}

  void Smtp(const json& value, const std::string& pointer) {
    const std::string key = "notifications.smtp";
    if (!value.is_object()) return wrong_(pointer, key, "This must be a mapping of keys and values.");
    SmtpSettings smtp;
    for (const auto& [name, member] : value.items()) {
      const std::string at = PointerTo(pointer, name), full = key + "." + name;
      std::string text;
      if (!Known(kSmtpKeys, name, at, full) || member.is_null()) continue;
      if (name == "port") {
        const bool fits = member.is_number_integer() && member.get<int64_t>() > 0 && member.get<int64_t>() < 65'536;
        if (!fits) wrong_(at, full, "This must be a port from 1 to 65535.");
        if (fits) smtp.port = member.get<int>();
      } else if (!Text(member, at, full, text)) {
        continue;
      } else if (name == "tls") {
        if (text != "none" && text != "starttls" && text != "tls") wrong_(at, full, "This must be none, starttls or tls.");
        smtp.tls = text == "none" ? SmtpSettings::Tls::kNone : text == "tls" ? SmtpSettings::Tls::kTls : SmtpSettings::Tls::kStartTls;
      } else if (name == "timeout") {
        Timeout(text, at, full, smtp.timeout);
      } else if (name == "from") {
        if (!IsPlainAddress(text)) wrong_(at, full, "This must be a plain address such as bulkhead@example.org.");
        smtp.from = text;
      } else if (name == "host") {
        const bool fits = text.size() <= 253 && text.find_first_of("/:@[]?#") == std::string::npos && IsPrintable(text, false);
        if (!fits) wrong_(at, full, "This must be the name or IPv4 address of a mail server.");
        smtp.host = text;
      } else if (name == "caFile" || name == "passwordFile") {
        (name == "caFile" ? smtp.ca_file : smtp.password_file) = PathOf(text);
      } else {
        (name == "user" ? smtp.user : smtp.password) = text;
      }
    }
    if (smtp.host.empty() || smtp.from.empty()) return wrong_(pointer, key, "A mail server needs host and from.");
    if (!smtp.user.empty() && smtp.tls == SmtpSettings::Tls::kNone && smtp.host != "localhost" && smtp.host != "127.0.0.1")
      return wrong_(pointer, key, "A password is sent to another host over TLS only: tls is starttls or tls.");
    settings_.smtp = std::move(smtp);
  }

  void Webhooks(const json& value, const std::string& pointer) {
    if (!value.is_object()) return wrong_(pointer, "notifications.webhooks", "This must be a mapping of names and webhooks.");
    if (value.size() > limits::kMaxWebhooks) return wrong_(pointer, "notifications.webhooks", "At most 64 webhooks are possible.");
    for (const auto& [name, member] : value.items()) {
      const std::string at = PointerTo(pointer, name), key = "notifications.webhooks." + name;
      if (!IsName(name)) {
        wrong_(at, key, "A webhook's name is 1 to 63 lower-case letters, digits, \"-\" and \"_\".");
      } else if (!member.is_object()) {
        wrong_(at, key, "This must be a mapping of keys and values.");
      } else {
        Webhook(name, member, at, key);
      }
    }
  }

 private:
  void Webhook(const std::string& called, const json& value, const std::string& pointer, const std::string& key) {
    WebhookSettings webhook;
    for (const auto& [name, member] : value.items()) {
      const std::string at = PointerTo(pointer, name), full = key + "." + name;
      std::string text;
      if (!Known(kWebhookKeys, name, at, full) || member.is_null()) continue;
      if (name == "headers") {
        Headers(member, at, full, webhook.headers);
      } else if (name == "headerFiles") {
        Headers(member, at, full, webhook.header_files);
        for (auto& [header, file] : webhook.header_files) file = PathOf(file);
      } else if (!Text(member, at, full, text)) {
        continue;
      } else if (name == "timeout") {
        Timeout(text, at, full, webhook.timeout);
      } else if (name == "secret") {
        if (std::string fault = WebhookSecretFault(text); !fault.empty()) wrong_(at, full, std::move(fault));
        webhook.secret = text;
      } else if (name == "url") {
        if (std::string fault = WebhookUrlFault(text); !fault.empty()) wrong_(at, full, std::move(fault));
        webhook.url = text;
      } else {
        (name == "caFile" ? webhook.ca_file : name == "urlFile" ? webhook.url_file : webhook.secret_file) = PathOf(text);
      }
    }
    settings_.webhooks[called] = std::move(webhook);
  }

  std::string PathOf(const std::string& text) const { return (std::filesystem::path(cwd_) / text).lexically_normal().string(); }

  void Headers(const json& value, const std::string& pointer, const std::string& key, WebhookSettings::Fields& headers) {
    if (!value.is_object() || value.size() > limits::kMaxWebhookHeaders) return wrong_(pointer, key, "This must be a mapping of up to 32 headers.");
    for (const auto& [name, member] : value.items()) {
      const bool fits = IsHeaderName(name) && member.is_string() && !member.get_ref<const std::string&>().empty() &&
                        member.get_ref<const std::string&>().size() <= kMaxText && IsPrintable(member.get<std::string>(), true);
      if (!fits) return wrong_(PointerTo(pointer, name), key + "." + name, kWrongHeader);
      headers.emplace_back(name, member.get<std::string>());
    }
  }

  template <size_t N>
  bool Known(const std::array<const char*, N>& keys, const std::string& name, const std::string& at, const std::string& key) {
    if (std::find(keys.begin(), keys.end(), name) != keys.end()) return true;
    wrong_(at, key, "There is no such key." + DidYouMean(name, {keys.begin(), keys.end()}));
    return false;
  }

  bool Text(const json& value, const std::string& at, const std::string& key, std::string& text) {
    const bool fits = value.is_string() && !value.get_ref<const std::string&>().empty() && value.get_ref<const std::string&>().size() <= kMaxText &&
                      value.get_ref<const std::string&>().find_first_of(std::string("\r\n\0", 3)) == std::string::npos;
    if (fits) text = value.get<std::string>();
    if (!fits) wrong_(at, key, "This must be a text of one line.");
    return fits;
  }

  void Timeout(const std::string& text, const std::string& at, const std::string& key, Millis& target) {
    const auto parsed = ParseDuration(text);
    if (!parsed || *parsed < Millis(1'000) || *parsed > limits::kMaxNotificationTimeout)
      return wrong_(at, key, "This must be a duration from 1s to 120s.");
    target = *parsed;
  }

  const std::string& cwd_;
  NotificationSettings& settings_;
  const Blame& wrong_;
};

// A name as it is part of a variable's.
std::string VariablePart(const std::string& name) {
  std::string part = absl::AsciiStrToUpper(name);
  std::replace(part.begin(), part.end(), '-', '_');
  return part;
}

// The header that a variable names: as the file writes it, else in lower case.
void SetHeader(const std::string& named, const std::string& value, WebhookSettings& webhook) {
  const auto same = [&](const auto& header) { return VariablePart(header.first) == named; };
  std::string name = absl::AsciiStrToLower(named);
  std::replace(name.begin(), name.end(), '_', '-');
  for (WebhookSettings::Fields* fields : {&webhook.headers, &webhook.header_files}) {
    if (const auto found = std::find_if(fields->begin(), fields->end(), same); found != fields->end()) name = found->first;
    std::erase_if(*fields, same);
  }
  webhook.headers.emplace_back(name, value);
}

// False when `rest` names nothing of a webhook; a sentence in `fault` when the value is no good.
bool SetOfWebhook(const std::string& rest, const std::string& value, WebhookSettings& webhook, std::string& fault) {
  if (rest == kUrlEnding) {
    fault = WebhookUrlFault(value);
    webhook.url = value;
    webhook.url_file.clear();
  } else if (rest == kWebhookSecretEnding) {
    fault = IsPrintable(value, true) ? WebhookSecretFault(value) : "The secret is one line of printable ASCII.";
    webhook.secret = value;
    webhook.secret_file.clear();
  } else if (absl::StartsWith(rest, kHeaderMiddle) && IsHeaderName(rest.substr(sizeof kHeaderMiddle - 1))) {
    if (!IsPrintable(value, true) || value.size() > kMaxText) fault = kWrongHeader;
    SetHeader(rest.substr(sizeof kHeaderMiddle - 1), value, webhook);
  } else {
    return false;
  }
  return true;
}

}  // namespace

bool ApplyNotificationVariable(const std::string& variable, const std::string& value, Config& config, Mistakes& mistakes) {
  if (variable == kPasswordVariable) {
    if (!config.notifications.smtp) return false;
    if (!IsPrintable(value, true)) mistakes.Add(variable, 0, "The password is one line of printable ASCII.");
    config.notifications.smtp->password = value;
    config.notifications.smtp->password_file.clear();
    return true;
  }
  bool taken = false;
  for (auto& [name, webhook] : config.notifications.webhooks) {
    const std::string before = kWebhookVariable + VariablePart(name);
    std::string fault;
    if (!absl::StartsWith(variable, before) || !SetOfWebhook(variable.substr(before.size()), value, webhook, fault)) continue;
    if (!fault.empty()) mistakes.Add(variable, 0, std::move(fault));
    taken = true;
  }
  return taken;
}

void CheckNotifications(const Config& config, Mistakes& mistakes) {
  const auto place = config.places.find("notifications");
  const auto wrong = [&](const std::string& key, std::string sentence) {
    mistakes.Add(absl::StrCat(place == config.places.end() ? "" : place->second + ": ", "notifications.", key), 0, std::move(sentence));
  };
  if (const auto& smtp = config.notifications.smtp) {
    const bool has_password = !smtp->password.empty() || !smtp->password_file.empty();
    if (!smtp->password.empty() && !smtp->password_file.empty()) wrong("smtp", "Give password or passwordFile, not both.");
    if (smtp->user.empty() == has_password)
      wrong("smtp", absl::StrCat("user and password belong together; the password may also be in passwordFile or in ", kPasswordVariable, "."));
  }
  for (const auto& [name, webhook] : config.notifications.webhooks) {
    const std::string key = "webhooks." + name, variable = kWebhookVariable + VariablePart(name);
    if (webhook.url.empty() && webhook.url_file.empty())
      wrong(key, absl::StrCat("A webhook needs a url: here, in a file that urlFile names, or in ", variable, kUrlEnding, "."));
    if (!webhook.url.empty() && !webhook.url_file.empty()) wrong(key, "Give url or urlFile, not both.");
    if (!webhook.secret.empty() && !webhook.secret_file.empty()) wrong(key, "Give secret or secretFile, not both.");
    for (const auto& [header, file] : webhook.header_files) {
      const auto same = [&header = header](const auto& other) { return absl::EqualsIgnoreCase(other.first, header); };
      if (std::any_of(webhook.headers.begin(), webhook.headers.end(), same)) wrong(key, "The header " + header + " is in headers and in headerFiles.");
    }
  }
}

void ReadNotifications(const json& value, const std::string& pointer, const std::string& cwd, NotificationSettings& settings, const Blame& wrong) {
  if (!value.is_object()) return wrong(pointer, "notifications", "This must be a mapping of keys and values.");
  NotificationReader reader(cwd, settings, wrong);
  for (const auto& [name, member] : value.items()) {
    const std::string at = PointerTo(pointer, name);
    if (name != "smtp" && name != "webhooks") {
      wrong(at, "notifications." + name, "There is no such key." + DidYouMean(name, {"smtp", "webhooks"}));
    } else if (!member.is_null()) {
      name == "smtp" ? reader.Smtp(member, at) : reader.Webhooks(member, at);
    }
  }
}

}  // namespace bulkhead
