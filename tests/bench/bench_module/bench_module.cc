// The module of the benchmark: fixed answers, inline on the link's loop and from the worker pool.
#include "tests/bench/answers.h"

#include "bulkhead/module.h"

namespace {

using namespace bulkhead::sdk;

Response Answer(std::string_view body) { return Text(200, std::string(body), std::string(bench::kType)); }

class BenchModule : public Module {
 public:
  void Initialize(Context& context) override {
    Router& router = context.router();
    router.Get("/small", [](Request&) { return Answer(bench::kSmall); }).Inline();
    router.Get("/pool/small", [](Request&) { return Answer(bench::kSmall); });
    router.Get("/64k", [this](Request&) { return Answer(large_); }).Inline();
    router.Get("/1m", [this](Request&) { return Answer(very_large_); }).Inline();
  }

 private:
  const std::string large_ = bench::Large(size_t{64} << 10), very_large_ = bench::Large(size_t{1} << 20);
};

}  // namespace

int main(int argc, char** argv) { return Run<BenchModule>(argc, argv); }
