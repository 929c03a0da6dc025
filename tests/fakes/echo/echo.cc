// The module that the gateway's and the jobs' tests talk to: it answers with what it was asked, streams, waits, fails and
// crashes on request.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>

#include "bulkhead/module.h"

namespace {

using namespace bulkhead::sdk;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr size_t kChunk = 32 * 1024;  // of a streamed body, each way
constexpr size_t kTorrentPiece = 64 * 1024;
constexpr int64_t kMaxStream = int64_t{1} << 30;
constexpr milliseconds kMaxSlow{60'000};
constexpr milliseconds kCancelPoll{5};

// Events that GET /events may have sent by now; POST /events allows one more.
std::atomic<int> allowed_events{0};

// Handlers that were told that nobody waits any more.
std::atomic<int> cancelled_waits{0}, cancelled_streams{0};

Json What(Request& request) {
  Json headers = Json::array();
  for (const auto& [name, value] : request.headers()) headers.push_back({name, value});
  Json query = Json::array();
  for (const auto& [name, value] : request.query()) query.push_back({name, value});
  return {{"method", request.method()},
          {"target", request.target()},
          {"path", request.path()},
          {"headers", headers},
          {"query", query},
          {"body", request.body()},
          {"subject", request.identity().subject},
          {"permissions", request.identity().permissions}};
}

Response Slow(Request& request) {
  const auto until = steady_clock::now() + milliseconds(request.query_int("ms", 0, 0, kMaxSlow.count()));
  while (steady_clock::now() < until && !request.cancelled()) std::this_thread::sleep_for(kCancelPoll);
  if (request.cancelled()) ++cancelled_waits;
  return Ok({{"cancelled", request.cancelled()}});
}

// `bytes` bytes of "abc…z", counted in a trailer.
Response StreamBytes(Request& request) {
  const int64_t bytes = request.query_int("bytes", 0, 0, kMaxStream);
  Response response = Stream("application/octet-stream", [bytes](ResponseWriter& writer) {
    std::string chunk(kChunk, ' ');
    for (int64_t sent = 0; sent < bytes; sent += int64_t(chunk.size())) {
      chunk.resize(size_t(std::min<int64_t>(kChunk, bytes - sent)));
      for (size_t i = 0; i < chunk.size(); ++i) chunk[i] = char('a' + (sent + int64_t(i)) % 26);
      if (!writer.Write(chunk)) {
        ++cancelled_streams;
        return;
      }
    }
    writer.Trailer("x-bytes", std::to_string(bytes));
  });
  if (request.query("length")) response.Header("content-length", std::to_string(bytes));
  return response;
}

// `n` server-sent events, each made only when it is allowed: a client that waits for one before it allows the next would wait without end
// for one that is held back on its way.
Response Events(Request& request) {
  const int64_t count = request.query_int("n", 1, 1, 1000);
  allowed_events = 1;
  return Stream("text/event-stream", [count](ResponseWriter& writer) {
    for (int i = 0; i < count; ++i) {
      while (allowed_events <= i && !writer.cancelled()) std::this_thread::sleep_for(kCancelPoll);
      if (!writer.Write("id: " + std::to_string(i) + "\ndata: made\n\n")) {
        ++cancelled_streams;
        return;
      }
    }
  });
}

// Reads a little, waits, and reads on.
Response Sip(Request& request) {
  std::string buffer(kChunk, '\0');
  int64_t bytes = int64_t(request.Read(buffer.data(), buffer.size()));
  const auto until = steady_clock::now() + milliseconds(request.query_int("ms", 0, 0, kMaxSlow.count()));
  while (steady_clock::now() < until && !request.cancelled()) std::this_thread::sleep_for(kCancelPoll);
  while (const size_t n = request.Read(buffer.data(), buffer.size())) bytes += int64_t(n);
  return Ok({{"bytes", bytes}});
}

Response Upload(Request& request) {
  std::string buffer(kChunk, '\0');
  int64_t bytes = 0;
  uint64_t sum = 0;
  while (const size_t n = request.Read(buffer.data(), buffer.size())) {
    for (size_t i = 0; i < n; ++i) sum += uint8_t(buffer[i]);
    bytes += int64_t(n);
  }
  return Ok({{"bytes", bytes}, {"sum", sum}});
}

// payload: {"ms": how long, "steps": progress reports, "fail": error code, "retryable": bool, "crash": true}; any part may be absent.
Json Work(JobContext& job) {
  const Json payload = job.payload().is_object() ? job.payload() : Json::object();
  if (payload.value("crash", false)) std::abort();
  const int steps = std::max(1, payload.value("steps", 1));
  for (int step = 1; step <= steps; ++step) {
    job.WaitFor(milliseconds(payload.value("ms", 0) / steps));
    job.ThrowIfCancelled();
    job.Progress(double(step) / steps, "step " + std::to_string(step));
  }
  if (payload.contains("fail")) {
    throw JobFailure(payload["fail"].get<std::string>(), "told to fail", payload.value("retryable", true));
  }
  if (payload.value("trace", false)) return {{"trace", job.trace().traceparent()}, {"current", CurrentTrace::Get().traceparent()}};
  return {{"payload", job.payload()}, {"attempt", job.attempt()}};
}

// What the SDK says of the trace, inside of a handler.
Response Trace(Request& request) {
  const TraceContext child = CurrentTrace::Get().Child();
  Json headers = Json::object();
  for (const auto& [name, value] : child.Headers()) headers[name] = value;
  return Ok({{"traceId", request.trace().trace_id()},
             {"spanId", request.trace().span_id()},
             {"sampled", request.trace().sampled()},
             {"current", CurrentTrace::Get().traceparent()},
             {"headers", headers}});
}

// Says every message back, text as text and bytes as bytes; "close CODE REASON" closes.
WebSocketEvents EchoSocket(Request&) {
  WebSocketEvents events;
  events.on_message = [](const WebSocketPtr& socket, std::string_view message, bool binary) {
    if (message.starts_with("close ")) {
      const std::string rest(message.substr(6));
      const size_t space = std::min(rest.find(' '), rest.size() - 1);
      return socket->Close(uint16_t(std::stoi(rest)), rest.substr(space + 1));
    }
    const bool sent = binary ? socket->SendBinary(message) : socket->Send(message);
    if (!sent) socket->Close(close_code::kTryAgainLater, "too slow");
  };
  return events;
}

void WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n <= 0) return;
    bytes.remove_prefix(size_t(n));
  }
}

