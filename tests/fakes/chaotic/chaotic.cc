// The module of tests/chaos: every answer says who gave it and to which request, so that a mix-up is seen; what it confirms to have stored is
// in the database; and on request it exits, hangs, slows down, leaks, floods its log, or does worse.
#include <absl/synchronization/mutex.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bulkhead/module.h"

namespace {

using namespace bulkhead::sdk;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kSoon{30};        // behind the answer that it will be done
constexpr milliseconds kSlowAnswer{150};
constexpr int64_t kMaxTimeMs = 60'000;
constexpr int64_t kMaxMegabytes = 512;
constexpr int64_t kMaxStream = 4 << 20;
constexpr size_t kChunk = 16 * 1024;     // of a stream
constexpr size_t kFloodLines = 200;      // written at once
constexpr milliseconds kFloodPause{2};

std::atomic<steady_clock::time_point> slow_until{}, unwell_until{};
std::atomic<int64_t> stop_takes_ms{0};

bool Still(const std::atomic<steady_clock::time_point>& until) { return steady_clock::now() < until.load(); }

void Later(std::function<void()> what) {
  std::thread([what = std::move(what)] {
    std::this_thread::sleep_for(kSoon);
    what();
  }).detach();
}

void Flood(milliseconds time) {
  std::string lines;
  for (size_t i = 0; i < kFloodLines; ++i) lines += std::string(99, char('a' + i % 26)) + "\n";
  for (const auto end = steady_clock::now() + time; steady_clock::now() < end; std::this_thread::sleep_for(kFloodPause)) {
    if (write(1, lines.data(), lines.size()) < 0 || write(2, lines.data(), lines.size()) < 0) return;
  }
}

void Leak(int64_t megabytes) {
  for (int64_t i = 0; i < megabytes; ++i) {
    if (void* piece = malloc(1 << 20)) memset(piece, 1, 1 << 20);
  }
}

// A child and a grandchild without a parent, in sessions of their own, that heed no signal and hold all our descriptors.
void Fork() {
  if (fork() != 0) return;
  setsid();
  fork();
  for (int number : {SIGTERM, SIGHUP, SIGINT}) signal(number, SIG_IGN);
  for (;;) pause();
}

void UseUpFiles(milliseconds time) {
  std::vector<int> held;
  for (int fd; (fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) held.push_back(fd);
  std::this_thread::sleep_for(time);
  for (int fd : held) close(fd);
}

// In an order and in the other, by one thread: no deadlock, but what a check for them calls one.
void LockBothWays() {
  absl::Mutex first, second;
  for (auto [outer, inner] : {std::pair(&first, &second), std::pair(&second, &first)}) {
    absl::MutexLock held(outer);
    absl::MutexLock held_too(inner);
  }
}

// {"what": …, "ms": for how long, "mb": how much}
void Do(Request& request) {
  const Json order = request.json();
  const std::string what = order.value("what", "");
  const milliseconds time(std::clamp<int64_t>(order.value("ms", 0), 0, kMaxTimeMs));
  const int64_t megabytes = std::clamp<int64_t>(order.value("mb", 0), 0, kMaxMegabytes);
  const std::map<std::string, std::function<void()>> trouble = {
      {"exit", [] { Later([] { _exit(3); }); }},
      {"abort", [] { Later([] { abort(); }); }},
      {"fork", [] { Later(Fork); }},
      {"lock-both-ways", LockBothWays},
      {"leak", [megabytes] { Later([megabytes] { Leak(megabytes); }); }},
      {"flood", [time] { Later([time] { Flood(time); }); }},
      {"files", [time] { Later([time] { UseUpFiles(time); }); }},
      {"slow", [time] { slow_until = steady_clock::now() + time; }},
      {"unwell", [time] { unwell_until = steady_clock::now() + time; }},
      {"stubborn", [time] {
         stop_takes_ms = time.count();
         signal(SIGTERM, SIG_IGN);
       }}};
  const auto found = trouble.find(what);
  if (found == trouble.end()) throw HttpError(400, "INVALID_ARGUMENT", "`what` is none of the troubles that it knows: " + what);
  found->second();
}

class Chaotic : public Module {
 public:
  void Initialize(Context& context) override {
    context_ = &context;
    Router& router = context.router();
    router.Get("/who", [this](Request& request) { return Who(request); }).Inline();
    router.Get("/work", [this](Request& request) {
      if (Still(slow_until)) std::this_thread::sleep_for(kSlowAnswer);
      return Who(request);
    });
    router.Get("/stream", [this](Request& request) { return Bytes(request); });
    router.Post("/echo", [this](Request& request) { return Who(request, request.body()); });
    router.Post("/entries", [this](Request& request) { return Keep(request); });
    router.Post("/do", [this](Request& request) {
      Do(request);
      return Who(request);
    });
    // The link's loop and all of this worker's requests wait for it.
    router.Post("/hang", [this](Request& request) {
      std::this_thread::sleep_for(milliseconds(request.query_int("ms", 0, 0, kMaxTimeMs)));
      return Who(request);
    }).Inline();
    context.AddHealthCheck("wellbeing", [] {
      return Still(unwell_until) ? HealthResult{HealthStatus::kUnhealthy, "told to be unwell"} : HealthResult{};
    });
  }

  void Stop(steady_clock::time_point) override { std::this_thread::sleep_for(milliseconds(stop_takes_ms.load())); }

  std::optional<std::string> OnConfigure(const Json& config, int64_t) override {
    if (config.value("greeting", "") == "refused") return "that is no greeting";
    return std::nullopt;
  }

 private:
  // `n` of the query is the request's own mark.
  Response Who(Request& request, const std::string& body = "") {
    return Ok({{"module", context_->module()},
               {"n", request.query("n").value_or("")},
               {"body", body},
               {"slot", context_->slot()},
               {"pid", getpid()},
               {"greeting", context_->config().value("greeting", "")}});
  }

  // The mark and the name, and again, so that a piece of another answer shows.
  Response Bytes(Request& request) {
    const std::string mark = context_->module() + " " + request.query("n").value_or("") + "\n";
    const int64_t bytes = request.query_int("bytes", 0, 0, kMaxStream);
    return Stream("text/plain", [mark, bytes](ResponseWriter& writer) {
      std::string chunk;
      for (int64_t sent = 0; sent < bytes; sent += int64_t(chunk.size())) {
        chunk.clear();
        while (chunk.size() < kChunk) chunk += mark;
        if (!writer.Write(chunk)) return;
      }
    });
  }

  Response Keep(Request& request) {
    const std::string id = request.query("n").value_or("");
    try {
      context_->database().Query("INSERT INTO entries (id) VALUES ($1)", {id});
    } catch (const DatabaseError& error) {
      return Error(request, 503, "DATABASE_UNAVAILABLE", error.what()).Header("retry-after", "1");
    }
    return Who(request);
  }

  Context* context_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) { return Run<Chaotic>(argc, argv); }
