// The module that the tests of the cache let cache: what is read, set, loaded and invalidated is said in each request, and each answer names its
// worker. The truth that loaders read is a file in the folder that all workers share.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "bulkhead/module.h"

namespace {

using namespace bulkhead::sdk;
using std::chrono::milliseconds;

CacheOptions CacheOptionsOf(const Json& body) {
  CacheOptions options;
  options.ttl = milliseconds(body.value("ttl", 300'000));
  options.negative_ttl = milliseconds(body.value("negativeTtl", 10'000));
  options.tags = body.value("tags", std::vector<std::string>());
  return options;
}

class Cacher : public Module {
 public:
  void Initialize(Context& context) override {
    context_ = &context;
    Router& router = context.router();
    router.Get("/get/:key", [this](Request& request) { return Answer(Look(std::string(request.param("key")))); });
    router.Put("/set/:key", [this](Request& request) {
      const Json body = Json::parse(request.body());
      std::optional<std::string> value;
      if (!body.at("value").is_null()) value = body.at("value").get<std::string>();
      context_->cache().Set(request.param("key"), value, CacheOptionsOf(body));
      return Answer(Json::object());
    });
    router.Post("/load/:key", [this](Request& request) { return Load(request); });
    router.Post("/invalidate", [this](Request& request) {
      const Json body = Json::parse(request.body());
      if (body.value("all", false)) {
        context_->cache().Clear();
      } else {
        context_->cache().InvalidateAll(body.value("keys", std::vector<std::string>()), body.value("tags", std::vector<std::string>()));
      }
      return Answer(Json::object());
    });
    router.Post("/hammer", [this](Request& request) { return Hammer(request); });
    router.Get("/truth/:key", [this](Request& request) { return Answer({{"value", Truth(std::string(request.param("key")))}}); });
  }

 private:
  Response Answer(Json data) const {
    data["slot"] = context_->slot();
    return Ok(std::move(data));
  }

  Json Look(const std::string& key) const {
    const CacheLook look = context_->cache().Get(key);
    return {{"known", look.known}, {"value", look.value ? Json(*look.value) : Json()}};
  }

  std::string TruthFile(const std::string& key) const { return context_->data_dir() + "/truth-" + key; }
  int64_t Truth(const std::string& key) const {
    int64_t value = 0;
    std::ifstream(TruthFile(key)) >> value;
    return value;
  }
  void Tell(const std::string& key, int64_t value) const {
    const std::string file = TruthFile(key), fresh = file + "." + std::to_string(context_->slot());
    std::ofstream(fresh) << value;
    if (rename(fresh.c_str(), file.c_str()) != 0) throw std::runtime_error("the truth can't be written");
  }

  // {"value": string | null, "ms": how long it takes, "fail": bool}; tells how often the loader ran.
  Response Load(Request& request) {
    const Json body = Json::parse(request.body());
    int loads = 0;
    const CacheValue value = context_->cache().GetOrLoad(request.param("key"), CacheOptionsOf(body), [&]() -> std::optional<std::string> {
      ++loads;
      std::this_thread::sleep_for(milliseconds(body.value("ms", 0)));
      if (body.value("fail", false)) throw HttpError(502, "SOURCE_AWAY", "as it was told");
      if (!body.contains("value") || body["value"].is_null()) return std::nullopt;
      return body["value"].get<std::string>();
    });
    return Answer({{"value", value ? Json(*value) : Json()}, {"loads", loads}});
  }

  // {"key", "ms", "threads", "write": bool}: for so long threads read the truth through the cache, and, where told so, one more makes it grow and
  // invalidates it. No read may be answered with less than what the truth was when the last invalidation before it had returned: for those of
  // other workers a second file says what that is.
  Response Hammer(Request& request) {
    const Json body = Json::parse(request.body());
    const std::string key = body.at("key").get<std::string>(), told = key + "-told";
    const auto until = std::chrono::steady_clock::now() + milliseconds(body.at("ms").get<int>());
    std::atomic<int64_t> reads{0}, stale{0}, writes{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < body.value("threads", 2); ++i) {
      threads.emplace_back([&] {
        while (std::chrono::steady_clock::now() < until) {
          const int64_t least = Truth(told);
          const CacheValue value = context_->cache().GetOrLoad(key, {.tags = {"truth"}}, [&] { return std::optional(std::to_string(Truth(key))); });
          ++reads;
          if (!value || std::stoll(*value) < least) ++stale;
        }
      });
    }
    if (body.value("write", false)) {
      for (int64_t next = Truth(key) + 1; std::chrono::steady_clock::now() < until; ++next) {
        Tell(key, next);
        if (next % 2 == 0) {
          context_->cache().Invalidate(key);
        } else {
          context_->cache().InvalidateTag("truth");
        }
        Tell(told, next);
        ++writes;
      }
    }
    for (std::thread& thread : threads) thread.join();
    return Answer({{"reads", reads.load()}, {"stale", stale.load()}, {"writes", writes.load()}});
  }

  Context* context_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) { return Run<Cacher>(argc, argv); }
