// A service that the operator has configured under a name (`clients` of the supervisor's configuration) and the manifest asks for
// (`capabilities.clients`): Context::client("woocommerce"). Where it is, how it wants to be asked and with which secret is the operator's
// matter; the module names a path. Thread-safe. Every call blocks, so call from worker threads, jobs and event handlers, never from an
// Inline() handler. An HTTP status is an answer, whatever it says; what is no answer is thrown as ClientError.
//
// - Connections are kept and used again, one by one call at a time; at most `max_connections`, beyond that a call waits. HTTP/2 over TLS when the
//   service offers it. Certificates are checked. No proxy, no cookies, no redirects: a 3xx is an answer, with its `location`.
// - The whole call, retries and waits included, ends within `timeout`, and earlier when the run of the job that it belongs to ends. When nobody
//   waits any more (Request::cancelled(), JobContext::cancelled()) it ends within about a second, as RequestCancelled or JobCancelled.
// - `traceparent`, `tracestate` and `x-request-id` of what this thread handles go along.
// - **Retries**: GET, HEAD, OPTIONS, PUT and DELETE, or whatever has an idempotency key; after no connection, a lost one, an attempt that took too
//   long, 502, 503, 504, and 429 with `retry-after`. Full jitter, 100 ms doubled up to 5 s, no earlier than `retry-after`; not when the
//   call would be over by then, and in all no more than a fifth of the calls and one a second (up to 10 of these saved up). A kept connection
//   that turns out to be dead before a byte of an answer is replaced at once, which is no retry, and only for what may be repeated.
// - **Breaker**: after `breaker_failures` attempts in a row, or `breaker_percent` of those within `breaker_window` (20 at least), that found no
//   connection, no answer in time or a 5xx, calls are refused at once for `breaker_open`. Then one goes through, and decides. Per worker process.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bulkhead/errors.h"
#include "bulkhead/http.h"

namespace bulkhead::sdk {

inline constexpr size_t kDefaultClientBody = 16 << 20;     // bytes of an answer's body; beyond: BODY_TOO_LARGE
inline constexpr size_t kMaxClientHead = 64 << 10;         // bytes of an answer's head; the same
inline constexpr size_t kMaxClientTarget = 8 << 10;        // bytes of path and query; beyond: INVALID_REQUEST

struct ClientSettings {
  std::string name;
  std::string base_url;  // "https://shop.example.org/wp-json/wc/v3": http or https, no query; what is called is below it
  Headers headers;       // of each call
  Headers secret_headers, secret_query;  // the same, and in no message and no log
  std::chrono::milliseconds timeout{30'000}, attempt_timeout{10'000}, connect_timeout{3'000};
  int retries = 2;             // attempts after the first, 0 to 10
  int breaker_failures = 5;    // 0: not counted
  int breaker_percent = 50;    // 0: not counted
  std::chrono::milliseconds breaker_window{10'000}, breaker_open{30'000};
  int max_connections = 16;
  size_t max_body = kDefaultClientBody;
  std::string ca_pem;  // the certificates that it may be signed with; empty: those of the machine
};

// No answer, or none that may be used. The message names client, method and path, and never a secret.
class ClientError : public std::runtime_error {
 public:
  ClientError(std::string code, const std::string& message, bool transient, std::optional<std::chrono::milliseconds> retry_after = {})
      : std::runtime_error(message), code_(std::move(code)), transient_(transient), retry_after_(retry_after) {}
  // CIRCUIT_OPEN, CONNECT_FAILED, TLS_FAILED, CONNECTION_LOST, TIMEOUT, OVERLOADED (no connection free in time), BODY_TOO_LARGE,
  // INVALID_REQUEST (the module's mistake: path, header, method), CLIENT_UNAVAILABLE (libcurl can't be loaded).
  const std::string& code() const { return code_; }
  bool transient() const { return transient_; }  // the same may succeed later
  // Of CIRCUIT_OPEN: when it may be tried again.
  std::optional<std::chrono::milliseconds> retry_after() const { return retry_after_; }

 private:
  std::string code_;
  bool transient_;
  std::optional<std::chrono::milliseconds> retry_after_;
};

struct ClientResponse {
  int status = 0;
  Headers headers;  // names lower-case, in order
  std::string body;
  int attempts = 1;

  bool ok() const { return status >= 200 && status < 300; }
  std::optional<std::string_view> header(std::string_view name) const;  // case-insensitive; the first of that name
  Json json() const;  // throws ClientError INVALID_ANSWER when the body is no JSON
};

struct ClientOptions {
  std::vector<std::pair<std::string, std::string>> query = {};  // encoded here, behind what the path has
  Headers headers = {};  // more headers; none that frames the message, nor one that the operator has set
  std::optional<std::chrono::milliseconds> timeout = {};  // of the whole call; the operator's when that is shorter, or without it
  std::string idempotency_key = {};  // sent as `idempotency-key`; makes a POST or PATCH one that may be retried
};

// What ServiceClient::Send() takes. `path` begins with "/", is percent-encoded, may have a query, and may not leave the base (".."): what comes
// from elsewhere goes through PercentEncode().
struct ClientRequest {
  std::string method = "GET";
  std::string path;
  std::string body = {}, content_type = {};
  ClientOptions options = {};
};

enum class BreakerState { kClosed = 0, kHalfOpen = 1, kOpen = 2 };

class ServiceClient {
 public:
  // Opens nothing. Throws std::invalid_argument for settings that can't be used.
  explicit ServiceClient(ClientSettings settings);
  ServiceClient(const ServiceClient&) = delete;
  ~ServiceClient();

  // Throws ClientError, and RequestCancelled or JobCancelled when what this thread handles is over.
  ClientResponse Send(const ClientRequest& request);
  ClientResponse Get(std::string path, ClientOptions options = {}) { return Send({"GET", std::move(path), {}, {}, std::move(options)}); }
  ClientResponse Delete(std::string path, ClientOptions options = {}) { return Send({"DELETE", std::move(path), {}, {}, std::move(options)}); }
  ClientResponse Post(std::string path, const Json& body, ClientOptions options = {}) { return SendJson("POST", std::move(path), body, std::move(options)); }
  ClientResponse Put(std::string path, const Json& body, ClientOptions options = {}) { return SendJson("PUT", std::move(path), body, std::move(options)); }
  ClientResponse Patch(std::string path, const Json& body, ClientOptions options = {}) { return SendJson("PATCH", std::move(path), body, std::move(options)); }

  const std::string& name() const;
  BreakerState breaker() const;
  // Since the start of the process. The SDK shows them as client_<name>_calls and so on, "-" as "_".
  struct Counts {
    int64_t calls = 0;      // that have ended, however
    int64_t failures = 0;   // of these, without an answer or with a 5xx, the refused ones too
    int64_t retries = 0;
    int64_t refused = 0;    // by the breaker
    double seconds = 0;     // from the beginning to the end of calls, all together
  };
  Counts counts() const;

 private:
  ClientResponse SendJson(const char* method, std::string path, const Json& body, ClientOptions options);
  struct Body;
  std::unique_ptr<Body> body_;
};

// For a segment of a path: all but letters, digits and "-._~" as %XX.
std::string PercentEncode(std::string_view text);

}  // namespace bulkhead::sdk
