#include "supervisor/worker/cache_calls.h"

#include <algorithm>
#include <deque>
#include <mutex>
#include <utility>

#include "supervisor/worker/later_call.h"

namespace bulkhead {
namespace {

// News that wait for a worker which reads slowly, and the names in them; beyond, it is told to drop everything instead.
constexpr size_t kMaxWaitingNews = 4'096;

size_t Weight(const HostCache::News& news) { return 1 + news.names.keys.size() + news.names.tags.size(); }

// A time from outside, as long as the arithmetic behind it allows.
Millis TtlOf(int64_t ttl_ms) { return Millis(std::clamp<int64_t>(ttl_ms, 0, int64_t{3650} * 86'400'000)); }

host::v1::CacheNews ToMessage(const HostCache::News& news) {
  host::v1::CacheNews message;
  message.set_version(news.version);
  for (const std::string& key : news.names.keys) message.add_keys(key);
  for (const std::string& tag : news.names.tags) message.add_tags(tag);
  message.set_all(news.names.all);
  message.set_renewed(news.renewed);
  message.set_lease_ms(news.lease.count());
  return message;
}

// One worker's stream. gRPC may still be in a callback of it when it is told something, so what others hold is the Port.
class CacheStream final : public grpc::ServerBidiReactor<host::v1::WatchCacheRequest, host::v1::CacheNews> {
 public:
  CacheStream(HostCache& cache, std::string module, const std::string& worker)
      : cache_(&cache), module_(std::move(module)), port_(std::make_shared<Port>(this)) {
    cache_->Watch(module_, worker, port_);
    StartRead(&request_);
  }
  explicit CacheStream(grpc::Status refused) : cache_(nullptr) { Finish(std::move(refused)); }

  void OnReadDone(bool ok) override {
    if (!ok) return port_->Close();
    cache_->Heard(module_, port_.get(), request_.seen(), request_.renew());
    StartRead(&request_);
  }
  void OnWriteDone(bool ok) override {
    if (ok) {
      port_->Written();
    } else {
      port_->Close();
    }
  }
  void OnCancel() override {
    if (port_) port_->Close();
  }
  void OnDone() override {
    if (cache_ != nullptr) {
      port_->Detach();
      cache_->Unwatch(module_, port_.get());
    }
    delete this;
  }

 private:
  class Port final : public HostCache::Watcher {
   public:
    explicit Port(CacheStream* stream) : stream_(stream) {}
    void Tell(HostCache::News news) override {
      std::lock_guard lock(mutex_);
      if (stream_ == nullptr || closed_) return;
      if (weight_ + Weight(news) > kMaxWaitingNews) {
        // Without the leases that were granted among them: it asks again.
        waiting_.clear();
        weight_ = 0;
        news = {.version = news.version, .names = {.all = true}};
      }
      weight_ += Weight(news);
      waiting_.push_back(std::move(news));
      if (!writing_) WriteNext();
    }
    void Written() {
      std::lock_guard lock(mutex_);
      writing_ = false;
      if (!closed_ && !waiting_.empty()) WriteNext();
    }
    void Close() {
      std::lock_guard lock(mutex_);
      if (stream_ != nullptr && !std::exchange(closed_, true)) stream_->Finish(grpc::Status::CANCELLED);
    }
    void Detach() {
      std::lock_guard lock(mutex_);
      stream_ = nullptr;
    }

   private:
    void WriteNext() {
      message_ = ToMessage(waiting_.front());
      weight_ -= Weight(waiting_.front());
      waiting_.pop_front();
      writing_ = true;
      stream_->StartWrite(&message_);
    }
    std::mutex mutex_;
    CacheStream* stream_;
    bool writing_ = false, closed_ = false;
    std::deque<HostCache::News> waiting_;
    size_t weight_ = 0;  // of these
    host::v1::CacheNews message_;  // on its way
  };

  HostCache* const cache_;  // null: refused
  const std::string module_;
  const std::shared_ptr<Port> port_;
  host::v1::WatchCacheRequest request_;
};

}  // namespace

void AnswerCacheGet(HostCache& cache, const std::string& module, const host::v1::CacheGetRequest& request,
                    CacheAnswer<host::v1::CacheGetResponse> answer) {
  cache.Get(module, request.key(), [answer = std::move(answer)](absl::StatusOr<HostCache::Look> look) {
    answer(look.status(), [&](host::v1::CacheGetResponse& response) {
      response.set_found(look->found);
      response.set_nothing(look->found && !look->value);
      if (look->value) response.set_value(*look->value);
      for (const std::string& tag : look->tags) response.add_tags(tag);
      response.set_ttl_ms(look->ttl_left.count());
      response.set_version(look->version);
    });
  });
}

void AnswerCacheSet(HostCache& cache, const std::string& module, const host::v1::CacheSetRequest& request,
                    CacheAnswer<host::v1::CacheSetResponse> answer) {
  HostCache::NewEntry entry;
  entry.key = request.key();
  if (!request.nothing()) entry.value = std::make_shared<const std::string>(request.value());
  entry.ttl = TtlOf(request.ttl_ms());
  entry.tags.assign(request.tags().begin(), request.tags().end());
  entry.version = request.version();
  cache.Set(module, std::move(entry), [answer = std::move(answer)](absl::StatusOr<HostCache::Stored> stored) {
    answer(stored.status(), [&](host::v1::CacheSetResponse& response) {
      response.set_stored(stored->stored);
      response.set_version(stored->version);
    });
  });
}

void AnswerCacheInvalidate(HostCache& cache, const std::string& module, const host::v1::CacheInvalidateRequest& request,
                           CacheAnswer<host::v1::CacheInvalidateResponse> answer) {
  cache::Names names;
  names.keys.assign(request.keys().begin(), request.keys().end());
  names.tags.assign(request.tags().begin(), request.tags().end());
  names.all = request.all();
  cache.Invalidate(module, std::move(names), [answer = std::move(answer)](absl::StatusOr<int64_t> version) {
    answer(version.status(), [&](host::v1::CacheInvalidateResponse& response) { response.set_version(*version); });
  });
}

grpc::ServerBidiReactor<host::v1::WatchCacheRequest, host::v1::CacheNews>* FollowCache(HostCache& cache, const std::string& module,
                                                                                         const std::string& worker) {
  return new CacheStream(cache, module, worker);
}

grpc::ServerBidiReactor<host::v1::WatchCacheRequest, host::v1::CacheNews>* RefuseToFollowCache(grpc::Status status) {
  return new CacheStream(std::move(status));
}

}  // namespace bulkhead
