#include "supervisor/worker/host.h"

#include <grpcpp/grpcpp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bulkhead/host/v1/host.grpc.pb.h"
#include "supervisor/base/guarded.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

namespace v1 = host::v1;

constexpr int kMaxMessage = 1 << 20;  // bytes of one call; beyond: RESOURCE_EXHAUSTED by gRPC

// The flags once; then the stream stays open until the caller leaves or its instance is gone with its connection.
class FlagStream final : public grpc::ServerWriteReactor<v1::Flags> {
 public:
  explicit FlagStream(const v1::Flags& flags) : flags_(flags) { StartWrite(&flags_); }
  // gRPC aborts the process at a second Finish, which OnCancel would be.
  explicit FlagStream(grpc::Status refused) : finished_(true) { Finish(std::move(refused)); }
  void OnWriteDone(bool ok) override {
    if (!ok) FinishOnce();
  }
  void OnCancel() override { FinishOnce(); }
  void OnDone() override { delete this; }

 private:
  void FinishOnce() {
    if (!finished_.exchange(true)) Finish(grpc::Status::CANCELLED);
  }
  v1::Flags flags_;
  std::atomic<bool> finished_{false};  // Finish() twice aborts the process, and a refused call may be cancelled too
};

class HostServerImpl final : public HostServer, private v1::Host::CallbackService {
 public:
  explicit HostServerImpl(const std::map<std::string, bool>& flags) {
    for (const auto& [name, on] : flags) (*flags_.mutable_flags())[name] = on;
  }
  ~HostServerImpl() override { Stop(); }

  absl::Status Serve(const std::string& socket) {
    unlink(socket.c_str());
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
    builder.SetMaxReceiveMessageSize(kMaxMessage);
    builder.RegisterService(this);
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
  }

  void Stop() override {
    if (server_) server_->Shutdown(std::chrono::system_clock::now());
  }

 private:
  grpc::Status Check(const grpc::CallbackServerContext& context) {
    auto tokens = context.client_metadata().equal_range("x-bulkhead-token");
    bool known = tokens.first != tokens.second && std::next(tokens.first) == tokens.second && modules_.With([&](auto& modules) {
      return modules.contains(std::string(tokens.first->second.data(), tokens.first->second.size()));
    });
    return known ? grpc::Status::OK
                 : grpc::Status(grpc::UNAUTHENTICATED, "x-bulkhead-token is missing or not of a running instance");
  }
  grpc::ServerUnaryReactor* NotYet(grpc::CallbackServerContext* context, const char* call) {
    auto* reactor = context->DefaultReactor();
    grpc::Status known = Check(*context);
    reactor->Finish(
        known.ok() ? grpc::Status(grpc::UNIMPLEMENTED, std::string(call) + " is not offered by this version of the supervisor")
                   : known);
    return reactor;
  }

  grpc::ServerWriteReactor<v1::Flags>* WatchFlags(grpc::CallbackServerContext* context, const v1::WatchFlagsRequest*) override {
    if (grpc::Status known = Check(*context); !known.ok()) return new FlagStream(known);
    return new FlagStream(flags_);
  }
  grpc::ServerUnaryReactor* Publish(grpc::CallbackServerContext* c, const v1::PublishRequest*, v1::PublishResponse*) override {
    return NotYet(c, "Publish");
  }
  grpc::ServerUnaryReactor* Enqueue(grpc::CallbackServerContext* c, const v1::EnqueueRequest*, v1::EnqueueResponse*) override {
    return NotYet(c, "Enqueue");
  }
  grpc::ServerUnaryReactor* CacheGet(grpc::CallbackServerContext* c, const v1::CacheGetRequest*, v1::CacheGetResponse*) override {
    return NotYet(c, "CacheGet");
  }
  grpc::ServerUnaryReactor* CacheSet(grpc::CallbackServerContext* c, const v1::CacheSetRequest*, v1::CacheSetResponse*) override {
    return NotYet(c, "CacheSet");
  }
  grpc::ServerUnaryReactor* CacheInvalidate(grpc::CallbackServerContext* c, const v1::CacheInvalidateRequest*,
                                            v1::CacheInvalidateResponse*) override {
    return NotYet(c, "CacheInvalidate");
  }

  v1::Flags flags_;
  Guarded<std::map<std::string, std::string>> modules_;  // token → module
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HostServer>> HostServer::Listen(const std::string& socket, std::map<std::string, bool> flags) {
  auto server = std::make_unique<HostServerImpl>(flags);
  RETURN_IF_ERROR(server->Serve(socket));
  return server;
}

}  // namespace bulkhead
