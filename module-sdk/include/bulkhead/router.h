// The module's routes: method and pattern to handler. Filled in Module::Initialize and fixed after it; then read by many
// threads. The gateway has checked login, permissions and the manifest's route list before a request comes here.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bulkhead/http.h"

namespace bulkhead::sdk {

// May throw: see errors.h for what becomes of it. Called by several worker threads at once.
using Handler = std::function<Response(Request&)>;

inline constexpr size_t kDefaultMaxBody = 16 << 20;  // bytes; the manifest's `bodyLimit` is usually lower and comes first

class Route {
 public:
  Route(std::string method, std::string pattern, Handler handler);

  // Runs the handler on the link's loop instead of the worker pool: no thread is changed, which is the fastest there is, but
  // everything else of this worker waits meanwhile. For handlers that only compute or read memory, well under 1 ms; one that
  // stalls the loop for longer is logged as a warning. Must not block, query the database, or stream.
  Route& Inline();
  // Starts the handler at the first bytes of the body, which it reads with Request::Read(). Without it the handler starts when
  // the body is there whole, so that slow senders hold no worker thread. Not together with Inline().
  Route& StreamBody();
  // Bytes of a whole body; beyond: 413 BODY_TOO_LARGE. Default kDefaultMaxBody. No limit on what Read() reads.
  Route& MaxBody(size_t bytes);

  const std::string& method() const { return method_; }
  const std::string& pattern() const { return pattern_; }
  const Handler& handler() const { return handler_; }
  bool is_inline() const { return inline_; }
  bool streams_body() const { return stream_body_; }
  size_t max_body() const { return max_body_; }

 private:
  std::string method_, pattern_;
  Handler handler_;
  bool inline_ = false;
  bool stream_body_ = false;
  size_t max_body_ = kDefaultMaxBody;
};

class Router {
 public:
  // Patterns begin with "/" and are what the manifest's routes say, behind `/api/v1/m/<module>`. A segment is text, `:name`
  // (one segment, not empty), or a last `*` (the rest, also an empty one: `/files/*` takes `/files/` and not `/files`). Text wins
  // over `:name`, `:name` over `*`; the gateway matches alike. HEAD is answered by GET without its body. Throw
  // std::invalid_argument for a malformed or doubled pattern. The reference stays valid.
  Route& Get(std::string pattern, Handler handler) { return Handle("GET", std::move(pattern), std::move(handler)); }
  Route& Post(std::string pattern, Handler handler) { return Handle("POST", std::move(pattern), std::move(handler)); }
  Route& Put(std::string pattern, Handler handler) { return Handle("PUT", std::move(pattern), std::move(handler)); }
  Route& Patch(std::string pattern, Handler handler) { return Handle("PATCH", std::move(pattern), std::move(handler)); }
  Route& Delete(std::string pattern, Handler handler) { return Handle("DELETE", std::move(pattern), std::move(handler)); }
  Route& Handle(std::string method, std::string pattern, Handler handler);

  struct Match {
    const Route* route = nullptr;  // null: nothing for this method
    std::vector<std::pair<std::string, std::string>> params;
    std::string allow;  // "GET, HEAD, POST" when the path is known under other methods, else empty
  };
  // `path` is still percent-encoded, without query. Empty segments count; a trailing slash is a different path.
  // Throws HttpError 400 BAD_REQUEST when a parameter does not decode.
  Match Find(std::string_view method, std::string_view path) const;

  // Routes, runs the handler on this thread and turns what it throws into responses, as in production. For tests of handlers.
  Response Dispatch(Request& request) const;

  // Called by the SDK after Initialize: from then on Handle throws std::logic_error.
  void Freeze() { frozen_ = true; }

 private:
  bool frozen_ = false;
  std::deque<Route> routes_;
  std::vector<std::vector<std::string>> segments_;  // of routes_, split at '/'
};

}  // namespace bulkhead::sdk
