// The caller of calls.py: calls the module of gateway.py again and again, and says how long that took.
#include <algorithm>
#include <chrono>
#include <vector>

#include "bulkhead/module.h"
#include "tests/bench/answers.h"

namespace {

using namespace bulkhead::sdk;

// Microseconds at the middle and near the end of `calls` calls, one after another.
Json Measure(const ModuleClient& called, const std::string& path, int64_t calls) {
  std::vector<double> micros;
  for (int64_t i = 0; i < calls; ++i) {
    const auto began = std::chrono::steady_clock::now();
    const CallAnswer answer = called.Get(path);
    micros.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - began).count());
    if (answer.status != 200 || answer.body != bench::kSmall) throw HttpError(500, "UNEXPECTED", "the call was answered " + std::to_string(answer.status));
  }
  std::sort(micros.begin(), micros.end());
  return {{"p50", micros[micros.size() / 2]}, {"p99", micros[micros.size() * 99 / 100]}};
}

class CallModule : public Module {
 public:
  void Initialize(Context& context) override {
    context.router().Get("/run/*", [&context](Request& request) {
      return Ok(Measure(context.modules("bench"), "/" + std::string(request.param("*")), request.query_int("calls", 1, 1, 1'000'000)));
    });
  }
};

}  // namespace

int main(int argc, char** argv) { return Run<CallModule>(argc, argv); }
