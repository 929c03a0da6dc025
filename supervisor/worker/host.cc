#include "supervisor/worker/host.h"

#include <grpcpp/grpcpp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <mutex>
#include <set>
#include <utility>

#include "bulkhead/host/v1/host.grpc.pb.h"
#include "bulkhead/host/v1/notifications.grpc.pb.h"
#include "supervisor/base/guarded.h"
#include "supervisor/base/status.h"
#include "supervisor/worker/artifact_upload.h"
#include "supervisor/worker/cache_calls.h"
#include "supervisor/worker/file_calls.h"
#include "supervisor/worker/flag_message.h"
#include "supervisor/worker/later_call.h"

namespace bulkhead {
namespace {

constexpr int kMaxMessage = 1 << 20;  // bytes of one call; beyond: RESOURCE_EXHAUSTED by gRPC

host::v1::Flags ToMessage(const std::map<std::string, HostFlag>& flags) {
  host::v1::Flags message;
  FillFlags(flags, *message.mutable_flags(), *message.mutable_rules());
  return message;
}

// The flags, and again after each change, until the caller leaves or its instance is gone with its connection. One message is on its way
// at a time; of those that come meanwhile the last follows.
class FlagStream final : public grpc::ServerWriteReactor<host::v1::Flags> {
 public:
  using Streams = Guarded<std::set<FlagStream*>>;

  FlagStream(std::shared_ptr<Streams> streams, std::shared_ptr<const host::v1::Flags> flags) : streams_(std::move(streams)) {
    streams_->With([&](auto& all) { all.insert(this); });
    Send(std::move(flags));
  }
  explicit FlagStream(grpc::Status refused) : finished_(true) { Finish(std::move(refused)); }

  void Send(std::shared_ptr<const host::v1::Flags> flags) {
    std::lock_guard lock(mutex_);
    if (finished_) return;
    if (sending_ != nullptr) {
      next_ = std::move(flags);
    } else {
      Start(std::move(flags));
    }
  }
  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    sending_ = nullptr;
    if (!ok) return FinishOnce();
    if (next_ != nullptr && !finished_) Start(std::exchange(next_, nullptr));
  }
  void OnCancel() override {
    std::lock_guard lock(mutex_);
    FinishOnce();
  }
  void OnDone() override {
    if (streams_) streams_->With([&](auto& all) { all.erase(this); });
    delete this;
  }

 private:
  void Start(std::shared_ptr<const host::v1::Flags> flags) {
    sending_ = std::move(flags);
    StartWrite(sending_.get());
  }
  // A second Finish aborts the process.
  void FinishOnce() {
    if (!std::exchange(finished_, true)) Finish(grpc::Status::CANCELLED);
  }

  const std::shared_ptr<Streams> streams_;
  std::mutex mutex_;
  std::shared_ptr<const host::v1::Flags> sending_, next_;
  bool finished_ = false;
};

// The service beside Host on the same socket.
class NotificationsService final : public host::v1::Notifications::CallbackService {
 public:
  using CallerOf = std::function<std::optional<std::string>(const grpc::CallbackServerContext&)>;
  explicit NotificationsService(CallerOf caller_of) : caller_of_(std::move(caller_of)) {}
  void OnNotify(std::function<void(HostServer::Notice, HostServer::NoticeDone)> notify) { notify_ = std::move(notify); }

  grpc::ServerUnaryReactor* Notify(grpc::CallbackServerContext* context, const host::v1::NotifyRequest* request, host::v1::NotifyResponse* response) override {
    const auto module = caller_of_(*context);
    auto* call = new LaterCall(response);
    const auto answer = call->Answer();
    if (!module || !notify_) {
      const char unknown[] = "x-bulkhead-token is missing or not of a running instance";
      answer(module ? absl::UnimplementedError("Notify is not offered here") : absl::UnauthenticatedError(unknown), [](host::v1::NotifyResponse&) {});
      return call;
    }
    notify_({*module, request->channel(), request->message_json()}, [answer](absl::StatusOr<std::string> run_id) {
      answer(run_id.status(), [&](host::v1::NotifyResponse& queued) { queued.set_run_id(*run_id); });
    });
    return call;
  }

 private:
  const CallerOf caller_of_;
  std::function<void(HostServer::Notice, HostServer::NoticeDone)> notify_;  // set before the first instance
};

class HostServerImpl final : public HostServer, private host::v1::Host::CallbackService {
 public:
  explicit HostServerImpl(const std::map<std::string, HostFlag>& flags) : flags_(std::make_shared<const host::v1::Flags>(ToMessage(flags))) {}
  ~HostServerImpl() override { Stop(); }

