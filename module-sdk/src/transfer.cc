#include "transfer.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "curl.h"

namespace bulkhead::sdk {
namespace {

using std::chrono::milliseconds;
using TransferClock = std::chrono::steady_clock;

constexpr long kMinAttempt = 1;  // milliseconds; 0 would be no limit
constexpr milliseconds kLookWhetherAnybodyWaits{100};
constexpr char kUserAgent[] = "bulkhead-sdk/1";

// What libcurl's callbacks fill for the time of one transfer.
struct Receiving {
  const ClientSettings& settings;
  const Transfer& transfer;
  ClientResponse response;
  size_t head = 0, sent = 0;
  bool too_large = false, cancelled = false;
  TransferClock::time_point looked{};
};

std::string_view Trimmed(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

size_t TakeHead(char* data, size_t size, size_t count, void* to) {
  auto& receiving = *static_cast<Receiving*>(to);
  const std::string_view line(data, size * count);
  if ((receiving.head += line.size()) > kMaxClientHead) {
    receiving.too_large = true;
    return 0;
  }
  if (line.starts_with("HTTP/")) {
    receiving.response.headers.clear();  // what came before was interim
    return line.size();
  }
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return line.size();
  std::string name(Trimmed(line.substr(0, colon)));
  for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  const std::string_view value = Trimmed(line.substr(colon + 1));
  uint64_t length = 0;
  if (name == "content-length" && receiving.transfer.method != "HEAD") {
    const auto [end, fault] = std::from_chars(value.data(), value.data() + value.size(), length);
    receiving.too_large |= fault == std::errc() && length > receiving.settings.max_body;
  }
  receiving.response.headers.emplace_back(std::move(name), value);
  return receiving.too_large ? 0 : line.size();
}

size_t TakeBody(char* data, size_t size, size_t count, void* to) {
  auto& receiving = *static_cast<Receiving*>(to);
  const size_t bytes = size * count;
  if (bytes > receiving.settings.max_body - receiving.response.body.size()) {
    receiving.too_large = true;
    return 0;
  }
  receiving.response.body.append(data, bytes);
  return bytes;
}

// The body of what may not be sent twice: libcurl can't rewind it, and so does not repeat it by itself on a fresh connection.
size_t GiveBody(char* to, size_t size, size_t count, void* from) {
  auto& receiving = *static_cast<Receiving*>(from);
  const std::string_view rest = receiving.transfer.body.substr(receiving.sent);
  const size_t bytes = std::min(rest.size(), size * count);
  if (bytes > 0) memcpy(to, rest.data(), bytes);
  receiving.sent += bytes;
  return bytes;
}

int LookUp(void* from, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  auto& receiving = *static_cast<Receiving*>(from);
  const auto now = TransferClock::now();
  if (now - receiving.looked < kLookWhetherAnybodyWaits) return 0;
  receiving.looked = now;
  receiving.cancelled = receiving.transfer.scope && receiving.transfer.scope->cancelled();
  return receiving.cancelled ? 1 : 0;
}

}  // namespace

struct Transfers::Handle {
  Handle() : easy(curl().curl_easy_init()) {}
  ~Handle() { curl().curl_easy_cleanup(easy); }
  Handle(const Handle&) = delete;
  template <typename T>
  void Set(CURLoption option, T value) {
    if (const CURLcode code = curl().curl_easy_setopt(easy, option, value); code != CURLE_OK)
      throw ClientError("CLIENT_UNAVAILABLE", std::string("libcurl does not take a setting: ") + curl().curl_easy_strerror(code), false);
  }
  long Number(CURLINFO what) const {
    long value = 0;
    curl().curl_easy_getinfo(easy, what, &value);
    return value;
  }
  // Whether the connection, TLS included, was there: from then on bytes may have been sent.
  bool Connected() const {
    curl_off_t microseconds = 0;
    curl().curl_easy_getinfo(easy, CURLINFO_PRETRANSFER_TIME_T, &microseconds);
    return microseconds > 0;
  }
  CURL* const easy;
  char error[CURL_ERROR_SIZE] = "";
};

// A handle for as long as this lives; null when none was free in time.
class Transfers::Lent {
 public:
  Lent(Transfers& transfers, const Transfer& transfer) : transfers_(transfers) {
    std::unique_lock lock(transfers_.mutex_);
    while (transfers_.lent_ >= transfers_.settings_.max_connections) {
      const auto now = TransferClock::now();
      if (now >= transfer.until) return;
      if ((cancelled_ = transfer.scope && transfer.scope->cancelled())) return;
      transfers_.returned_.wait_until(lock, std::min(transfer.until, now + kLookWhetherAnybodyWaits));
    }
    if (!transfers_.idle_.empty()) {
      handle_ = std::move(transfers_.idle_.back());
      transfers_.idle_.pop_back();
    } else {
      handle_ = transfers_.Open();  // libcurl connects later
    }
    ++transfers_.lent_;
  }
  ~Lent() {
    if (!handle_) return;
    {
      std::lock_guard lock(transfers_.mutex_);
      transfers_.idle_.push_back(std::move(handle_));
      --transfers_.lent_;
    }
    transfers_.returned_.notify_one();
  }
  Lent(const Lent&) = delete;
  Handle* operator->() const { return handle_.get(); }
  explicit operator bool() const { return handle_ != nullptr; }
  bool cancelled() const { return cancelled_; }

