#include "supervisor/auth/http_get.h"

#include <curl/curl.h>

#include <memory>

#include "absl/strings/str_cat.h"

namespace bulkhead {
namespace {

constexpr long kMaxRedirects = 3;

struct Transfer {
  std::string body;
  size_t max_bytes;
  bool too_large = false;
  const std::function<bool()>* stopped;
};

size_t Take(char* data, size_t, size_t size, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  transfer.too_large = size > transfer.max_bytes - transfer.body.size();
  if (transfer.too_large) return 0;
  transfer.body.append(data, size);
  return size;
}

int Ask(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) { return (*static_cast<Transfer*>(user)->stopped)() ? 1 : 0; }

}  // namespace

absl::StatusOr<std::string> Fetch(const HttpGet& get, const std::function<bool()>& stopped) {
  static const bool ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(ready ? curl_easy_init() : nullptr, curl_easy_cleanup);
  if (!curl) return absl::UnavailableError("libcurl is not usable");
  Transfer transfer{"", get.max_bytes, false, &stopped};
  char why[CURL_ERROR_SIZE] = "";
  const auto set = [&](CURLoption option, auto value) { curl_easy_setopt(curl.get(), option, value); };
  set(CURLOPT_URL, get.url.c_str());
  set(CURLOPT_PROTOCOLS_STR, get.plain ? "http,https" : "https");
  // What begins on this host stays on it; what begins encrypted stays encrypted.
  set(CURLOPT_FOLLOWLOCATION, get.plain ? 0L : 1L);
  set(CURLOPT_REDIR_PROTOCOLS_STR, "https");
  set(CURLOPT_MAXREDIRS, kMaxRedirects);
  if (get.plain) set(CURLOPT_PROXY, "");
  set(CURLOPT_TIMEOUT_MS, static_cast<long>(get.timeout.count()));
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(get.timeout.count()));
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_FAILONERROR, 1L);
  set(CURLOPT_MAXFILESIZE_LARGE, static_cast<curl_off_t>(get.max_bytes));
  set(CURLOPT_ERRORBUFFER, static_cast<char*>(why));
  set(CURLOPT_USERAGENT, "bulkhead");
  set(CURLOPT_WRITEFUNCTION, &Take);
  set(CURLOPT_WRITEDATA, static_cast<void*>(&transfer));
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, &Ask);
  set(CURLOPT_XFERINFODATA, static_cast<void*>(&transfer));
  const CURLcode code = curl_easy_perform(curl.get());
  if (transfer.too_large || code == CURLE_FILESIZE_EXCEEDED) return absl::UnavailableError(absl::StrCat("more than ", get.max_bytes, " bytes"));
  if (code != CURLE_OK) return absl::UnavailableError(why[0] != '\0' ? why : curl_easy_strerror(code));
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  if (status != 200) return absl::UnavailableError(absl::StrCat("HTTP status ", status));
  return std::move(transfer.body);
}

}  // namespace bulkhead
