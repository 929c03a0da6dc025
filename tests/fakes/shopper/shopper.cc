// Calls services as it is told, and tells what came of it.
#include <cstdio>
#include <string>

#include "bulkhead/module.h"

namespace {

using namespace bulkhead::sdk;

// what: {"client", "method", "path", "body", "headers": {}, "key", "timeout": ms}
Json Call(Context& context, const Json& what) {
  ClientRequest request;
  request.method = what.value("method", "GET");
  request.path = what.value("path", "/");
  request.body = what.value("body", "");
  request.options.idempotency_key = what.value("key", "");
  for (const auto& [name, value] : what.value("headers", Json::object()).items()) request.options.headers.emplace_back(name, value.get<std::string>());
  if (what.contains("timeout")) request.options.timeout = std::chrono::milliseconds(what["timeout"].get<int64_t>());
  try {
    const ClientResponse response = context.client(what.value("client", "shop")).Send(request);
    return {{"status", response.status}, {"body", response.body}, {"attempts", response.attempts}};
  } catch (const ClientError& error) {
    return {{"code", error.code()}, {"message", error.what()}, {"transient", error.transient()},
            {"retryAfter", error.retry_after() ? Json(error.retry_after()->count()) : Json()}};
  } catch (const ConfigError& error) {
    return {{"code", "NO_CLIENT"}, {"message", error.what()}};
  }
}

class Caller : public Module {
 public:
  void Initialize(Context& context) override {
    context.router().Post("/call", [&context](Request& request) { return Ok(Call(context, request.json())); });
    context.router().Post("/print", [](Request& request) {
      std::printf("%s\n", request.body().c_str());
      std::fflush(stdout);
      return NoContent();
    });
    context.router().Get("/clients", [&context](Request&) {
      return Ok({{"shop", context.has_client("shop")}, {"extra", context.has_client("extra")}, {"other", context.has_client("other")}});
    });
    context.jobs().Handle("call", [&context](JobContext& job) { return Call(context, job.payload()); });
  }
};

}  // namespace

int main(int argc, char** argv) { return Run<Caller>(argc, argv); }