  absl::Status Serve(const std::string& socket) {
    unlink(socket.c_str());
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
    builder.SetMaxReceiveMessageSize(kMaxMessage);
    builder.RegisterService(this);
    builder.RegisterService(&notifications_);
    builder.RegisterService(&files_);
    server_ = builder.BuildAndStart();
    if (!server_) return Error("LISTEN_FAILED", "the host socket " + socket + " can't be made");
    // Every module's uid may connect; who it is, the token says.
    if (chmod(socket.c_str(), 0666) != 0)
      return Error("LISTEN_FAILED", "the host socket " + socket + " can't be opened to the modules");
    return absl::OkStatus();
  }

  void SetInstance(const std::string& token, const std::string& module, bool present) override {
    modules_.With([&](auto& modules) {
      if (present) {
        modules[token] = module;
      } else {
        modules.erase(token);
      }
    });
    if (!present && cache_ != nullptr) cache_->Gone(module, token);
  }

  void SetFlags(const std::map<std::string, HostFlag>& flags) override {
    auto message = std::make_shared<const host::v1::Flags>(ToMessage(flags));
    // Under the lock of the streams, so that one that begins now has either the new ones or is among those told.
    streams_->With([&](auto& all) {
      flags_ = message;
      for (FlagStream* stream : all) stream->Send(message);
    });
  }

  void OnEnqueue(std::function<void(const std::string&, HostEnqueue, Enqueued)> enqueue) override { enqueue_ = std::move(enqueue); }
  void OnPublish(std::function<void(PublishedEvent, PublishDone)> publish) override { publish_ = std::move(publish); }
  void ServeCache(HostCache& cache) override { cache_ = &cache; }
  void ServeFiles(HostFiles& files) override { files_.Serve(files); }

  void OnArtifact(std::function<void(HostArtifact, ArtifactDone)> keep) override { keep_ = std::move(keep); }

  void OnNotify(std::function<void(Notice, NoticeDone)> notify) override { notifications_.OnNotify(std::move(notify)); }

  void Stop() override {
    if (server_) server_->Shutdown(std::chrono::system_clock::now());
  }

 private:
  // The module of the caller's instance; nothing: not a running one.
  std::optional<std::string> CallerOf(const grpc::CallbackServerContext& context) {
    auto tokens = context.client_metadata().equal_range("x-bulkhead-token");
    if (tokens.first == tokens.second || std::next(tokens.first) != tokens.second) return std::nullopt;
    return modules_.With([&](auto& modules) -> std::optional<std::string> {
      auto module = modules.find(std::string(tokens.first->second.data(), tokens.first->second.size()));
      return module == modules.end() ? std::nullopt : std::optional(module->second);
    });
  }
  static grpc::Status Unknown() { return {grpc::UNAUTHENTICATED, "x-bulkhead-token is missing or not of a running instance"}; }
  grpc::Status Check(const grpc::CallbackServerContext& context) { return CallerOf(context) ? grpc::Status::OK : Unknown(); }
  grpc::ServerUnaryReactor* NotYet(grpc::CallbackServerContext* context, const char* call) {
    auto* reactor = context->DefaultReactor();
    grpc::Status known = Check(*context);
    reactor->Finish(
        known.ok() ? grpc::Status(grpc::UNIMPLEMENTED, std::string(call) + " is not offered by this version of the supervisor")
                   : known);
    return reactor;
  }

