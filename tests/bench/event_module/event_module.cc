// Publishes events at a rate by RPC or with transactions, receives them, and keeps the times from publication to handler.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "bulkhead/module.h"

namespace {

using namespace bulkhead::sdk;
using Clock = std::chrono::steady_clock;

constexpr int kThreads = 4;  // as many as the module has connections

int64_t Micros() { return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now().time_since_epoch()).count(); }

std::mutex times_mutex;
std::vector<int64_t> times_us;  // of events that say when they were published
std::atomic<int64_t> received{0};

void Take(const Event& event) {
  ++received;
  if (!event.payload.contains("us")) return;
  const int64_t took = Micros() - event.payload["us"].get<int64_t>();
  std::lock_guard lock(times_mutex);
  times_us.push_back(took);
}

// body: {"count", "perSecond": 0 for as many as go, "transaction": true | false, "threads"}
Response Publish(Context& context, Request& request) {
  const Json body = request.json();
  const int count = body.value("count", 1'000), per_second = body.value("perSecond", 0);
  const bool transaction = body.value("transaction", true);
  std::atomic<int> next{0};
  const auto began = Clock::now();
  const auto work = [&] {
    for (int i = next++; i < count; i = next++) {
      if (per_second > 0) std::this_thread::sleep_until(began + std::chrono::microseconds(int64_t{1'000'000} * i / per_second));
      const std::string key = "k" + std::to_string(i % 100);
      const Json payload = {{"us", Micros()}, {"n", i}};
      if (transaction) {
        context.database().Transact([&](Transaction& t) { context.events().Publish(t, "bench.event", key, payload); });
      } else {
        context.events().Publish("bench.event", key, payload);
      }
    }
  };
  std::vector<std::thread> threads;
  for (int i = body.value("threads", kThreads); i > 0; --i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  return Ok({{"published", count}, {"seconds", std::chrono::duration<double>(Clock::now() - began).count()}});
}

Response Received() {
  std::lock_guard lock(times_mutex);
  std::sort(times_us.begin(), times_us.end());
  const auto at = [](double share) {
    return times_us.empty() ? Json() : Json(double(times_us[size_t(share * double(times_us.size() - 1))]) / 1000.0);
  };
  return Ok({{"events", received.load()}, {"timed", times_us.size()}, {"p50", at(0.5)}, {"p99", at(0.99)}, {"max", at(1)}});
}

class EventBench : public Module {
 public:
  void Initialize(Context& context) override {
    context.events().Subscribe("bench.*", Take);
    context.router().Post("/publish", [&context](Request& request) { return Publish(context, request); });
    context.router().Post("/reset", [](Request&) {
      std::lock_guard lock(times_mutex);
      times_us.clear();
      received = 0;
      return Ok({{"reset", true}});
    });
    context.router().Get("/received", [](Request&) { return Received(); });
  }
};

}  // namespace

int main(int argc, char** argv) { return Run<EventBench>(argc, argv); }
