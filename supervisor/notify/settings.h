// Where notifications go, as the operator has configured it. Values; secrets among them, so nothing here is ever logged.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "supervisor/base/clock.h"

namespace bulkhead {

namespace limits {
inline constexpr Millis kNotificationTimeout{30'000};     // of one attempt, unless `timeout` says otherwise
inline constexpr Millis kMaxNotificationTimeout{120'000};
inline constexpr size_t kMaxWebhooks = 64;
inline constexpr size_t kMaxWebhookHeaders = 32;
}  // namespace limits

struct SmtpSettings {
  enum class Tls { kNone, kStartTls, kTls };
  std::string host;
  int port = 0;  // 0: 25 without TLS, 587 with STARTTLS, 465 with TLS
  Tls tls = Tls::kStartTls;
  std::string ca_file, ca_pem;  // whose certificates count; "": the system's
  std::string user;
  std::string password, password_file;  // one of them; what lies in files is read by ReadNotificationFiles(), here and below
  std::string from;  // a plain address
  Millis timeout = limits::kNotificationTimeout;
  bool operator==(const SmtpSettings&) const = default;
};

struct WebhookSettings {
  using Fields = std::vector<std::pair<std::string, std::string>>;
  std::string url, url_file;
  std::string secret, secret_file;  // "": unsigned
  std::string ca_file, ca_pem;
  Fields headers, header_files;     // by name; a header is in one of them, and all are in `headers` when they are read
  Millis timeout = limits::kNotificationTimeout;
  bool operator==(const WebhookSettings&) const = default;
};

struct NotificationSettings {
  std::optional<SmtpSettings> smtp;
  std::map<std::string, WebhookSettings> webhooks;  // by name
  bool operator==(const NotificationSettings&) const = default;
};

// Reads what lies in files. CONFIG_INVALID names the key and the file; nothing of what stands there.
absl::Status ReadNotificationFiles(NotificationSettings& settings);
// Everything for people but secrets: of a webhook's URL the host alone, because many carry their secret in the path; of headers the names.
std::string Shown(const SmtpSettings& smtp);
std::string Shown(const WebhookSettings& webhook);
// Texts that nobody may see.
std::vector<std::string> SecretTexts(const SmtpSettings& smtp);
std::vector<std::string> SecretTexts(const WebhookSettings& webhook);

// "" of one that can be used, else a sentence without it.
std::string WebhookUrlFault(const std::string& url);
std::string WebhookSecretFault(const std::string& secret);
// A name@host that no header and no SMTP command takes for more than that.
bool IsPlainAddress(const std::string& text);

}  // namespace bulkhead
