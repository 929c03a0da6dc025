#include "level_two.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <limits>
#include <mutex>
#include <utility>

#include "bulkhead/errors.h"
#include "bulkhead/host/v1/host.grpc.pb.h"
#include "cache_watch.h"

namespace bulkhead::sdk {

namespace two_pb = ::bulkhead::host::v1;

namespace {

constexpr std::chrono::milliseconds kReadDeadline{1'000};   // a cache that is slower is none
constexpr std::chrono::milliseconds kWriteDeadline{5'000};  // an invalidation may have to wait for the lease of a worker that hangs

class HostLevelTwo final : public LevelTwo {
 public:
  HostLevelTwo(const std::string& host_socket, std::string token, LevelOne& one)
      : host_socket_(host_socket), token_(std::move(token)), watch_(host_socket, token_, one) {}

  Look Get(std::string_view key) override {
    two_pb::CacheGetRequest request;
    request.set_key(key.data(), key.size());
    two_pb::CacheGetResponse response;
    grpc::ClientContext context;
    Prepare(context, kReadDeadline);
    if (!stub().CacheGet(&context, request, &response).ok()) return {};
    Look look{.answered = true, .found = response.found(), .version = response.version()};
    if (!look.found) return look;
    if (!response.nothing()) look.value = std::make_shared<const std::string>(std::move(*response.mutable_value()));
    look.tags.assign(response.tags().begin(), response.tags().end());
    look.ttl_left = std::chrono::milliseconds(response.ttl_ms());
    return look;
  }

  int64_t Set(const cache::Entry& entry, std::chrono::milliseconds ttl) override {
    two_pb::CacheSetRequest request;
    request.set_key(entry.key);
    if (entry.value) {
      request.set_value(*entry.value);
    } else {
      request.set_nothing(true);
    }
    request.set_ttl_ms(ttl.count());
    for (const std::string& tag : entry.tags) request.add_tags(tag);
    request.set_version(entry.version);
    two_pb::CacheSetResponse response;
    grpc::ClientContext context;
    Prepare(context, kWriteDeadline);
    Require(stub().CacheSet(&context, request, &response));
    return response.version();
  }

  void Invalidate(const cache::Names& names) override {
    two_pb::CacheInvalidateRequest request;
    for (const std::string& key : names.keys) request.add_keys(key);
    for (const std::string& tag : names.tags) request.add_tags(tag);
    request.set_all(names.all);
    two_pb::CacheInvalidateResponse response;
    grpc::ClientContext context;
    Prepare(context, kWriteDeadline);
    Require(stub().CacheInvalidate(&context, request, &response));
  }

  void WantLease() override { watch_.Want(); }
  void Close() override { watch_.Close(); }

 private:
  two_pb::Host::Stub& stub() {
    std::call_once(connected_, [this] {
      stub_ = two_pb::Host::NewStub(grpc::CreateChannel("unix:" + host_socket_, grpc::InsecureChannelCredentials()));
    });
    return *stub_;
  }
  void Prepare(grpc::ClientContext& context, std::chrono::milliseconds deadline) {
    context.AddMetadata("x-bulkhead-token", token_);
    context.set_deadline(std::chrono::system_clock::now() + deadline);
  }
  static void Require(const grpc::Status& status) {
    if (status.ok()) return;
    const bool may_pass = status.error_code() == grpc::StatusCode::UNAVAILABLE || status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
    throw HostError(status.error_message(), may_pass);
  }

  const std::string host_socket_, token_;
  std::once_flag connected_;
  std::unique_ptr<two_pb::Host::Stub> stub_;
  CacheWatch watch_;
};

class NoLevelTwo final : public LevelTwo {
 public:
  explicit NoLevelTwo(LevelOne& one) : one_(one) { one_.Grant(std::numeric_limits<int64_t>::max()); }
  Look Get(std::string_view) override { return {.answered = true, .version = version_.load()}; }
  int64_t Set(const cache::Entry& entry, std::chrono::milliseconds) override {
    if (entry.version != 0) return entry.version;
    const int64_t version = ++version_;
    one_.Apply({.keys = {entry.key}}, version);
    return version;
  }
  void Invalidate(const cache::Names& names) override {
    const int64_t version = ++version_;
    one_.Apply(names, version);
  }
  void WantLease() override {}

 private:
  LevelOne& one_;
  std::atomic<int64_t> version_{1};
};

}  // namespace

std::unique_ptr<LevelTwo> MakeHostLevelTwo(const std::string& host_socket, const std::string& token, LevelOne& one) {
  return std::make_unique<HostLevelTwo>(host_socket, token, one);
}
std::unique_ptr<LevelTwo> MakeNoLevelTwo(LevelOne& one) { return std::make_unique<NoLevelTwo>(one); }

}  // namespace bulkhead::sdk
