#include "supervisor/admin/admin.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <vector>

#include "bulkhead/admin/v1/audit.pb.h"
#include "bulkhead/admin/v1/auth.pb.h"
#include "bulkhead/admin/v1/events.pb.h"
#include "bulkhead/admin/v1/files.pb.h"
#include "bulkhead/admin/v1/flags.pb.h"
#include "bulkhead/admin/v1/jobs.pb.h"
#include "bulkhead/admin/v1/logs.pb.h"
#include "bulkhead/admin/v1/migrations.pb.h"
#include "bulkhead/admin/v1/modules.pb.h"
#include "bulkhead/admin/v1/system.pb.h"
#include "bulkhead/admin/v1/tokens.pb.h"
#include "grpc/support/time.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "supervisor/admin/given_listener.h"
#include "supervisor/admin/guard.h"
#include "supervisor/admin/probes.h"
#include "supervisor/admin/pulse.h"
#include "supervisor/admin/rest.h"
#include "supervisor/admin/services.h"
#include "supervisor/admin/stream.h"
#include "supervisor/admin/undecodable.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/base/systemd.h"

namespace bulkhead {
namespace {

// A JSON body of limits::kAdminBodyLimit may grow to about eight times that as a Struct.
constexpr int kMaxMessage = 16 << 20;
constexpr std::string_view kUnencrypted = "tokens travel unencrypted to this address; keep it on the loopback or behind TLS";
constexpr int kReflectionThreads = 2;  // reflection is a synchronous service; all others use callbacks

struct Address {
  std::string host;
  std::string port;
};

absl::Status ListenFailed(const std::string& listen, const std::string& reason) {
  return Error("LISTEN_FAILED", "Cannot listen on " + listen + " for the admin API: " + reason + ".");
}

absl::StatusOr<Address> SplitAddress(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  if (colon == std::string::npos || colon + 1 == listen.size()) return ListenFailed(listen, "it is not HOST:PORT");
  Address address{listen.substr(0, colon), listen.substr(colon + 1)};
  if (address.host.starts_with('[') && address.host.ends_with(']'))
    address.host = address.host.substr(1, address.host.size() - 2);
  return address;
}

bool IsLoopback(const addrinfo& info) {
  if (info.ai_family == AF_INET) return (ntohl(reinterpret_cast<const sockaddr_in*>(info.ai_addr)->sin_addr.s_addr) >> 24) == 127;
  return info.ai_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(info.ai_addr)->sin6_addr);
}

// gRPC says only that it could not bind, so a socket of ours finds out why first. SO_REUSEADDR as gRPC has it.
absl::Status TryBind(const std::string& listen, bool warn) {
  ASSIGN_OR_RETURN(const Address address, SplitAddress(listen));
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &found); error != 0) {
    return ListenFailed(listen, gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owned(found, &freeaddrinfo);
  UniqueFd fd(socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  if (!fd || setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      bind(fd.get(), found->ai_addr, found->ai_addrlen) != 0 || ::listen(fd.get(), 1) != 0) {
    return ListenFailed(listen, std::strerror(errno));
  }
  if (warn && !IsLoopback(*found))
    LogWarn("admin", kUnencrypted, {{"address", listen}});
  return absl::OkStatus();
}

class AdminServer : public Admin {
 public:
  AdminServer(Parts parts) : parts_(std::move(parts)), guard_(parts_.authenticator, parts_.records), rest_(guard_, Descriptors()) {
    services_.push_back(MakeModulesService(guard_, parts_.modules, parts_.pool));
    services_.push_back(MakeJobsService(guard_, parts_.modules, parts_.jobs, streams_, parts_.clock));
    if (parts_.files) services_.push_back(MakeFilesService(guard_, parts_.modules, *parts_.files, streams_, parts_.clock));
    services_.push_back(MakeEventsService(guard_, parts_.events, parts_.pool));
    services_.push_back(MakeLogsService(guard_, parts_.modules, parts_.logs, streams_, parts_.clock));
    services_.push_back(MakeMigrationsService(guard_, parts_.modules, parts_.migrations, parts_.pool));
    services_.push_back(MakeSystemService(guard_, parts_.modules, parts_.clock, parts_.metrics, parts_.pool, parts_.node,
                                          parts_.events));
    services_.push_back(MakeAuditService(guard_));
    services_.push_back(MakeFlagsService(guard_, parts_.flags, parts_.modules));
    services_.push_back(MakeTokensService(guard_, parts_.authenticator, parts_.pool));
    services_.push_back(MakeAuthService(guard_, parts_.accounts, parts_.pool));
    services_.push_back(MakeUsersService(guard_, parts_.accounts, parts_.pool));
    services_.push_back(MakeRolesService(guard_, parts_.accounts, parts_.pool));
  }
  ~AdminServer() override { Stop(Millis(0)); }

  absl::Status Start(const std::string& listen, UniqueFd given) {
    for (const auto* service : Descriptors()) RETURN_IF_ERROR(guard_.Add(*service));
    EnablePlugins();
    grpc::ServerBuilder builder;
    int port = 0;
    if (given) {
      address_ = AddressOf(given.get());
      if (!address_.starts_with("127.") && !address_.starts_with("[::1]")) LogWarn("admin", kUnencrypted, {{"address", address_}});
      using Type = grpc::ServerBuilder::experimental_type::ExternalConnectionType;
      acceptor_ = builder.experimental().AddExternalConnectionAcceptor(Type::FROM_FD, grpc::InsecureServerCredentials());
    } else {
      RETURN_IF_ERROR(TryBind(listen, true));
      builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &port);
    }
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // else a second supervisor would share the port
    builder.SetMaxReceiveMessageSize(kMaxMessage);
    std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
    interceptors.push_back(ExplainUndecodable());
    builder.experimental().SetInterceptorCreators(std::move(interceptors));
    builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
    builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
    builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, kReflectionThreads);
    for (const auto& service : services_) builder.RegisterService(service.get());
    server_ = builder.BuildAndStart();
    if (!server_ || (port == 0 && !given)) return ListenFailed(listen, "gRPC could not bind it");
    if (!given) address_ = listen.substr(0, listen.rfind(':') + 1) + std::to_string(port);
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);  // a page of 500 modules with their manifests
    auto channel = server_->InProcessChannel(arguments);
    rest_.Connect(channel);
    pulse_ = std::make_unique<Pulse>(std::move(channel));
    if (given) {
      const int listener = given.get();
      given_ = std::make_unique<GivenListener>(std::move(given), [this, listener](UniqueFd connection) {
        grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters accepted;
        accepted.listener_fd = listener;
        accepted.fd = connection.Release();
        acceptor_->HandleNewConnection(&accepted);
      });
    }
    LogInfo("admin", "serves gRPC", {{"address", address_}});
    return absl::OkStatus();
  }

  std::string address() const override { return address_; }

  void Handle(LocalRequest request, std::unique_ptr<LocalResponder> responder) override {
    if (IsProbe(request.path)) return AnswerProbe(request, parts_.node, parts_.clock, *responder);
    rest_.Handle(std::move(request), std::move(responder));
  }

  int64_t AnonymousBody(std::string_view method, std::string_view path) const override { return rest_.AnonymousBody(method, path); }

  void EndStreams() override { streams_.EndAll(); }
  std::string_view RouteOf(std::string_view method, std::string_view path) const override {
    if (const std::string_view probe = ProbeAt(path); !probe.empty()) return probe;
    return rest_.RouteOf(method, path);
  }

  void Stop(Millis grace) override {
    rest_.Stop();
    EndStreams();
    std::lock_guard lock(stop_mutex_);
    if (!server_ || stopped_) return;
    stopped_ = true;
    given_.reset();
    if (auto* health = server_->GetHealthCheckService()) health->Shutdown();
    const Instant begun = parts_.clock.Now();
    rest_.AwaitEnd(grace);
    pulse_.reset();
    const Millis left = std::max(grace - std::chrono::duration_cast<Millis>(parts_.clock.Now() - begun), Millis(0));
    server_->Shutdown(gpr_time_from_millis(left.count(), GPR_TIMESPAN));
    server_->Wait();
    rest_.AwaitEnd();
    parts_.authenticator.AwaitVerifications();  // the guard is asked when they end
  }

 private:
  static std::vector<const google::protobuf::ServiceDescriptor*> Descriptors() {
    std::vector<const google::protobuf::ServiceDescriptor*> services;
    for (const auto* file :
         {admin::v1::ListModulesRequest::descriptor()->file(), admin::v1::ListJobsRequest::descriptor()->file(),
          admin::v1::ListEventsRequest::descriptor()->file(), admin::v1::GetModuleLogsRequest::descriptor()->file(),
          admin::v1::GetMigrationsRequest::descriptor()->file(), admin::v1::GetSystemHealthRequest::descriptor()->file(),
          admin::v1::ListTokensRequest::descriptor()->file(), admin::v1::LogInRequest::descriptor()->file(),
          admin::v1::ListAuditRequest::descriptor()->file(), admin::v1::ListFlagsRequest::descriptor()->file(),
          admin::v1::ListFilesRequest::descriptor()->file()}) {
      for (int i = 0; i < file->service_count(); ++i) services.push_back(file->service(i));
    }
    return services;
  }

  // Both are switches of the process, read by each ServerBuilder.
  static void EnablePlugins() {
    static const bool once = [] {
      grpc::EnableDefaultHealthCheckService(true);
      grpc::reflection::InitProtoReflectionServerBuilderPlugin();
      return true;
    }();
    (void)once;
  }

  const Parts parts_;
  Guard guard_;
  Streams streams_;
  Rest rest_;
  std::vector<std::unique_ptr<grpc::Service>> services_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Pulse> pulse_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;  // of connections to a given socket
  std::unique_ptr<GivenListener> given_;
  std::string address_;
  std::mutex stop_mutex_;
  bool stopped_ = false;
};

}  // namespace

absl::Status Admin::CheckListen(const std::string& listen) { return TryBind(listen, false); }

absl::StatusOr<std::unique_ptr<Admin>> Admin::Serve(const std::string& listen, Parts parts, UniqueFd given) {
  auto server = std::make_unique<AdminServer>(std::move(parts));
  RETURN_IF_ERROR(server->Start(listen, std::move(given)));
  return server;
}

}  // namespace bulkhead
