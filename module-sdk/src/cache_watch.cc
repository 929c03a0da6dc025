#include "cache_watch.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace bulkhead::sdk {

namespace cache_pb = ::bulkhead::host::v1;

namespace {
constexpr std::chrono::milliseconds kFirstReopen{100}, kLastReopen{10'000};  // doubled each time, until something has come
constexpr std::chrono::milliseconds kRenewEvery{500};                        // while the memory is used; a lease is several times as long
}  // namespace

LevelOne::Nanoseconds SteadyNow() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

CacheWatch::CacheWatch(std::string host_socket, std::string token, LevelOne& one) : host_socket_(std::move(host_socket)), token_(std::move(token)), one_(one) {}

CacheWatch::~CacheWatch() {
  Close();
  if (follower_.joinable()) follower_.join();
  if (keeper_.joinable()) keeper_.join();
}

void CacheWatch::Close() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    one_.Break();
    if (call_ != nullptr) call_->TryCancel();
  }
  changed_.notify_all();
}

void CacheWatch::Want() {
  {
    std::lock_guard lock(mutex_);
    if (closed_ || asking_) return;
    asking_ = true;
    asked_ = false;
    if (!follower_.joinable()) {
      follower_ = std::thread([this] { Follow(); });
      keeper_ = std::thread([this] { KeepLease(); });
    }
  }
  changed_.notify_all();
}

void CacheWatch::Follow() {
  const auto stub = cache_pb::Host::NewStub(grpc::CreateChannel("unix:" + host_socket_, grpc::InsecureChannelCredentials()));
  std::chrono::milliseconds wait = kFirstReopen;
  std::unique_lock lock(mutex_);
  while (!closed_) {
    grpc::ClientContext context;
    context.AddMetadata("x-bulkhead-token", token_);
    call_ = &context;
    lock.unlock();
    const auto stream = stub->WatchCache(&context);
    {
      std::lock_guard writing(write_mutex_);
      stream_ = stream.get();
    }
    bool first = true;
    for (cache_pb::CacheNews news; stream->Read(&news); first = false) {
      wait = kFirstReopen;
      Heed(news, first);
    }
    one_.Break();
    {
      std::lock_guard writing(write_mutex_);
      stream_ = nullptr;
    }
    stream->Finish();
    lock.lock();
    call_ = nullptr;
    changed_.wait_for(lock, wait, [this] { return closed_; });
    wait = std::min(wait * 2, kLastReopen);
  }
}

void CacheWatch::Heed(const cache_pb::CacheNews& news, bool first) {
  cache::Names names;
  names.keys.assign(news.keys().begin(), news.keys().end());
  names.tags.assign(news.tags().begin(), news.tags().end());
  names.all = news.all() || first;
  const bool something = names.all || !names.keys.empty() || !names.tags.empty();
  if (something) one_.Apply(names, news.version());
  if (something && !first) {
    cache_pb::WatchCacheRequest seen;
    seen.set_seen(news.version());
    Say(seen);
  }
  std::lock_guard lock(mutex_);
  if (first) {
    asking_ = true;
    asked_ = false;
    changed_.notify_all();
  }
  if (closed_ || news.renewed() == 0 || news.renewed() != request_) return;
  asking_ = false;
  one_.Grant(requested_at_ + std::chrono::nanoseconds(std::chrono::milliseconds(news.lease_ms())).count());
}

void CacheWatch::KeepLease() {
  std::unique_lock lock(mutex_);
  const auto to_do = [this] { return closed_ || (asking_ && !asked_); };
  while (!closed_) {
    if (asking_ && !asked_) {
      asked_ = true;
      cache_pb::WatchCacheRequest request;
      request.set_renew(++request_);
      requested_at_ = SteadyNow();
      lock.unlock();
      Say(request);
      lock.lock();
    }
    if (changed_.wait_for(lock, kRenewEvery, to_do)) continue;
    // Unanswered for so long, it may be asked for again.
    asking_ = one_.TakeUsed();
    asked_ = false;
    if (!asking_ && one_.lease_over(SteadyNow())) changed_.wait(lock, to_do);
  }
}

void CacheWatch::Say(const cache_pb::WatchCacheRequest& message) {
  std::lock_guard writing(write_mutex_);
  if (stream_ != nullptr) stream_->Write(message);
}

}  // namespace bulkhead::sdk
