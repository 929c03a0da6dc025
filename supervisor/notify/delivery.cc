#include "supervisor/notify/delivery.h"

#include <curl/curl.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/digest.h"

namespace bulkhead {
namespace {

constexpr size_t kMaxAnswer = 64 * 1024;  // of a webhook's answer, which nobody reads; beyond: the attempt is over, with its status

struct Transfer {
  std::string_view left;  // to be sent
  size_t answered = 0;
  const std::function<bool()>* stopped = nullptr;
};

size_t Give(char* data, size_t, size_t room, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const size_t size = transfer.left.copy(data, room);
  transfer.left.remove_prefix(size);
  return size;
}
size_t Take(char*, size_t, size_t size, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  transfer.answered += size;
  return transfer.answered > kMaxAnswer ? 0 : size;
}
int Ask(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) { return (*static_cast<Transfer*>(user)->stopped)() ? 1 : 0; }

struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using List = std::unique_ptr<curl_slist, FreeList>;
void Append(List& list, const std::string& text) { list.reset(curl_slist_append(list.release(), text.c_str())); }

// What both have in common.
class Curl {
 public:
  Curl(Millis timeout, const std::string& ca_pem, const std::function<bool()>& stopped) {
    static const bool ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    curl_.reset(ready ? curl_easy_init() : nullptr);
    if (!curl_) return;
    transfer.stopped = &stopped;
    Set(CURLOPT_TIMEOUT_MS, static_cast<long>(timeout.count()));
    Set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(timeout.count()));
    Set(CURLOPT_NOSIGNAL, 1L);
    Set(CURLOPT_PROXY, "");
    Set(CURLOPT_ERRORBUFFER, static_cast<char*>(why_));
    Set(CURLOPT_WRITEFUNCTION, &Take);
    Set(CURLOPT_WRITEDATA, static_cast<void*>(&transfer));
    Set(CURLOPT_NOPROGRESS, 0L);
    Set(CURLOPT_XFERINFOFUNCTION, &Ask);
    Set(CURLOPT_XFERINFODATA, static_cast<void*>(&transfer));
    if (ca_pem.empty()) return;
    curl_blob certificates{const_cast<char*>(ca_pem.data()), ca_pem.size(), CURL_BLOB_COPY};
    Set(CURLOPT_CAINFO_BLOB, &certificates);
    Set(CURLOPT_CAPATH, static_cast<char*>(nullptr));
  }
  template <typename Value>
  void Set(CURLoption option, Value value) {
    curl_easy_setopt(curl_.get(), option, value);
  }
  explicit operator bool() const { return curl_ != nullptr; }
  CURLcode Perform() { return curl_easy_perform(curl_.get()); }
  int status() const {
    long status = 0;
    curl_easy_getinfo(curl_.get(), CURLINFO_RESPONSE_CODE, &status);
    return static_cast<int>(status);
  }
  std::string Why(CURLcode code) const { return why_[0] != '\0' ? why_ : curl_easy_strerror(code); }

  Transfer transfer;

 private:
  std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl_{nullptr, curl_easy_cleanup};
  char why_[CURL_ERROR_SIZE] = "";
};

Delivered Unusable() { return {Delivered::Kind::kFailed, 0, "libcurl is not usable"}; }

}  // namespace

