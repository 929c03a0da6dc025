#include "supervisor/base/service_client.h"

#include <arpa/inet.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "supervisor/base/duration.h"
#include "supervisor/base/secret_file.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

constexpr size_t kMinHidden = 8;  // bytes of a text that is looked for in what modules print; shorter ones would be found everywhere

bool UrlText(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return c > 0x20 && c < 0x7f && std::string("\"<>\\^`{|}?#").find(static_cast<char>(c)) == std::string::npos;
  });
}

std::string Basic(const ServiceClient& client) { return absl::Base64Escape(client.user + ":" + client.secret); }

}  // namespace

std::string_view AuthName(ServiceClient::Auth auth) {
  switch (auth) {
    case ServiceClient::Auth::kNone: return "none";
    case ServiceClient::Auth::kBasic: return "basic";
    case ServiceClient::Auth::kBearer: return "bearer";
    case ServiceClient::Auth::kHeader: return "header";
    case ServiceClient::Auth::kQuery: return "query";
  }
  return "";
}

bool IsAddressHost(const std::string& host) {
  in6_addr address;
  return inet_pton(AF_INET, host.c_str(), &address) == 1 || inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

bool IsLoopbackHost(const std::string& host) { return host == "localhost" || host == "::1" || (host.rfind("127.", 0) == 0 && IsAddressHost(host)); }

std::string BaseUrlFault(const std::string& url, ServicePlace* place) {
  const bool encrypted = url.rfind("https://", 0) == 0;
  if (!encrypted && url.rfind("http://", 0) != 0) return "This must be a URL that begins with https:// or http://.";
  const std::string rest = url.substr(encrypted ? 8 : 7), authority = rest.substr(0, rest.find('/'));
  if (authority.find('@') != std::string::npos) return "The URL may hold no user and no password: they belong into \"auth\".";
  if (url.size() > kMaxClientUrl || !UrlText(rest)) return "The URL may have no query, no fragment and no blank, and at most 2,048 characters.";
  std::string host = authority, port;
  if (!authority.empty() && authority[0] == '[') {
    const size_t end = authority.find(']');
    host = end == std::string::npos ? "" : authority.substr(1, end - 1);
    port = end == std::string::npos ? "" : authority.substr(end + 1);
    if (!host.empty() && host.find(':') == std::string::npos) host.clear();
  } else if (const size_t colon = authority.find(':'); colon != std::string::npos) {
    host = authority.substr(0, colon);
    port = authority.substr(colon);
  }
  int number = encrypted ? 443 : 80;
  const bool numbered = port.empty() || (port[0] == ':' && port.size() > 1 && port.size() <= 6 && absl::ascii_isdigit(port[1]) &&
                                         absl::SimpleAtoi(port.substr(1), &number) && number >= 1 && number <= 65'535);
  if (host.empty() || !numbered) return "The URL must name a host, and may name a port from 1 to 65535.";
  if (place != nullptr) *place = {host, static_cast<uint16_t>(number), !IsAddressHost(host) && !IsLoopbackHost(host), IsLoopbackHost(host)};
  return "";
}

ServicePlace PlaceOf(const ServiceClient& client) {
  ServicePlace place;
  BaseUrlFault(client.base_url, &place);
  return place;
}

ServiceClient::Fields SecretHeaders(const ServiceClient& client) {
  switch (client.auth) {
    case ServiceClient::Auth::kBasic: return {{"authorization", "Basic " + Basic(client)}};
    case ServiceClient::Auth::kBearer: return {{"authorization", "Bearer " + client.secret}};
    case ServiceClient::Auth::kHeader: return {{client.field, client.secret}};
    case ServiceClient::Auth::kNone:
    case ServiceClient::Auth::kQuery: break;
  }
  return {};
}

ServiceClient::Fields SecretQuery(const ServiceClient& client) {
  return client.auth == ServiceClient::Auth::kQuery ? ServiceClient::Fields{{client.field, client.secret}} : ServiceClient::Fields{};
}

std::vector<std::string> SecretTexts(const ServiceClient& client) {
  std::vector<std::string> texts;
  if (client.secret.size() >= kMinHidden) texts.push_back(client.secret);
  if (client.auth == ServiceClient::Auth::kBasic) texts.push_back(Basic(client));
  return texts;
}

std::string Shown(const ServiceClient& client) {
  std::string text = client.base_url + ", auth " + std::string(AuthName(client.auth));
  if (!client.user.empty()) absl::StrAppend(&text, " of ", client.user);
  if (!client.field.empty()) absl::StrAppend(&text, " in ", client.field);
  if (client.auth != ServiceClient::Auth::kNone) absl::StrAppend(&text, " ********");
  if (!client.secret_file.empty()) absl::StrAppend(&text, " from ", client.secret_file);
  absl::StrAppend(&text, ", timeouts ", FormatDuration(client.timeout), " ", FormatDuration(client.attempt_timeout), " ",
                  FormatDuration(client.connect_timeout), ", retries ", client.retries);
  if (client.breaker) {
    absl::StrAppend(&text, ", breaker ", client.breaker_failures, " ", client.breaker_percent, "% of ", FormatDuration(client.breaker_window), " for ",
                    FormatDuration(client.breaker_open));
  } else {
    absl::StrAppend(&text, ", no breaker");
  }
  absl::StrAppend(&text, ", connections ", client.max_connections, ", body ", client.max_body);
  for (const auto& [name, value] : client.headers) absl::StrAppend(&text, ", header ", name);
  if (!client.ca_file.empty()) absl::StrAppend(&text, ", certificates of ", client.ca_file);
  return text;
}

absl::Status ReadClientFiles(ServiceClients& clients) {
  for (auto& [name, client] : clients) {
    const std::string key = "clients." + name;
    if (!client.secret_file.empty()) {
      ASSIGN_OR_RETURN(client.secret, ReadSecretFile(key + ".auth", client.secret_file));
    }
    if (!client.ca_file.empty()) {
      ASSIGN_OR_RETURN(client.ca_pem, ReadCertificateFile(key + ".caFile", client.ca_file));
    }
  }
  return absl::OkStatus();
}

}  // namespace bulkhead