 private:
  Transfers& transfers_;
  std::unique_ptr<Handle> handle_;
  bool cancelled_ = false;
};

Transfers::Transfers(const ClientSettings& settings) : settings_(settings) {}
Transfers::~Transfers() = default;

// With what is the same for each transfer.
std::unique_ptr<Transfers::Handle> Transfers::Open() const {
  auto handle = std::make_unique<Handle>();
  if (!handle->easy) throw ClientError("CLIENT_UNAVAILABLE", "libcurl makes no handle", false);
  handle->Set(CURLOPT_NOSIGNAL, 1L);
  handle->Set(CURLOPT_PROTOCOLS_STR, "http,https");
  handle->Set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
  handle->Set(CURLOPT_FOLLOWLOCATION, 0L);
  handle->Set(CURLOPT_PATH_AS_IS, 1L);
  handle->Set(CURLOPT_PROXY, "");
  handle->Set(CURLOPT_SSL_VERIFYPEER, 1L);
  handle->Set(CURLOPT_SSL_VERIFYHOST, 2L);
  if (!settings_.ca_pem.empty()) {
    curl_blob blob{const_cast<char*>(settings_.ca_pem.data()), settings_.ca_pem.size(), CURL_BLOB_COPY};
    handle->Set(CURLOPT_CAINFO_BLOB, &blob);
    handle->Set(CURLOPT_CAPATH, static_cast<char*>(nullptr));
  }
  handle->Set(CURLOPT_MAXCONNECTS, 1L);
  handle->Set(CURLOPT_TCP_KEEPALIVE, 1L);
  handle->Set(CURLOPT_USERAGENT, kUserAgent);
  handle->Set(CURLOPT_ERRORBUFFER, handle->error);
  handle->Set(CURLOPT_HEADERFUNCTION, &TakeHead);
  handle->Set(CURLOPT_WRITEFUNCTION, &TakeBody);
  handle->Set(CURLOPT_READFUNCTION, &GiveBody);
  handle->Set(CURLOPT_XFERINFOFUNCTION, &LookUp);
  handle->Set(CURLOPT_NOPROGRESS, 0L);
  return handle;
}

namespace {

TransferResult Failed(AttemptEnd end, const char* code, std::string why) { return {end, code, std::move(why), {}}; }

TransferResult Outcome(CURLcode code, const std::string& detail, bool connected, Receiving& receiving) {
  const std::string text = detail.empty() ? curl().curl_easy_strerror(code) : detail;
  if (receiving.too_large) {
    return Failed(AttemptEnd::kUnusable, "BODY_TOO_LARGE",
                  "the answer is longer than " + std::to_string(receiving.settings.max_body) + " bytes, or its head than 64 KiB");
  }
  if (receiving.cancelled) return {AttemptEnd::kCancelled, {}, {}, {}};
  switch (code) {
    case CURLE_OK: return {AttemptEnd::kAnswered, {}, {}, std::move(receiving.response)};
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT: return Failed(AttemptEnd::kNotConnected, "CONNECT_FAILED", text);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR: return Failed(AttemptEnd::kUnusable, "TLS_FAILED", text);
    case CURLE_SSL_CONNECT_ERROR: return Failed(AttemptEnd::kNotConnected, "TLS_FAILED", text);
    case CURLE_OPERATION_TIMEDOUT:
      return connected ? Failed(AttemptEnd::kTimedOut, "TIMEOUT", "no whole answer in time")
                       : Failed(AttemptEnd::kNotConnected, "TIMEOUT", "no connection in time");
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL: return Failed(AttemptEnd::kUnusable, "INVALID_REQUEST", "libcurl does not take the URL");
    case CURLE_OUT_OF_MEMORY:
    case CURLE_FAILED_INIT: return Failed(AttemptEnd::kUnusable, "CLIENT_UNAVAILABLE", curl().curl_easy_strerror(code));
    default: return Failed(connected ? AttemptEnd::kLost : AttemptEnd::kNotConnected, "CONNECTION_LOST", curl().curl_easy_strerror(code));
  }
}

// A list of libcurl's.
class Lines {
 public:
  explicit Lines(const std::vector<std::string>& lines) {
    for (const std::string& line : lines) {
      curl_slist* longer = curl().curl_slist_append(list_, line.c_str());
      if (!longer) throw std::bad_alloc();
      list_ = longer;
    }
  }
  ~Lines() { curl().curl_slist_free_all(list_); }
  Lines(const Lines&) = delete;
  curl_slist* get() const { return list_; }