  grpc::ServerWriteReactor<host::v1::Flags>* WatchFlags(grpc::CallbackServerContext* context, const host::v1::WatchFlagsRequest*) override {
    if (grpc::Status known = Check(*context); !known.ok()) return new FlagStream(known);
    auto now = streams_->With([&](auto&) { return flags_; });
    auto* stream = new FlagStream(streams_, now);
    // Changed between the two: told once more.
    if (auto later = streams_->With([&](auto&) { return flags_; }); later != now) stream->Send(std::move(later));
    return stream;
  }
  grpc::ServerUnaryReactor* Publish(grpc::CallbackServerContext* context, const host::v1::PublishRequest* request,
                                    host::v1::PublishResponse* response) override {
    const auto module = CallerOf(*context);
    if (!module || !publish_) return NotYet(context, "Publish");
    auto* call = new LaterCall(response);
    publish_({*module, request->topic(), request->key(), request->payload_json()}, [answer = call->Answer()](absl::StatusOr<int64_t> id) {
      answer(id.status(), [&](host::v1::PublishResponse& published) { published.set_id(std::to_string(*id)); });
    });
    return call;
  }
  grpc::ServerUnaryReactor* Enqueue(grpc::CallbackServerContext* context, const host::v1::EnqueueRequest* request,
                                    host::v1::EnqueueResponse* response) override {
    const auto module = CallerOf(*context);
    if (!module || !enqueue_) return NotYet(context, "Enqueue");
    auto* call = new LaterCall(response);
    HostEnqueue run{request->job(), request->payload_json().empty() ? "null" : request->payload_json(), Millis(request->delay_ms()),
                    request->unique_key(), request->priority()};
    enqueue_(*module, std::move(run), [answer = call->Answer()](absl::Status status, const std::string& run_id, bool existed) {
      answer(status, [&](host::v1::EnqueueResponse& queued) {
        queued.set_run_id(run_id);
        queued.set_existed(existed);
      });
    });
    return call;
  }
  grpc::ServerReadReactor<host::v1::PutArtifactRequest>* PutArtifact(grpc::CallbackServerContext* context, host::v1::PutArtifactResponse* response) override {
    const auto module = CallerOf(*context);
    grpc::Status refused = !module ? Unknown() : keep_ ? grpc::Status::OK : grpc::Status(grpc::UNIMPLEMENTED, "PutArtifact is not offered here");
    return ReceiveArtifact(context, response, module.value_or(""), uploads_, keep_, std::move(refused));
  }
  grpc::ServerUnaryReactor* CacheGet(grpc::CallbackServerContext* context, const host::v1::CacheGetRequest* request,
                                     host::v1::CacheGetResponse* response) override {
    const auto module = CallerOf(*context);
    if (!module || cache_ == nullptr) return NotYet(context, "CacheGet");
    auto* call = new LaterCall(response);
    AnswerCacheGet(*cache_, *module, *request, call->Answer());
    return call;
  }
  grpc::ServerUnaryReactor* CacheSet(grpc::CallbackServerContext* context, const host::v1::CacheSetRequest* request,
                                     host::v1::CacheSetResponse* response) override {
    const auto module = CallerOf(*context);
    if (!module || cache_ == nullptr) return NotYet(context, "CacheSet");
    auto* call = new LaterCall(response);
    AnswerCacheSet(*cache_, *module, *request, call->Answer());
    return call;
  }
  grpc::ServerUnaryReactor* CacheInvalidate(grpc::CallbackServerContext* context, const host::v1::CacheInvalidateRequest* request,
                                            host::v1::CacheInvalidateResponse* response) override {
    const auto module = CallerOf(*context);
    if (!module || cache_ == nullptr) return NotYet(context, "CacheInvalidate");
    auto* call = new LaterCall(response);
    AnswerCacheInvalidate(*cache_, *module, *request, call->Answer());
    return call;
  }
  grpc::ServerBidiReactor<host::v1::WatchCacheRequest, host::v1::CacheNews>* WatchCache(grpc::CallbackServerContext* context) override {
    const auto module = CallerOf(*context);
    if (!module) return RefuseToFollowCache(Unknown());
    if (cache_ == nullptr) return RefuseToFollowCache({grpc::UNIMPLEMENTED, "WatchCache is not offered by this version of the supervisor"});
    const auto token = context->client_metadata().find("x-bulkhead-token")->second;
    return FollowCache(*cache_, *module, std::string(token.data(), token.size()));
  }

  std::shared_ptr<FlagStream::Streams> streams_ = std::make_shared<FlagStream::Streams>();
  std::shared_ptr<const host::v1::Flags> flags_;  // under the lock of streams_
  Guarded<std::map<std::string, std::string>> modules_;  // token → module
  std::function<void(const std::string&, HostEnqueue, Enqueued)> enqueue_;  // set before the first instance, as is
  std::function<void(PublishedEvent, PublishDone)> publish_;
  HostCache* cache_ = nullptr;
  std::function<void(HostArtifact, ArtifactDone)> keep_;
  const std::shared_ptr<UploadPlaces> uploads_ = std::make_shared<UploadPlaces>(limits::kMaxUploads, limits::kMaxUploadsOfModule);
  NotificationsService notifications_{[this](const grpc::CallbackServerContext& context) { return CallerOf(context); }};
  FilesService files_{[this](const grpc::CallbackServerContext& context) { return CallerOf(context); }};
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

void FillFlags(const std::map<std::string, HostFlag>& flags, google::protobuf::Map<std::string, bool>& values,
               google::protobuf::Map<std::string, host::v1::FlagRule>& rules) {
  for (const auto& [name, flag] : flags) {
    values[name] = flag.enabled;
    if (!flag.percentage && flag.identities.empty()) continue;
    host::v1::FlagRule& rule = rules[name];
    if (flag.percentage) rule.set_percentage(*flag.percentage);
    for (const std::string& identity : flag.identities) rule.add_identities(identity);
  }
}

absl::StatusOr<std::unique_ptr<HostServer>> HostServer::Listen(const std::string& socket, const std::map<std::string, HostFlag>& flags) {
  auto server = std::make_unique<HostServerImpl>(flags);
  RETURN_IF_ERROR(server->Serve(socket));
  return server;
}

}  // namespace bulkhead
