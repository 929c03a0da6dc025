// The edge around a handler: what it throws becomes a response here, and nowhere else.
#pragma once

#include <string>
#include <string_view>

#include "bulkhead/log.h"
#include "bulkhead/router.h"

namespace bulkhead::sdk {

// Runs the handler, which is the route's or stands for it. Throws RequestCancelled only.
Response Invoke(const Route& route, const Handler& handler, Request& request, const Logger& log);
inline Response Invoke(const Route& route, Request& request, const Logger& log) {
  return Invoke(route, route.handler(), request, log);
}
Response ErrorResponse(const HttpError& error, std::string_view request_id);
Response ErrorResponse(int status, std::string_view code, std::string_view message, std::string_view request_id);
// 404 or 405 with Allow, when Router::Find has no route.
Response NotRouted(const Router::Match& match, std::string_view request_id);
// One log line with what only operators may see.
void LogHandlerFailure(const Logger& log, const Route& route, const Request& request, std::string_view type,
                       std::string_view what);

}  // namespace bulkhead::sdk