Delivered SendMail(const SmtpSettings& smtp, const Notification& notification, WallTime now, const std::function<bool()>& stopped) {
  Curl curl(smtp.timeout, smtp.ca_pem, stopped);
  if (!curl) return Unusable();
  const std::string mail = MailText(smtp, notification, now);
  const bool wrapped = smtp.tls == SmtpSettings::Tls::kTls;
  const int port = smtp.port > 0 ? smtp.port : wrapped ? 465 : smtp.tls == SmtpSettings::Tls::kStartTls ? 587 : 25;
  // The path is what EHLO says: the sender's domain, as no name of this host need be known outside.
  const std::string url = absl::StrCat(wrapped ? "smtps://" : "smtp://", smtp.host, ":", port, "/", smtp.from.substr(smtp.from.find('@') + 1));
  List receivers;
  const nlohmann::json message = nlohmann::json::parse(notification.message_json);
  const nlohmann::json& to = message.at("to");
  for (const nlohmann::json& one : to.is_array() ? to : nlohmann::json::array({to})) {
    const std::string address = one.get<std::string>();
    if (!IsPlainAddress(address)) return {Delivered::Kind::kRefused, 0, "an address is no plain name@host"};
    Append(receivers, "<" + address + ">");
  }
  const std::string from = "<" + smtp.from + ">";
  curl.Set(CURLOPT_URL, url.c_str());
  curl.Set(CURLOPT_PROTOCOLS_STR, "smtp,smtps");
  curl.Set(CURLOPT_USE_SSL, static_cast<long>(smtp.tls == SmtpSettings::Tls::kNone ? CURLUSESSL_NONE : CURLUSESSL_ALL));
  if (!smtp.user.empty()) {
    curl.Set(CURLOPT_USERNAME, smtp.user.c_str());
    curl.Set(CURLOPT_PASSWORD, smtp.password.c_str());
  }
  curl.Set(CURLOPT_MAIL_FROM, from.c_str());
  curl.Set(CURLOPT_MAIL_RCPT, receivers.get());
  curl.transfer.left = mail;
  curl.Set(CURLOPT_READFUNCTION, &Give);
  curl.Set(CURLOPT_READDATA, static_cast<void*>(&curl.transfer));
  curl.Set(CURLOPT_UPLOAD, 1L);
  curl.Set(CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(mail.size()));
  const CURLcode code = curl.Perform();
  const int status = curl.status();
  if (code == CURLE_OK) return {Delivered::Kind::kSent, status, ""};
  // A login that is refused is the operator's to correct, and the mail waits for that; so does one that finds no TLS where it must be.
  const bool wants_login = status == 530 || status == 534 || status == 535 || code == CURLE_LOGIN_DENIED;
  const bool refused = status >= 500 && status < 600 && !wants_login && code != CURLE_USE_SSL_FAILED;
  return {refused ? Delivered::Kind::kRefused : Delivered::Kind::kFailed, status, absl::StrCat("the mail server ", smtp.host, ": ", curl.Why(code))};
}

std::string WebhookBody(const Notification& notification, const std::string& channel) {
  nlohmann::ordered_json body = {{"id", notification.id}, {"module", notification.module}, {"channel", channel}};
  const auto message = nlohmann::ordered_json::parse(notification.message_json);
  for (const auto& [name, value] : message.items()) body[name] = value;
  return body.dump();
}

std::string WebhookSignature(const std::string& secret, int64_t seconds, const std::string& body) {
  return absl::StrCat("t=", seconds, ",v1=", HmacHex(secret, absl::StrCat(seconds, ".", body)));
}

Delivered CallWebhook(const WebhookSettings& webhook, const std::string& channel, const Notification& notification, WallTime now,
                      const std::function<bool()>& stopped) {
  Curl curl(webhook.timeout, webhook.ca_pem, stopped);
  if (!curl) return Unusable();
  const std::string body = WebhookBody(notification, channel);
  List headers;
  for (const auto& [name, value] : webhook.headers) Append(headers, absl::StrCat(name, ": ", value));
  Append(headers, "Content-Type: application/json");
  Append(headers, "Expect:");
  Append(headers, "X-Bulkhead-Delivery: " + notification.id);
  if (!webhook.secret.empty()) Append(headers, "X-Bulkhead-Signature: " + WebhookSignature(webhook.secret, UnixSeconds(now), body));
  curl.Set(CURLOPT_URL, webhook.url.c_str());
  curl.Set(CURLOPT_PROTOCOLS_STR, "http,https");
  curl.Set(CURLOPT_FOLLOWLOCATION, 0L);
  curl.Set(CURLOPT_USERAGENT, "bulkhead");
  curl.Set(CURLOPT_HTTPHEADER, headers.get());
  curl.Set(CURLOPT_POSTFIELDS, body.c_str());
  curl.Set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  const CURLcode code = curl.Perform();
  const int status = curl.status();
  if (status >= 200 && status < 300 && (code == CURLE_OK || code == CURLE_WRITE_ERROR)) return {Delivered::Kind::kSent, status, ""};
  if (status == 0) return {Delivered::Kind::kFailed, 0, absl::StrCat("the webhook can't be reached: ", curl.Why(code))};
  // A redirect is the operator's to follow, in the configuration.
  const bool refused = status >= 400 && status < 500 && status != 408 && status != 429;
  return {refused ? Delivered::Kind::kRefused : Delivered::Kind::kFailed, status, absl::StrCat("the webhook answered with status ", status)};
}

}  // namespace bulkhead
