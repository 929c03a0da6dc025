// A service that modules may call, as the operator has configured it (`clients.<name>`): a value. The supervisor calls none of them; it checks
// the settings, keeps the secret, and hands both to the modules whose manifest names the client (module-sdk/include/bulkhead/client.h).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "supervisor/base/clock.h"

namespace bulkhead {

inline constexpr size_t kMaxServiceClients = 64;          // in a configuration; a manifest may name 32
inline constexpr size_t kMaxClientHeaders = 32;           // of one client
inline constexpr size_t kMaxClientUrl = 2'048;            // bytes

struct ServiceClient {
  enum class Auth : uint8_t { kNone, kBasic, kBearer, kHeader, kQuery };
  using Fields = std::vector<std::pair<std::string, std::string>>;

  std::string base_url;
  Auth auth = Auth::kNone;
  std::string user;         // of kBasic
  std::string field;        // of kHeader and kQuery: the name of the header or parameter
  std::string secret, secret_file;  // one of them; the file's content is `secret` after ReadClientFiles()
  Millis timeout{30'000}, attempt_timeout{10'000}, connect_timeout{3'000};
  int retries = 2;
  bool breaker = true;
  int breaker_failures = 5, breaker_percent = 50;
  Millis breaker_window{10'000}, breaker_open{30'000};
  int max_connections = 16;
  int64_t max_body = 16 << 20;
  Fields headers;
  std::string ca_file, ca_pem;
  bool operator==(const ServiceClient&) const = default;
};
using ServiceClients = std::map<std::string, ServiceClient>;  // by name

// Where its base URL leads.
struct ServicePlace {
  std::string host;
  uint16_t port = 0;
  bool by_name = false;  // it must be looked up
  bool loopback = false;
};
// "" of one that can be used, else a sentence: http:// or https://, a host, no user, query or fragment. `place` is then filled.
std::string BaseUrlFault(const std::string& url, ServicePlace* place = nullptr);
ServicePlace PlaceOf(const ServiceClient& client);

std::string_view AuthName(ServiceClient::Auth auth);  // "basic"

bool IsLoopbackHost(const std::string& host);
bool IsAddressHost(const std::string& host);

// What each call carries so that the service lets it in, as headers and as query parameters.
ServiceClient::Fields SecretHeaders(const ServiceClient& client);
ServiceClient::Fields SecretQuery(const ServiceClient& client);
// Texts that nobody may see: the secret, and what is made from it.
std::vector<std::string> SecretTexts(const ServiceClient& client);
// All of it but the secret and the values of headers, which may be some, for people.
std::string Shown(const ServiceClient& client);

// Reads the secrets and certificates that lie in files. CONFIG_INVALID names the key and the file; nothing of what stands there.
absl::Status ReadClientFiles(ServiceClients& clients);

}  // namespace bulkhead
