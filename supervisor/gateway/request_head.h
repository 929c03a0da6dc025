// The head of a request as the module sees it, and the response head as the client sees it: which fields travel, which end here, which
// are ours (LINK.md, "What a request carries"; RFC 9110 7.6). Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "supervisor/auth/identity.h"
#include "supervisor/base/clock.h"
#include "supervisor/gateway/http1.h"
#include "supervisor/telemetry/trace_context.h"

namespace bulkhead {

// x-request-id of a client is kept when it is [A-Za-z0-9._-]{1,128}.
bool ValidRequestId(std::string_view id);

// The identity headers, encoded as pairs; made once per login.
struct IdentityPairs {
  std::string encoded;
  uint16_t count = 0;
};
IdentityPairs EncodeIdentity(const Identity& identity);

// What a module is told of the time that a request has, and of the calls behind it (LINK.md, "What a request carries").
inline constexpr std::string_view kTimeoutHeader = "x-bulkhead-timeout-ms", kHopsHeader = "x-bulkhead-hops";

struct RequestContext {
  std::string_view method;      // as the module shall see it
  std::string_view path;        // raw, behind /api/v1/m/<name>
  std::string_view request_id;
  std::string_view peer_address;   // "" for a module
  const IdentityPairs* identity = nullptr;  // of a known caller
  bool websocket = false;       // asks for a tunnel
  TraceContext trace;           // of the gateway's own span, which is the parent of the module's
  std::string_view tracestate;  // "" for none
  int hops = 0;                 // of a module's call, itself included
  std::optional<Millis> timeout;  // until the answer's head must be there; absent where that depends on a body that is still to come
};
// Replaces `frame` with a whole REQUEST frame for stream 0 (the link puts the id in). False when it is longer than a frame may be.
bool EncodeRequest(const http1::RequestHead& head, const RequestContext& context, std::string_view first_body, bool end, std::string& frame);

// For a frame that is sent later than it was made: the time that it tells becomes what is `left`, at least 1 ms, and never more than it was.
void LowerTimeout(std::string& frame, Millis left);

// The trailers of a request (BodyReader::trailers()) as pairs for a frame; "" when none of them may travel: those that frame, route or
// authorise a request must come before its body (RFC 9110 6.5.1).
std::string EncodeTrailers(std::string_view lines);

// The reason phrase, "" for a status that has none.
std::string_view ReasonPhrase(int status);
void AppendStatusLine(std::string& out, int status);

// Fields of a module's answer, checked and appended to `out` as header lines.
enum class FieldsResult { kOk, kBadField, kMalformed };  // malformed: the pairs do not parse, which ends the connection
struct ResponseFields {
  int64_t content_length = -1;  // what the module said; not appended
};
FieldsResult AppendResponseFields(std::string_view pairs, std::string& out, ResponseFields& fields);

}  // namespace bulkhead
