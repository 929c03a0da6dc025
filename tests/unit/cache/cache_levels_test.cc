// The cache of real workers behind a real host socket, without and with a real Redis behind that: what one sets the other gets, invalidations and lost
// streams, under threads.
#include <grpc/grpc.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "bulkhead/host/v1/host.grpc.pb.h"
#include "cache_watch.h"
#include "supervisor/base/loop.h"
#include "supervisor/cache/cache.h"
#include "supervisor/worker/host.h"
#include "tests/unit/cache/cache_engine.h"
#include "worker_cache.h"

namespace bulkhead {
namespace {

using sdk::CacheLook;
using sdk::CacheOptions;
using sdk::CacheValue;
using sdk::LevelOne;
using sdk::WorkerCache;
using std::chrono::milliseconds;

// gRPC ends itself with its last object, and waits up to 10 s there when a long message was sent just before. It outlives the tests.
const bool kept_alive = (grpc_init(), true);

constexpr milliseconds kPatience{20'000};  // about hanging, not about speed

class CacheLevels : public testing::TestWithParam<CacheEngine> {
 protected:
  CacheLevels() : loop_thread_([this] { loop_.Run(); }) {
    char name[] = "/tmp/bulkhead-cache-XXXXXX";
    folder_ = mkdtemp(name);
    Cache::Options options{size_t{64} << 20, size_t{32} << 20, "", ""};
    if (GetParam() == CacheEngine::kRedis) {
      redis_.emplace();
      options.redis = redis_->address();
    }
    cache_ = *Cache::Make(loop_, Clock::Real(), options);
    cache_->shared().Adopt(EnabledModules({"orders", "prices"}), [] {});
    if (redis_) AwaitRedis(cache_->shared());
    Listen();
  }
  ~CacheLevels() override {
    workers_.clear();
    host_->Stop();
    host_.reset();
    loop_.Stop();
    loop_thread_.join();
    std::filesystem::remove_all(folder_);
  }
  void Listen() {
    host_ = *HostServer::Listen(folder_ + "/host", {});
    host_->ServeCache(cache_->shared());
    for (const char* token : {"orders-0", "orders-1", "prices-0"}) host_->SetInstance(token, std::string(token).substr(0, 6), true);
  }
  WorkerCache& Worker(const std::string& token) {
    workers_.push_back(std::make_unique<WorkerCache>([&](LevelOne& one) { return sdk::MakeHostLevelTwo(folder_ + "/host", token, one); }, sdk::SteadyNow));
    return *workers_.back();
  }
  // The value, once it comes from the worker's own memory.
  static bool ServesItself(WorkerCache& worker, const std::string& key) {
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (std::chrono::steady_clock::now() < until) {
      const int64_t before = worker.counts().one.hits;
      if (!worker.Get(key).known) return false;
      if (worker.counts().one.hits > before) return true;
    }
    return false;
  }
  static std::string Text(const CacheLook& look) { return !look.known ? "(miss)" : look.value ? *look.value : "(nothing)"; }

  Loop loop_;
  std::thread loop_thread_;
  std::string folder_;
  std::optional<TestRedis> redis_;
  std::unique_ptr<Cache> cache_;
  std::unique_ptr<HostServer> host_;
  std::vector<std::unique_ptr<WorkerCache>> workers_;
};

INSTANTIATE_TEST_SUITE_P(Engines, CacheLevels, testing::Values(CacheEngine::kMemory, CacheEngine::kRedis), CacheEngineName);

TEST_P(CacheLevels, WhatOneWorkerSetsTheOtherGetsAndAnotherModuleDoesNot) {
  WorkerCache &one = Worker("orders-0"), &two = Worker("orders-1"), &other = Worker("prices-0");
  one.Set("key", "value", {});
  EXPECT_EQ(Text(two.Get("key")), "value");
  EXPECT_EQ(Text(other.Get("key")), "(miss)");
  one.Set("gone", std::nullopt, {});
  EXPECT_EQ(Text(two.Get("gone")), "(nothing)");
  EXPECT_EQ(*two.GetOrLoad("key", {}, [] { return std::optional<std::string>("loaded"); }), "value");
  EXPECT_EQ(two.GetOrLoad("gone", {}, [] { return std::optional<std::string>("loaded"); }), nullptr);
}

TEST_P(CacheLevels, AnInvalidationAndANewValueReachTheMemoryOfEveryWorkerBeforeTheyAreAnswered) {
  WorkerCache &one = Worker("orders-0"), &two = Worker("orders-1");
  one.Set("key", "first", {.tags = {"tag"}});
  ASSERT_TRUE(ServesItself(one, "key") && ServesItself(two, "key"));
  two.Set("key", "second", {.tags = {"tag"}});
  EXPECT_EQ(Text(one.Get("key")), "second");
  ASSERT_TRUE(ServesItself(one, "key"));
  two.InvalidateTag("tag");
  EXPECT_EQ(Text(one.Get("key")), "(miss)");
  EXPECT_EQ(Text(two.Get("key")), "(miss)");
  one.Set("key", "third", {});
  ASSERT_TRUE(ServesItself(two, "key"));
  two.Clear();
  EXPECT_EQ(Text(one.Get("key")), "(miss)");
}

TEST_P(CacheLevels, AWorkerThatHasEndedIsWaitedForOnlyUntilTheSupervisorKnows) {
  WorkerCache &one = Worker("orders-0"), &two = Worker("orders-1");
  one.Set("key", "value", {});
  ASSERT_TRUE(ServesItself(one, "key") && ServesItself(two, "key"));
  host_->SetInstance("orders-1", "orders", false);
  const auto before = std::chrono::steady_clock::now();
  one.Invalidate("key");
  EXPECT_LT(std::chrono::steady_clock::now() - before, limits::kCacheLease / 2);
}

TEST_P(CacheLevels, AWorkerWhoseStreamIsLostServesNothingFromItsMemoryAndAgainWhenItIsBack) {
  WorkerCache& one = Worker("orders-0");
  one.Set("key", "value", {});
  ASSERT_TRUE(ServesItself(one, "key"));
  host_->Stop();
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (one.Get("key").known && std::chrono::steady_clock::now() < until) {
  }
  EXPECT_EQ(Text(one.Get("key")), "(miss)");
  EXPECT_THROW(one.Invalidate("key"), sdk::HostError);
  EXPECT_THROW(one.Set("key", "other", {}), sdk::HostError);
  int loads = 0;
  EXPECT_EQ(*one.GetOrLoad("key", {}, [&] { return ++loads, std::optional<std::string>("loaded"); }), "loaded");
  EXPECT_EQ(loads, 1) << "a cache that is away finds nothing and breaks nothing";
  // What changes meanwhile it can't hear of.
  cache_->shared().Heed("orders", {.keys = {"key"}}, true);
  host_.reset();
  Listen();
  while (loads < 1'000 && Text(one.Get("key")) == "(miss)" && std::chrono::steady_clock::now() < until) {
    one.GetOrLoad("key", {}, [&] { return ++loads, std::optional<std::string>("loaded anew"); });
  }
  EXPECT_EQ(Text(one.Get("key")), "loaded anew");
  EXPECT_TRUE(ServesItself(one, "key"));
}

TEST_P(CacheLevels, ALeaseIsKeptWhileTheMemoryIsUsed) {
  WorkerCache& one = Worker("orders-0");
  one.Set("key", "value", {});
  ASSERT_TRUE(ServesItself(one, "key"));
  const auto asked = one.counts().shared_hits;
  const auto until = std::chrono::steady_clock::now() + 2 * limits::kCacheLease;
  while (std::chrono::steady_clock::now() < until) {
    one.Get("key");
    std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_LE(one.counts().shared_hits - asked, 20) << "nearly all of about 4,000 come from its memory";
}

TEST_P(CacheLevels, ValuesUpToTheLimitTravelAndLongerOnesAreHandedOutAndNotKept) {
  WorkerCache &one = Worker("orders-0"), &two = Worker("orders-1");
  const std::string large(sdk::kMaxCacheValue, '\xff');
  one.Set(std::string(sdk::kMaxCacheKey, 'k'), large, {.tags = std::vector<std::string>(sdk::kMaxCacheTags, std::string(sdk::kMaxCacheTag, 't'))});
  EXPECT_EQ(Text(two.Get(std::string(sdk::kMaxCacheKey, 'k'))), large);
  EXPECT_EQ(one.GetOrLoad("larger", {}, [&] { return std::optional(large + "x"); })->size(), large.size() + 1);
  EXPECT_EQ(Text(one.Get("larger")), "(miss)");
  EXPECT_THROW(one.Set("larger", large + "x", {}), std::invalid_argument);
}

// A module in another language, which speaks the protocol itself.
class ForeignWorker {
 public:
  ForeignWorker(const std::string& socket, const std::string& token)
      : stub_(host::v1::Host::NewStub(grpc::CreateChannel("unix:" + socket, grpc::InsecureChannelCredentials()))) {
    if (!token.empty()) context_.AddMetadata("x-bulkhead-token", token);
    context_.set_deadline(std::chrono::system_clock::now() + kPatience);
    stream_ = stub_->WatchCache(&context_);
  }
  ~ForeignWorker() {
    if (!finished_) context_.TryCancel(), Finish();
  }
  std::optional<host::v1::CacheNews> Read() {
    host::v1::CacheNews news;
    return stream_->Read(&news) ? std::optional(news) : std::nullopt;
  }
  void Renew(int64_t number) {
    host::v1::WatchCacheRequest request;
    request.set_renew(number);
    stream_->Write(request);
  }
  grpc::Status Finish() {
    finished_ = true;
    return stream_->Finish();
  }
  void Cancel() { context_.TryCancel(); }

 private:
  std::unique_ptr<host::v1::Host::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<host::v1::WatchCacheRequest, host::v1::CacheNews>> stream_;
  bool finished_ = false;
};

TEST_P(CacheLevels, WithoutTheTokenOfARunningInstanceNobodyFollows) {
  for (const char* token : {"", "wrong"}) {
    ForeignWorker stranger(folder_ + "/host", token);
    EXPECT_FALSE(stranger.Read());
    EXPECT_EQ(stranger.Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
  }
}

TEST_P(CacheLevels, WhoDoesNotReadItsNewsIsToldToDropEverythingAndHoldsUpNobodyBeyondItsLease) {
  ForeignWorker slow(folder_ + "/host", "orders-1");
  ASSERT_TRUE(slow.Read());
  slow.Renew(7);
  const auto granted = slow.Read();
  ASSERT_TRUE(granted);
  EXPECT_EQ(granted->renewed(), 7);
  EXPECT_EQ(granted->lease_ms(), limits::kCacheLease.count());
  WorkerCache& one = Worker("orders-0");
  const auto before = std::chrono::steady_clock::now();
  one.Invalidate("key");
  EXPECT_GE(std::chrono::steady_clock::now() - before, limits::kCacheLease - milliseconds(100)) << "it had a lease and has said nothing";
  const cache::Names many{.keys = std::vector<std::string>(100, std::string(500, 'x'))};
  for (int i = 0; i < 1'000; ++i) cache_->shared().Invalidate("orders", many, [](const absl::StatusOr<int64_t>&) {});
  bool everything = false;
  for (int64_t version = 0; !everything;) {
    const auto news = slow.Read();
    ASSERT_TRUE(news);
    EXPECT_GT(news->version(), version);
    version = news->version();
    everything = news->all();
  }
}

TEST_P(CacheLevels, StreamsThatAreCancelledInTheMiddleHarmNobody) {
  std::vector<std::thread> clients;
  std::atomic<bool> over{false};
  std::thread writer([&] {
    WorkerCache worker([&](LevelOne& one) { return sdk::MakeHostLevelTwo(folder_ + "/host", "orders-0", one); }, sdk::SteadyNow);
    while (!over) worker.Invalidate("key");
  });
  for (int client = 0; client < 4; ++client) {
    clients.emplace_back([&, client] {
      for (int i = 0; i < 150; ++i) {
        ForeignWorker worker(folder_ + "/host", i % 5 == 0 ? "wrong" : "orders-1");
        if (client % 2 == 0) worker.Read();
        if (i % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(i));
        worker.Cancel();
        while (worker.Read()) {
        }
        EXPECT_FALSE(worker.Finish().ok());
      }
    });
  }
  for (std::thread& client : clients) client.join();
  over = true;
  writer.join();
  WorkerCache& one = Worker("orders-0");
  one.Set("key", "value", {});
  EXPECT_EQ(Text(one.Get("key")), "value");
}

// A truth that grows; whoever asks after an invalidation was answered must not be told less than what it was then.
TEST_P(CacheLevels, UnderThreadsNobodyIsToldWhatWasInvalidatedBeforeHeAsked) {
  WorkerCache &one = Worker("orders-0"), &two = Worker("orders-1");
  std::atomic<int64_t> truth{1}, told{1}, reads{0}, stale{0};
  std::atomic<bool> over{false};
  std::vector<std::thread> readers;
  for (WorkerCache* worker : {&one, &one, &two, &two}) {
    readers.emplace_back([&, worker] {
      while (!over) {
        const int64_t least = told;
        const CacheValue value = worker->GetOrLoad("key", {.tags = {"tag"}}, [&] { return std::optional(std::to_string(truth.load())); });
        if (++reads; std::stoll(*value) < least) ++stale;
      }
    });
  }
  for (int64_t next = 2; next < 600; ++next) {
    truth = next;
    WorkerCache& worker = next % 2 == 0 ? one : two;
    if (next % 3 == 0) {
      worker.InvalidateTag("tag");
    } else if (next % 3 == 1) {
      worker.Invalidate("key");
    } else {
      worker.Set("key", std::to_string(next), {.tags = {"tag"}});
    }
    told = next;
  }
  over = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(stale, 0) << "of " << reads;
  EXPECT_GT(one.counts().one.hits + two.counts().one.hits, 0);
}

}  // namespace
}  // namespace bulkhead