 private:
  curl_slist* list_ = nullptr;
};

}  // namespace

TransferResult Transfers::Run(const Transfer& transfer) {
  curl();  // what it throws comes before a handle is lent
  const Lent handle(*this, transfer);
  if (handle.cancelled()) return {AttemptEnd::kCancelled, {}, {}, {}};
  if (!handle) {
    return Failed(AttemptEnd::kUnusable, "OVERLOADED",
                  "all of its " + std::to_string(settings_.max_connections) + " connections were in use for as long as the call may take");
  }
  Receiving receiving{settings_, transfer, {}};
  const Lines lines(transfer.lines);
  const long left = static_cast<long>(std::max<int64_t>(kMinAttempt, std::chrono::ceil<milliseconds>(transfer.until - TransferClock::now()).count()));
  const bool with_body = !transfer.body.empty() || transfer.method == "POST" || transfer.method == "PUT" || transfer.method == "PATCH";
  handle->Set(CURLOPT_HTTPGET, 1L);  // clears what the last one was
  if (transfer.method == "HEAD") handle->Set(CURLOPT_NOBODY, 1L);
  if (with_body) {
    handle->Set(CURLOPT_POST, 1L);
    handle->Set(CURLOPT_POSTFIELDS, transfer.repeatable ? (transfer.body.empty() ? "" : transfer.body.data()) : nullptr);
    handle->Set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(transfer.body.size()));
  }
  handle->Set(CURLOPT_CUSTOMREQUEST, transfer.method.c_str());
  // Without a body nothing keeps libcurl from repeating it: so it has no kept connection to find dead.
  handle->Set(CURLOPT_FRESH_CONNECT, !transfer.repeatable && transfer.body.empty() ? 1L : 0L);
  handle->Set(CURLOPT_URL, transfer.url.c_str());
  handle->Set(CURLOPT_HTTPHEADER, lines.get());
  handle->Set(CURLOPT_TIMEOUT_MS, left);
  handle->Set(CURLOPT_CONNECTTIMEOUT_MS, std::max(kMinAttempt, std::min(left, static_cast<long>(settings_.connect_timeout.count()))));
  handle->Set(CURLOPT_HEADERDATA, static_cast<void*>(&receiving));
  handle->Set(CURLOPT_WRITEDATA, static_cast<void*>(&receiving));
  handle->Set(CURLOPT_READDATA, static_cast<void*>(&receiving));
  handle->Set(CURLOPT_XFERINFODATA, static_cast<void*>(&receiving));
  handle->error[0] = '\0';
  const CURLcode code = curl().curl_easy_perform(handle->easy);
  receiving.response.status = static_cast<int>(handle->Number(CURLINFO_RESPONSE_CODE));
  return Outcome(code, handle->error, handle->Connected(), receiving);
}

}  // namespace bulkhead::sdk
