// A request as a handler sees it, and what it answers. A Request belongs to the one thread that runs its handler, except
// cancelled(), which any thread may call while the handler runs. Responses are plain values.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bulkhead/errors.h"
#include "bulkhead/trace.h"

namespace bulkhead::sdk {

using Headers = std::vector<std::pair<std::string, std::string>>;

// Who calls, as the supervisor has checked it. On a `public` route without a login the subject is empty.
struct Identity {
  std::string subject;
  std::vector<std::string> roles;
  std::vector<std::string> permissions;
  bool authenticated() const { return !subject.empty(); }
  // True when one of the permissions covers `permission`: equal, "*", or "prefix:*".
  bool Allows(std::string_view permission) const;
};

// Where the bytes of a streamed body come from. Implemented by the SDK; a test may bring its own.
class BodySource {
 public:
  virtual ~BodySource() = default;
  // Blocks until there is a byte; 0 at the end. Throws RequestCancelled.
  virtual size_t Read(char* out, size_t size) = 0;
  virtual bool cancelled() const = 0;
  // What came behind the last byte; asked for once, when Read() has returned 0.
  virtual Headers TakeTrailers() { return {}; }
};

class Request {
 public:
  // `target` is path and query behind the module's prefix, still percent-encoded; header names are lower-case. Public so that
  // handlers can be tested without a supervisor. Throws HttpError 400 BAD_REQUEST when the target does not decode
  // ("%zz", an encoded NUL).
  Request(std::string method, std::string target, Headers headers, std::string body = {});

  const std::string& method() const { return method_; }
  const std::string& target() const { return target_; }  // as it came, percent-encoded, with the query
  const std::string& path() const { return path_; }      // decoded once, without the query

  // A `:name` of the route, or "*" for what a trailing `*` matched; decoded. Empty when the route has none of that name.
  std::string_view param(std::string_view name) const;
  // The same as a whole number. Throws HttpError 400 INVALID_ARGUMENT naming the parameter when it is none or out of range.
  int64_t param_int(std::string_view name, int64_t min = INT64_MIN, int64_t max = INT64_MAX) const;

  // Query parameters: decoded ('+' is a space), in order, a name may come more than once (at most 256 in all, else 400).
  const std::vector<std::pair<std::string, std::string>>& query() const { return query_; }
  std::optional<std::string> query(std::string_view name) const;  // the first of that name
  std::vector<std::string> query_all(std::string_view name) const;
  // The first of that name as a number in [min, max], or `fallback` when it is absent. Throws HttpError 400 INVALID_ARGUMENT.
  int64_t query_int(std::string_view name, int64_t fallback, int64_t min = INT64_MIN, int64_t max = INT64_MAX) const;

  const Headers& headers() const;
  std::optional<std::string_view> header(std::string_view name) const;  // case-insensitive; the first of that name

  // The whole body. On a route with StreamBody() it is read now, which blocks: throws RequestCancelled, and
  // HttpError 413 BODY_TOO_LARGE beyond the route's MaxBody.
  const std::string& body();
  // The body as JSON. Throws HttpError 400 INVALID_JSON.
  Json json();
  // The next bytes of the body; blocks; 0 at the end. Reading gives credit to the sender, so a slow reader slows only its own
  // client. Throws RequestCancelled.
  size_t Read(char* out, size_t size);

  // The fields that came behind the body, names lower-case; without those that frame, route or authorise, which the gateway
  // drops. Empty before the body is complete: on a route with StreamBody() until body() has returned or Read() has returned 0.
  const Headers& trailers() const { return trailers_; }

  const Identity& identity() const;
  std::string_view request_id() const;      // `x-request-id`
  std::string_view traceparent() const;     // W3C trace context, as it came
  // The same, read: what this handler calls belongs below it (trace().Headers()). Not valid() when the caller sent none.
  TraceContext trace() const;
  // Until when the answer's head must be there; nothing when it is not known, because the body was still to come when the request began.
  std::optional<std::chrono::steady_clock::time_point> deadline() const;
  std::string_view client_address() const;  // first of `x-forwarded-for`; empty when unknown

