// The module under test: one route, job or check for each thing that the tests look at.
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <system_error>
#include <thread>

#include "bulkhead/module.h"
#include "test_sockets.h"

using namespace bulkhead::sdk;
using bulkhead::sdk_test::Gate;

namespace {
std::atomic<bool> threads_refused{false};
}

// The linker puts this before std::thread's own start (CMakeLists.txt). Refused, it fails as at the limit on processes, but only for
// the SDK's threads: gRPC, whose threads are none of the standard library's, goes on.
extern "C" {
void __real__ZNSt6thread15_M_start_threadESt10unique_ptrINS_6_StateESt14default_deleteIS1_EEPFvvE(void*, void*, void (*)());
void __wrap__ZNSt6thread15_M_start_threadESt10unique_ptrINS_6_StateESt14default_deleteIS1_EEPFvvE(void* thread, void* state,
                                                                                                 void (*depend)()) {
  if (threads_refused) throw std::system_error(EAGAIN, std::generic_category());
  __real__ZNSt6thread15_M_start_threadESt10unique_ptrINS_6_StateESt14default_deleteIS1_EEPFvvE(thread, state, depend);
}
}

namespace {

class TestModule : public Module {
 public:
  void Initialize(Context& context) override {
    context_ = &context;
    Json config = context.config();
    if (config.contains("configError")) throw ConfigError(config["configError"].get<std::string>());
    if (config.contains("throw")) throw std::runtime_error(config["throw"].get<std::string>());
    context.SetWorkers(config.value("workers", 4), config.value("waiting", 1'024));
    requests_ = &context.counter("echoes");
    context.gauge("answer").Set(42);
    Routes(context.router());
    Streams(context.router());
    sockets_.Register(context.router());
    AddJobs(context.jobs());
    if (config.value("hungCheck", false)) {
      context.AddHealthCheck("hung", [this]() -> HealthResult {
        gate_.Wait();
        return {};
      });
    }
    context.AddHealthCheck("disk", [slow = std::chrono::milliseconds(config.value("checkMs", 0))] {
      std::this_thread::sleep_for(slow);
      return HealthResult{};
    });
    hung_overall_ = config.value("hungOverall", false);
    if (config.value("throwingCheck", false)) {
      context.AddHealthCheck("throwing", []() -> HealthResult { throw std::runtime_error("no such disk"); });
    }
    context.log().Info("initialized", {{"slot", context.slot()}, {"data", context.data_dir()}});
  }
  void Stop(std::chrono::steady_clock::time_point) override { context_->log().Info("stopped in order"); }
  HealthResult Health(HealthStatus worst) override {
    if (hung_overall_) gate_.Wait();
    return {worst, ""};
  }
  void Metrics(std::map<std::string, double>& custom) override { custom["own"] = 7; }
  std::optional<std::string> OnConfigure(const Json& config, int64_t) override {
    if (!config.contains("greeting")) return "greeting is missing";
    return std::nullopt;
  }

 private:
  void Routes(Router& router) {
    router.Get("/hello/:name", [this](Request& request) {
      requests_->Add();
      return Ok({{"hello", request.param("name")}, {"greeting", context_->config().value("greeting", "")}});
    });
    router.Get("/inline/:name", [](Request& request) { return Text(200, std::string(request.param("name"))); }).Inline();
    router.Post("/echo", [](Request& request) {
      Response response = Text(200, request.body(), "application/octet-stream");
      response.Header("X-Was", std::to_string(request.body().size()));
      return response;
    });
    router.Post("/echo-inline", [](Request& request) { return Text(200, request.body()); }).Inline();
    router.Post("/small", [](Request& request) { return Text(200, request.body()); }).MaxBody(10);
    router.Get("/query", [](Request& request) {
      return Ok({{"limit", request.query_int("limit", 10, 1, 100)},
                 {"tags", request.query_all("tag")},
                 {"q", request.query("q").value_or("none")}});
    });
    router.Get("/identity", [](Request& request) {
      const Identity& who = request.identity();
      return Ok({{"subject", who.subject},
                 {"roles", who.roles},
                 {"may", who.Allows("readings:read")},
                 {"id", request.request_id()},
                 {"trace", request.traceparent()},
                 {"from", request.client_address()}});
    });
    router.Get("/files/*", [](Request& request) { return Text(200, std::string(request.param("*"))); });
    router.Get("/throw", [](Request&) -> Response { throw std::runtime_error("the secret of this module"); });
    router.Get("/teapot", [](Request&) -> Response { throw HttpError(418, "TEAPOT", "short and stout", {{{"path", "spout"}}}); });
    router.Get("/long-header/:size", [](Request& request) {
      return Text(200, "x").Header("x-long", std::string(size_t(request.param_int("size", 0, 1 << 16)), 'l'));
    });
    router.Get("/long-trailer/:size", [](Request& request) {
      return Stream("text/plain", [size = size_t(request.param_int("size", 0, 1 << 16))](ResponseWriter& out) {
        out.Trailer("x-long", std::string(size, 'l'));
      });
    });
    router.Get("/bad-header", [](Request&) { return Text(200, "x").Header("x-evil", "a\r\nset-cookie: b"); });
    router.Get("/gate", [this](Request&) {
      gate_.Wait();
      return Text(200, "through");
    });
    router.Get("/gate/waiting", [this](Request&) { return Text(200, std::to_string(gate_.waiting())); }).Inline();
    router
        .Post("/gate/open",
              [this](Request&) {
                gate_.Open();
                return NoContent();
              })
        .Inline();
    router.Post("/threads/:state",
                [](Request& request) {
                  threads_refused = request.param("state") == "off";
                  return NoContent();
                })
        .Inline();
    router.Get("/pid", [](Request&) { return Text(200, std::to_string(getpid())); }).Inline();
    router
        .Get("/stall",
             [](Request&) {
               auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
               while (std::chrono::steady_clock::now() < until) {
               }
               return Text(200, "late");
             })
        .Inline();
    router.Get("/await-cancel", [this](Request& request) -> Response {
      ++awaiting_;
      while (!request.cancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      ++cancelled_;
      return Text(200, "nobody reads this");
    });
    router.Get("/awaiting", [this](Request&) { return Text(200, std::to_string(awaiting_)); }).Inline();
    router.Get("/cancelled", [this](Request&) { return Text(200, std::to_string(cancelled_)); }).Inline();
  }

  void Streams(Router& router) {
    router.Get("/large/:size",
               [](Request& request) { return Text(200, std::string(size_t(request.param_int("size", 0, 1 << 28)), 'x')); });
    router.Get("/stream/:size", [this](Request& request) {
      size_t size = size_t(request.param_int("size", 0, 1 << 30));
      return Stream("application/octet-stream", [this, size](ResponseWriter& out) {
        std::string chunk(10'000, 's');
        for (size_t sent = 0; sent < size; sent += chunk.size()) {
          if (!out.Write(std::string_view(chunk).substr(0, std::min(chunk.size(), size - sent)))) {
            ++cancelled_;
            return;
          }
          written_ += std::min(chunk.size(), size - sent);
        }
        out.Trailer("x-sum", std::to_string(size));
      });
    });
    router.Get("/written", [this](Request&) { return Text(200, std::to_string(written_)); }).Inline();
    router.Get("/stream-fails", [](Request&) {
      return Stream("text/plain", [](ResponseWriter& out) {
        out.Write("beginning");
        throw std::runtime_error("in the middle");
      });
    });
    router.Get("/stream-short", [](Request&) {
      return Stream("text/plain", [](ResponseWriter& out) { out.Write("12345"); }).Header("content-length", "10");
    });
    router
        .Post("/sum",
              [](Request& request) {
                char chunk[4'096];
                size_t total = 0;
                while (size_t n = request.Read(chunk, sizeof chunk)) total += n;
                return Text(200, std::to_string(total));
              })
        .StreamBody();
    router
        .Post("/sum-gated",
              [this](Request& request) {
                gate_.Wait();
                char chunk[4'096];
                size_t total = 0;
                while (size_t n = request.Read(chunk, sizeof chunk)) total += n;
                return Text(200, std::to_string(total));
              })
        .StreamBody();
    auto trailers = [](Request& request) {
      bool early = request.path() == "/trailers-streamed" && !request.trailers().empty();
      std::string text = request.body() + (early ? " early" : "");
      for (const auto& [name, value] : request.trailers()) text += " " + name + "=" + value;
      return Text(200, text);
    };
    router.Post("/trailers", trailers);
    router.Post("/trailers-streamed", trailers).StreamBody();
    router.Post("/ignore-body", [](Request&) { return Text(200, "not read"); }).StreamBody();
  }

  void AddJobs(Jobs& jobs) {
    jobs.Handle("add", [](JobContext& job) -> Json {
      job.Progress(0.5, "half way");
      job.Log("info", "adding");
      return {{"sum", job.payload().at("a").get<int>() + job.payload().at("b").get<int>()},
              {"attempt", job.attempt()},
              {"fence", job.fence()},
              {"unit", job.config().value("unit", "")}};
    });
    jobs.Handle("fail", [](JobContext&) -> Json { throw JobFailure("NO_DISK", "the disk is full", false); });
    jobs.Handle("no-text", [](JobContext& job) -> Json {
      const std::string cut = "x" + std::string(4'096, '\xc3');  // the bound of 4 KiB falls into a character, were it one
      job.Progress(0.5, cut);
      job.Log("\xff", "a\xff");
      job.Log("info", "x" + std::string("\xc3\xa4") + std::string(4'092, 'b') + "\xc3\xa4");
      throw JobFailure("NO_\xff", "b\xff", false);
    });
    jobs.Handle("throw", [](JobContext&) -> Json { throw std::out_of_range("index 7"); });
    jobs.Handle("wait", [this](JobContext& job) -> Json {
      job.Progress(0.1, "waiting");
      while (job.WaitFor(std::chrono::seconds(60))) {
      }
      ++cancelled_;
      throw JobCancelled();
    });
    jobs.Handle("chatty", [](JobContext& job) -> Json {
      for (int i = 0; i < 1'100; ++i) job.Log("info", "line");
      for (int i = 0; i <= 1'000; ++i) job.Progress(i / 1'000.0, "");
      return nullptr;
    });
    jobs.Handle("hang", [this](JobContext& job) -> Json {
      job.Progress(0, "hanging");
      gate_.Wait();
      return nullptr;
    });
    jobs.Handle("long-error", [](JobContext&) -> Json { throw JobFailure("LONG", std::string(5 << 20, 'e'), false); });
    jobs.Handle("long-result", [](JobContext&) -> Json { return std::string(300 * 1024, 'r'); });
  }

  Context* context_ = nullptr;
  Counter* requests_ = nullptr;
  Gate gate_;
  bool hung_overall_ = false;
  bulkhead::sdk_test::TestSockets sockets_{gate_};
  std::atomic<int> awaiting_{0};
  std::atomic<int> cancelled_{0};
  std::atomic<size_t> written_{0};
};

}  // namespace

int main(int argc, char** argv) { return Run<TestModule>(argc, argv); }