// The body, to stdout or with ?stream=stderr to stderr, in one piece.
Response Print(Request& request) {
  WriteAll(request.query("stream").value_or("") == "stderr" ? 2 : 1, request.body());
  return Ok({{"pid", getpid()}});
}

// Lines as fast as somebody reads them.
Response Torrent(Request& request) {
  std::string lines;
  while (lines.size() < kTorrentPiece) lines += std::string(99, 't') + "\n";
  const auto until = steady_clock::now() + milliseconds(request.query_int("ms", 0, 0, kMaxSlow.count()));
  int64_t bytes = 0;
  for (; steady_clock::now() < until && !request.cancelled(); bytes += int64_t(lines.size())) WriteAll(1, lines);
  return Ok({{"bytes", bytes}});
}

std::atomic<int> told{0};  // how often OnFlags was called

// The greeting "nonsense" is no greeting.
void Accept(const Json& config) {
  if (config.value("greeting", "") == "nonsense") throw ConfigError("nonsense is no greeting");
}

class Echo : public Module {
 public:
  void Initialize(Context& context) override {
    Router& router = context.router();
    for (const char* method : {"GET", "POST", "PUT", "DELETE"}) {
      router.Handle(method, "/echo", [](Request& request) { return Ok(What(request)); });
    }
    router.Get("/echo/*", [](Request& request) { return Ok(What(request)); });
    router.Get("/items/:item/parts/:part", [](Request& request) {
      return Ok({{"item", request.param("item")}, {"part", request.param("part")}});
    });
    router.Get("/public", [](Request& request) { return Ok(What(request)); });
    router.Get("/special", [](Request& request) { return Ok(What(request)); });
    router.Get("/trace", Trace);
    context.gauge("answer").Set(42);
    Counter& traced = context.counter("traced");
    router.Get("/trace/inline", [&traced](Request& request) {
      traced.Add();
      return Trace(request);
    }).Inline();
    router.Get("/inline", [](Request& request) { return Ok(What(request)); }).Inline();
    router.Get("/slow", Slow);
    router.Get("/stream", StreamBytes);
    router.Get("/cancelled", [](Request&) { return Ok({{"waits", cancelled_waits.load()}, {"streams", cancelled_streams.load()}}); });
    router.Get("/status/:code", [](Request& request) { return Text(int(request.param_int("code", 200, 599)), "as you wish"); });
    router.Get("/throws", [](Request&) -> Response { throw std::runtime_error("what no client should read"); });
    Accept(context.config());
    router.Get("/config", [&context](Request&) {
      const Json config = context.config();
      return Ok({{"greeting", config.value("greeting", "")},
                 {"revision", context.config_revision()},
                 {"hasKey", config.contains("apiKey")},
                 {"pid", getpid()}});
    });
    router.Get("/config/:field", [&context](Request& request) {
      const Json config = context.config();
      const auto value = config.find(std::string(request.param("field")));
      return Ok({{"value", value == config.end() ? Json() : *value}});
    });
    const bool at_first = context.flag_for("new-pricing", "ben");  // before anything but Initialize can have told
    router.Get("/flags/:name", [&context, at_first](Request& request) {
      const std::string name(request.param("name"));
      const bool on_for = context.flag_for(name, request.query("identity").value_or(""));
      return Ok({{"on", context.flag(name)}, {"onFor", on_for}, {"told", told.load()}, {"benAtFirst", at_first}});
    });
    router.Post("/crash", [](Request&) -> Response { std::abort(); });
    router.Get("/crash-midway", [](Request&) {
      return Stream("text/plain", [](ResponseWriter& writer) {
        writer.Write(std::string(kChunk, 'x'));
        std::this_thread::sleep_for(milliseconds(200));  // until the first bytes are with the client
        std::abort();
      });
    });
    router.Post("/small", [](Request& request) { return Ok({{"bytes", request.body().size()}}); });
    router.Post("/upload", Upload).StreamBody();
    router.Post("/sip", Sip).StreamBody();
    router.Get("/events", Events);
    router.Post("/events", [](Request&) { return Ok({{"allowed", ++allowed_events}}); });
    router.WebSocket("/ws", EchoSocket);
    router.Post("/trailers", [](Request& request) {
      const std::string body = request.body();
      Json trailers = Json::array();
      for (const auto& [name, value] : request.trailers()) trailers.push_back({name, value});
      return Ok({{"bytes", body.size()}, {"trailers", trailers}});
    });
    router.Post("/print", Print);
    router.Post("/torrent", Torrent);
    context.jobs().Handle("work", Work);
    context.jobs().Handle("impatient", Work);
    context.log().Info("the echo module is ready", {{"slot", context.slot()}});
  }

  std::optional<std::string> OnConfigure(const Json& config, int64_t) override {
    Accept(config);
    return std::nullopt;
  }
  void OnFlags(const std::vector<std::string>&) override { ++told; }
};

}  // namespace

int main(int argc, char** argv) { return Run<Echo>(argc, argv); }
