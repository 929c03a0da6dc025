#include "invoke.h"

#include "current_work.h"
#include "json_text.h"

namespace bulkhead::sdk {
namespace {
constexpr std::string_view kInternalMessage = "the module failed to answer; its log has the reason under this request id";
constexpr std::string_view kDependencyMessage = "a module that this one depends on did not answer; try again soon";
}

Response ErrorResponse(int status, std::string_view code, std::string_view message, std::string_view request_id) {
  return Text(status, ErrorBody(code, message, Json::array(), request_id), "application/json; charset=utf-8");
}

Response ErrorResponse(const HttpError& error, std::string_view request_id) {
  return Text(error.status(), ErrorBody(error.code(), error.what(), error.details(), request_id),
              "application/json; charset=utf-8");
}

Response NotRouted(const Router::Match& match, std::string_view request_id) {
  if (match.allow.empty()) return ErrorResponse(404, "NOT_FOUND", "the module has no such route", request_id);
  Response response = ErrorResponse(405, "METHOD_NOT_ALLOWED", "this path answers " + match.allow, request_id);
  response.Header("allow", match.allow);
  return response;
}

void LogHandlerFailure(const Logger& log, const Route& route, const Request& request, std::string_view type,
                       std::string_view what) {
  log.Error(
      "handler failed",
      {{"route", route.method() + " " + route.pattern()}, {"requestId", request.request_id()}, {"type", type}, {"error", what}});
}

Response Invoke(const Route& route, const Handler& handler, Request& request, const Logger& log) {
  const CurrentTrace::Scope scope(request);
  const CurrentWork work(request);
  try {
    return handler(request);
  } catch (const HttpError& error) {
    return ErrorResponse(error, request.request_id());
  } catch (const RequestCancelled&) {
    throw;
  } catch (const ModuleCallError& error) {
    LogHandlerFailure(log, route, request, TypeName(error), error.what());
    if (error.transient()) return ErrorResponse(503, "MODULE_UNAVAILABLE", kDependencyMessage, request.request_id()).Header("retry-after", "1");
  } catch (const std::exception& error) {
    LogHandlerFailure(log, route, request, TypeName(error), error.what());
  } catch (...) {
    LogHandlerFailure(log, route, request, "unknown", "something that is no std::exception was thrown");
  }
  return ErrorResponse(500, "INTERNAL", kInternalMessage, request.request_id());
}

}  // namespace bulkhead::sdk
