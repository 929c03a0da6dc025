// Calling another module:
//   const Json price = context.modules("pricing-engine").Get("/prices/7").data();
// The call goes over a private socket of the supervisor's gateway and is there what a request of a client is: routed, balanced, parked while a
// worker restarts. The called module sees this module as the caller (`module:<name>`), never who this module works for. It must stand below
// `dependencies.modules` of this module's manifest.
// Blocks, so never call from an Inline() handler. Thread-safe.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "bulkhead/errors.h"
#include "bulkhead/http.h"

namespace bulkhead::sdk {

struct CallOptions {
  // For all of it, the answer's body included; at most what the request or the run has left that this thread works for. The modules behind are
  // told what is left.
  std::chrono::milliseconds timeout{10'000};
  // Sent along. What frames, routes or authorises a call is the SDK's business (std::invalid_argument); `x-request-id` and the trace are those of the
  // current request unless they stand here.
  Headers headers;
  size_t max_body = 16 << 20;  // bytes of the answer; beyond: ModuleCallError
  // Takes the body of a 2xx piece by piece as it comes, instead of CallAnswer::body; false ends the call. No max_body then.
  std::function<bool(std::string_view piece)> on_body;
};

// Whatever status it has.
struct CallAnswer {
  int status = 0;
  Headers headers;  // names lower-case
  std::string body;
  bool ok() const { return status >= 200 && status <= 299; }
  std::optional<std::string_view> header(std::string_view name) const;  // the first of that name, lower-case
  Json json() const;  // throws ModuleCallError when the body is no JSON
  Json data() const;  // `data` of a 2xx in the envelope. Throws ModuleCallError: any other status, with code and message of its envelope
};

class ModuleCalls;

// A module that may be called. A value, cheap to make and to copy; lives no longer than the Context.
class ModuleClient {
 public:
  ModuleClient(ModuleCalls& calls, std::string_view module) : calls_(&calls), module_(module) {}

  // `path` is what stands behind the module's prefix, with the query, percent-encoded. All throw ModuleCallError when there is no answer,
  // RequestCancelled or JobCancelled when nobody waits any more for what the call was made for, std::invalid_argument for a malformed path or header.
  // GET, HEAD and OPTIONS are sent once more when a kept connection proves to be closed.
  CallAnswer Get(std::string_view path, const CallOptions& options = {}) const { return Call("GET", path, {}, options); }
  CallAnswer Delete(std::string_view path, const CallOptions& options = {}) const { return Call("DELETE", path, {}, options); }
  CallAnswer Post(std::string_view path, const Json& body, const CallOptions& options = {}) const { return CallJson("POST", path, body, options); }
  CallAnswer Put(std::string_view path, const Json& body, const CallOptions& options = {}) const { return CallJson("PUT", path, body, options); }
  CallAnswer Patch(std::string_view path, const Json& body, const CallOptions& options = {}) const { return CallJson("PATCH", path, body, options); }
  // Any method and any bytes; their `content-type` stands among the headers.
  CallAnswer Call(std::string_view method, std::string_view path, std::string_view body, const CallOptions& options = {}) const;

 private:
  CallAnswer CallJson(std::string_view method, std::string_view path, const Json& body, const CallOptions& options) const;
  ModuleCalls* calls_;
  std::string module_;
};

}  // namespace bulkhead::sdk
