#include "supervisor/notify/settings.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "supervisor/base/duration.h"
#include "supervisor/base/secret_file.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

constexpr size_t kMinWebhookSecret = 16;
constexpr size_t kMinHiddenText = 8;  // bytes; shorter ones would be found everywhere

absl::Status InFile(const std::string& key, const std::string& file, const std::string& fault) {
  return fault.empty() ? absl::OkStatus() : Error("CONFIG_INVALID", key + ": what the file " + file + " holds is no good: " + fault);
}

absl::Status ReadWebhookFiles(const std::string& key, WebhookSettings& webhook) {
  if (!webhook.url_file.empty()) {
    ASSIGN_OR_RETURN(webhook.url, ReadSecretFile(key + ".urlFile", webhook.url_file));
    RETURN_IF_ERROR(InFile(key + ".urlFile", webhook.url_file, WebhookUrlFault(webhook.url)));
  }
  if (!webhook.secret_file.empty()) {
    ASSIGN_OR_RETURN(webhook.secret, ReadSecretFile(key + ".secretFile", webhook.secret_file));
    RETURN_IF_ERROR(InFile(key + ".secretFile", webhook.secret_file, WebhookSecretFault(webhook.secret)));
  }
  if (!webhook.ca_file.empty()) {
    ASSIGN_OR_RETURN(webhook.ca_pem, ReadCertificateFile(key + ".caFile", webhook.ca_file));
  }
  for (const auto& [name, file] : webhook.header_files) {
    ASSIGN_OR_RETURN(std::string value, ReadSecretFile(key + ".headerFiles." + name, file));
    webhook.headers.emplace_back(name, std::move(value));
  }
  return absl::OkStatus();
}

// Where a URL leads, "hooks.example.org:443", without the user, path and query that it may have.
std::string HostOf(const std::string& url) {
  const size_t scheme = url.find("://");
  const std::string rest = scheme == std::string::npos ? url : url.substr(scheme + 3);
  const std::string authority = rest.substr(0, rest.find_first_of("/?#"));
  return authority.substr(authority.rfind('@') + 1);
}

}  // namespace

std::string WebhookUrlFault(const std::string& url) {
  const bool printable = std::all_of(url.begin(), url.end(), [](unsigned char c) { return c > ' ' && c < 0x7f; });
  const bool fits = (absl::StartsWith(url, "https://") || absl::StartsWith(url, "http://")) && printable;
  return fits ? "" : "This must be a URL, http:// or https://.";
}

std::string WebhookSecretFault(const std::string& secret) { return secret.size() < kMinWebhookSecret ? "The secret has at least 16 characters." : ""; }

absl::Status ReadNotificationFiles(NotificationSettings& settings) {
  if (settings.smtp) {
    SmtpSettings& smtp = *settings.smtp;
    if (!smtp.password_file.empty()) {
      ASSIGN_OR_RETURN(smtp.password, ReadSecretFile("notifications.smtp.passwordFile", smtp.password_file));
    }
    if (!smtp.ca_file.empty()) {
      ASSIGN_OR_RETURN(smtp.ca_pem, ReadCertificateFile("notifications.smtp.caFile", smtp.ca_file));
    }
  }
  for (auto& [name, webhook] : settings.webhooks) RETURN_IF_ERROR(ReadWebhookFiles("notifications.webhooks." + name, webhook));
  return absl::OkStatus();
}

std::string Shown(const SmtpSettings& smtp) {
  const char* tls = smtp.tls == SmtpSettings::Tls::kNone ? "none" : smtp.tls == SmtpSettings::Tls::kTls ? "tls" : "starttls";
  std::string text = absl::StrCat(smtp.host, ", port ", smtp.port == 0 ? "by default" : absl::StrCat(smtp.port), ", tls ", tls, ", from ", smtp.from);
  if (!smtp.user.empty()) absl::StrAppend(&text, ", user ", smtp.user);
  if (!smtp.password_file.empty()) absl::StrAppend(&text, ", password from ", smtp.password_file);
  if (!smtp.ca_file.empty()) absl::StrAppend(&text, ", certificates of ", smtp.ca_file);
  return absl::StrCat(text, ", timeout ", FormatDuration(smtp.timeout));
}

std::string Shown(const WebhookSettings& webhook) {
  std::string text = HostOf(webhook.url);
  if (!webhook.url_file.empty()) absl::StrAppend(&text, " from ", webhook.url_file);
  absl::StrAppend(&text, webhook.secret.empty() ? ", unsigned" : ", signed");
  if (!webhook.secret_file.empty()) absl::StrAppend(&text, " with the secret of ", webhook.secret_file);
  for (const auto& [name, value] : webhook.headers) absl::StrAppend(&text, ", header ", name);
  if (!webhook.ca_file.empty()) absl::StrAppend(&text, ", certificates of ", webhook.ca_file);
  return absl::StrCat(text, ", timeout ", FormatDuration(webhook.timeout));
}

std::vector<std::string> SecretTexts(const SmtpSettings& smtp) {
  return smtp.password.size() >= kMinHiddenText ? std::vector<std::string>{smtp.password} : std::vector<std::string>{};
}

std::vector<std::string> SecretTexts(const WebhookSettings& webhook) {
  std::vector<std::string> texts{webhook.url, webhook.secret};
  const size_t path = webhook.url.find_first_of("/?", webhook.url.find("://") + 3);
  if (path < webhook.url.size()) texts.push_back(webhook.url.substr(path));
  for (const auto& [name, value] : webhook.headers) texts.push_back(value);
  std::erase_if(texts, [](const std::string& text) { return text.size() < kMinHiddenText; });
  return texts;
}

bool IsPlainAddress(const std::string& text) {
  const size_t at = text.find('@');
  if (text.size() > 254 || at == 0 || at == std::string::npos || at + 1 == text.size() || text.find('@', at + 1) != std::string::npos) return false;
  for (const unsigned char c : text) {
    if (c <= ' ' || c >= 0x7f || std::string_view("<>()[],;:\\\"").find(static_cast<char>(c)) != std::string_view::npos) return false;
  }
  return true;
}

}  // namespace bulkhead
