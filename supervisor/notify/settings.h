// Where notifications go, as the operator has configured it. Values; secrets among them, so nothing here is ever logged.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

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
  std::string ca_file;  // whose certificates count; "": the system's
  std::string user, password;
  std::string from;  // a plain address
  Millis timeout = limits::kNotificationTimeout;
  bool operator==(const SmtpSettings&) const = default;
};

struct WebhookSettings {
  std::string url;
  std::string secret;   // "": unsigned
  std::string ca_file;
  std::vector<std::pair<std::string, std::string>> headers;
  Millis timeout = limits::kNotificationTimeout;
  bool operator==(const WebhookSettings&) const = default;
};

struct NotificationSettings {
  std::optional<SmtpSettings> smtp;
  std::map<std::string, WebhookSettings> webhooks;  // by name
  bool operator==(const NotificationSettings&) const = default;
};

// A name@host that no header and no SMTP command takes for more than that.
bool IsPlainAddress(const std::string& text);

}  // namespace bulkhead
