// A module that calls others as it is told to, and says what it was asked when it is called. For module_calls_test.py, which makes several of it.
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>

#include "bulkhead/module.h"

namespace {

using namespace bulkhead::sdk;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr size_t kChunk = 32 * 1024;
constexpr milliseconds kPoll{5};
constexpr int kHandshake = 3;

std::string handshake;  // the supervisor's line, so that a test may speak with this module's token

int64_t LeftMs(const Request& request) {
  const auto deadline = request.deadline();
  return deadline ? std::chrono::duration_cast<milliseconds>(*deadline - steady_clock::now()).count() : -1;
}

Json What(Request& request) {
  Json headers = Json::object();
  for (const auto& [name, value] : request.headers()) headers[name] = value;
  return {{"headers", headers}, {"subject", request.identity().subject}, {"permissions", request.identity().permissions},
          {"roles", request.identity().roles}, {"body", request.body()}, {"leftMs", LeftMs(request)}, {"pid", getpid()}};
}

// {"module", "method"?, "path", "body"?, "bytes"?: a body of so many, "headers"?, "timeout"?, "maxBody"?, "streamed"?} → what came of it.
Json CallAsTold(Context& context, const Json& told) {
  CallOptions options;
  options.timeout = milliseconds(told.value("timeout", 10'000));
  options.max_body = told.value("maxBody", options.max_body);
  if (told.contains("headers")) {
    for (const auto& [name, value] : told["headers"].items()) options.headers.emplace_back(name, value.get<std::string>());
  }
  size_t pieces = 0, streamed = 0;
  if (told.value("streamed", false)) {
    options.on_body = [&](std::string_view piece) {
      ++pieces;
      streamed += piece.size();
      return true;
    };
  }
  const std::string body = told.contains("bytes") ? std::string(told["bytes"].get<size_t>(), 'x') : told.value("body", "");
  const auto began = steady_clock::now();
  Json result;
  try {
    const ModuleClient called = context.modules(told.at("module").get<std::string>());
    const CallAnswer answer = called.Call(told.value("method", "GET"), told.at("path").get<std::string>(), body, options);
    result = {{"status", answer.status}, {"bytes", answer.body.size() + streamed}, {"pieces", pieces}};
    if (answer.body.size() < kChunk) result["body"] = answer.body;
    for (const auto& [name, value] : answer.headers) result["headers"][name] = value;
  } catch (const ModuleCallError& error) {
    result = {{"error", error.what()}, {"transient", error.transient()}};
  } catch (const std::invalid_argument& error) {
    result = {{"invalid", error.what()}};
  }
  result["ms"] = std::chrono::duration_cast<milliseconds>(steady_clock::now() - began).count();
  return result;
}

// {"through": ["b", "c"], "slow"?: what the last one takes}: calls the first of them with the rest, and says what it was told itself.
Response Chain(Context& context, Request& request) {
  Json told = request.json();
  Json own = {{"module", context.module()}, {"subject", request.identity().subject}, {"leftMs", LeftMs(request)},
              {"traceparent", request.traceparent()}, {"requestId", request.request_id()},
              {"hops", std::string(request.header("x-bulkhead-hops").value_or(""))}};
  Json& through = told["through"];
  if (through.empty()) {
    const auto until = steady_clock::now() + milliseconds(told.value("slow", 0));
    while (steady_clock::now() < until && !request.cancelled()) std::this_thread::sleep_for(kPoll);
    return Ok({{"chain", Json::array({own})}});
  }
  const std::string next = through[0].get<std::string>();
  through.erase(0);
  CallOptions options;
  options.timeout = milliseconds(told.value("timeout", 10'000));
  const CallAnswer answer = context.modules(next).Post("/chain", told, options);
  if (!answer.ok()) {
    const Json error = answer.json()["error"];
    throw HttpError(answer.status, error["code"].get<std::string>(), error["message"].get<std::string>());
  }
  Json chain = Json::array({own});
  const Json behind = answer.data();
  for (const Json& one : behind["chain"]) chain.push_back(one);
  return Ok({{"chain", chain}});
}

Response Slow(Request& request) {
  const auto until = steady_clock::now() + milliseconds(request.query_int("ms", 0, 0, 60'000));
  while (steady_clock::now() < until && !request.cancelled()) std::this_thread::sleep_for(kPoll);
  return Ok({{"cancelled", request.cancelled()}, {"pid", getpid()}});
}

Response StreamBytes(Request& request) {
  const int64_t bytes = request.query_int("bytes", 0, 0, int64_t{1} << 30);
  return Stream("application/octet-stream", [bytes](ResponseWriter& writer) {
    const std::string chunk(kChunk, 'y');
    for (int64_t sent = 0; sent < bytes; sent += int64_t(chunk.size())) {
      if (!writer.Write(std::string_view(chunk).substr(0, size_t(std::min<int64_t>(kChunk, bytes - sent))))) return;
    }
  });
}

Response Upload(Request& request) {
  std::string buffer(kChunk, '\0');
  int64_t bytes = 0;
  while (const size_t n = request.Read(buffer.data(), buffer.size())) bytes += int64_t(n);
  return Ok({{"bytes", bytes}});
}

class Caller : public Module {
 public:
  void Initialize(Context& context) override {
    Router& router = context.router();
    router.Get("/echo", [](Request& request) { return Ok(What(request)); });
    router.Post("/echo", [](Request& request) { return Ok(What(request)); });
    router.Get("/guarded", [](Request& request) { return Ok(What(request)); });
    router.Get("/open", [](Request& request) { return Ok(What(request)); });
    router.Get("/slow", Slow);
    router.Post("/slow", Slow);
    router.Get("/stream", StreamBytes);
    router.Post("/upload", Upload).StreamBody();
    router.Post("/call", [&context](Request& request) { return Ok(CallAsTold(context, request.json())); });
    router.Post("/chain", [&context](Request& request) { return Chain(context, request); });
    router.Get("/data/:path", [&context](Request& request) {
      return Ok(context.modules("back").Get("/" + std::string(request.param("path"))).data());
    });
    router.Get("/credentials", [](Request&) {
      const Json line = Json::parse(handshake);
      return Ok({{"token", line["token"]}, {"socket", line["callSocket"]}});
    });
    context.jobs().Handle("call", [&context](JobContext& job) { return CallAsTold(context, job.payload()); });
  }
};

}  // namespace

int main(int argc, char** argv) {
  // Read without taking it away: Run() wants it, too.
  char line[64 * 1024];
  for (ssize_t n; handshake.find('\n') == std::string::npos && (n = recv(kHandshake, line, sizeof line, MSG_PEEK)) > 0;) handshake.assign(line, size_t(n));
  return Run<Caller>(argc, argv);
}
