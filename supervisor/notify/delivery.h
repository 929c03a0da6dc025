// One attempt to deliver a notification, by libcurl. Blocking; thread-safe.
#pragma once

#include <functional>
#include <string>

#include "nlohmann/json_fwd.hpp"
#include "supervisor/base/clock.h"
#include "supervisor/notify/settings.h"

namespace bulkhead {

struct Notification {
  std::string id;  // of its run: the same in every attempt, so that who gets it twice can tell
  std::string module, message_json;
};

struct Delivered {
  enum class Kind { kSent, kFailed, kRefused } kind = Kind::kFailed;  // refused: the same would be refused again
  int status = 0;       // of SMTP or HTTP, 0: none came
  std::string message;  // why not; no secret is in it
};

// `stopped` is asked about once a second and while nothing moves: true ends the attempt.
Delivered SendMail(const SmtpSettings& smtp, const Notification& notification, WallTime now, const std::function<bool()>& stopped);
Delivered CallWebhook(const WebhookSettings& webhook, const std::string& channel, const Notification& notification, WallTime now,
                      const std::function<bool()>& stopped);

// What goes over the wire. Pure.
std::string MailText(const SmtpSettings& smtp, const Notification& notification, WallTime now);
std::string WebhookBody(const Notification& notification, const std::string& channel);
// "t=<seconds since 1970>,v1=<hex of HMAC-SHA256 of 't.body'>".
std::string WebhookSignature(const std::string& secret, int64_t seconds, const std::string& body);

}  // namespace bulkhead