  // True once nobody waits for the answer: client gone, deadline passed, or the module is stopping for good. Any thread.
  bool cancelled() const;

  // For the router and the link. `pairs` are the headers as the link carries them, checked; they are decoded when asked for.
  void set_encoded_headers(std::string pairs) { encoded_ = std::move(pairs); }
  void set_arrived(std::chrono::steady_clock::time_point arrived) { arrived_ = arrived; }
  void set_params(std::vector<std::pair<std::string, std::string>> params) { params_ = std::move(params); }
  void set_source(BodySource* source, size_t max_body) { source_ = source, max_body_ = max_body; }
  void set_body(std::string body) { body_ = std::move(body), whole_ = true; }
  void set_trailers(Headers trailers) { trailers_ = std::move(trailers); }

 private:
  size_t ReadSource(char* out, size_t size);

  std::string method_, target_, path_, body_, encoded_;
  mutable Headers headers_;  // decoded from encoded_ at the first use
  Headers trailers_;
  std::vector<std::pair<std::string, std::string>> params_, query_;
  mutable std::optional<Identity> identity_;
  std::chrono::steady_clock::time_point arrived_{};
  BodySource* source_ = nullptr;  // null: body_ is all there is
  size_t max_body_ = SIZE_MAX;
  size_t read_ = 0;     // bytes of body_ handed out by Read()
  bool whole_ = false;  // body_ is complete, source_ only tells about cancelling
  bool ended_ = false;  // source_ has been read to its end
};

// Sends a streamed body. Used on the worker thread that runs the stream function only.
class ResponseWriter {
 public:
  virtual ~ResponseWriter() = default;
  // Takes all of `data`. Blocks this worker thread while the client is slower than the writer (256 KiB of credit plus a
  // 64 KiB buffer). False when nobody reads any more: stop and return.
  virtual bool Write(std::string_view data) = 0;
  virtual bool cancelled() const = 0;
  // A trailer field, sent after the last byte. `name` lower-case.
  virtual void Trailer(std::string name, std::string value) = 0;
};

// What a handler answers. Header names are made lower-case; hop-by-hop headers and `content-length` of a whole body are the
// SDK's business and dropped. A CR, LF or NUL in a name or value, a status outside 200 to 599, or heads beyond 60 KiB
// turn the answer into 500 INTERNAL with a log line.
struct Response {
  int status = 200;
  Headers headers;
  std::string body;
  // Set for a streamed body (then `body` is unused). Runs on the handler's worker thread after the head is queued, while the
  // Request is still alive. Returning ends the body; throwing cuts the response off, which the client sees as an error.
  // With a `content-length` header exactly so many bytes must be written. Not for Inline() routes: answered with 500.
  std::function<void(ResponseWriter&)> stream;

  Response& Header(std::string name, std::string value) {
    headers.emplace_back(std::move(name), std::move(value));
    return *this;
  }
};

// `{"success":true,"data":…}` and, with `meta` not null, `"meta":…`. Status 200.
Response Ok(const Json& data, const Json& meta = nullptr);
// The same with 201.
Response Created(const Json& data, const Json& meta = nullptr);
Response NoContent();  // 204
// Any JSON document as it is, without the envelope.
Response JsonResponse(int status, const Json& document);
Response Text(int status, std::string text, std::string content_type = "text/plain; charset=utf-8");
// `{"success":false,"error":{code,message,details,requestId}}`. Throwing HttpError does the same from any depth.
Response Error(const Request& request, int status, std::string_view code, std::string_view message,
               const Json& details = Json::array());
// A streamed body; see Response::stream.
Response Stream(std::string content_type, std::function<void(ResponseWriter&)> write);

// Percent-decoding; nullopt for a malformed escape or an encoded NUL. `plus_is_space` for queries and forms.
std::optional<std::string> PercentDecode(std::string_view text, bool plus_is_space);

}  // namespace bulkhead::sdk
