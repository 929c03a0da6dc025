#include "supervisor/worker/control.h"

#include <grpcpp/grpcpp.h>

#include <climits>

#include "bulkhead/module/v1/module.grpc.pb.h"
#include "supervisor/base/guarded.h"
#include "supervisor/worker/run_stream.h"

namespace bulkhead {
namespace {

namespace v1 = module::v1;

absl::Status ToAbsl(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

// What lives as long as one unary call.
template <typename Request, typename Response>
struct Call {
  grpc::ClientContext context;
  Request request;
  Response response;
};

class RunJobReactor final : public grpc::ClientReadReactor<v1::RunJobUpdate>, public JobCall {
 public:
  RunJobReactor(std::function<void(const v1::RunJobUpdate&)> update, std::function<void(absl::Status)> done)
      : update_(std::move(update)), done_(std::move(done)) {}

  void Begin(v1::Module::Stub& stub, std::shared_ptr<RunJobReactor> self) {
    self_ = std::move(self);
    stub.async()->RunJob(&context, &request, this);
    StartRead(&message_);
    StartCall();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    update_(message_);
    StartRead(&message_);
  }
  void OnDone(const grpc::Status& status) override {
    done_(ToAbsl(status));
    self_.reset();
  }
  void Cancel() override { context.TryCancel(); }

  grpc::ClientContext context;
  v1::RunJobRequest request;

 private:
  std::function<void(const v1::RunJobUpdate&)> update_;
  std::function<void(absl::Status)> done_;
  v1::RunJobUpdate message_;
  std::shared_ptr<RunJobReactor> self_;  // gRPC holds a bare pointer until OnDone
};

// gRPC 1.51 joins the threads of its callbacks when the last channel goes; when one of them lets go of it, with the context of its call,
// it joins itself. So one channel, which leads nowhere, stays until the process ends.
void KeepCallbackThreads() {
  struct Kept {
    Kept() {
      grpc::ChannelArguments arguments;
      arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, INT_MAX);
      arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, INT_MAX);
      stub = v1::Module::NewStub(grpc::CreateCustomChannel("unix:/dev/null", grpc::InsecureChannelCredentials(), arguments));
      stub->async()->Health(&call.context, &call.request, &call.response, [](const grpc::Status&) {});
    }
    std::unique_ptr<v1::Module::Stub> stub;
    Call<v1::HealthRequest, v1::HealthResponse> call;
  };
  static Kept kept;
}

class GrpcControlPort final : public ControlPort {
 public:
  GrpcControlPort(const std::string& socket, std::string token) : token_(std::move(token)) {
    grpc::ChannelArguments arguments;
    // A channel of its own: two instances never share a subchannel, and a dead one is not retried behind our back.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "module");
    stub_ = v1::Module::NewStub(grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments));
  }
  ~GrpcControlPort() override {
    if (auto stream = runs_->With([](Runs& runs) { return std::move(runs.stream); })) stream->Close();
  }

  void Initialize(const v1::InitializeRequest& request, Millis timeout, Done<v1::InitializeResponse> done) override {
    Unary<v1::InitializeRequest, v1::InitializeResponse>(
        request, timeout,
        [runs = runs_, done = std::move(done)](absl::Status status, v1::InitializeResponse response) {
          runs->With([&](Runs& state) { state.offered = response.run_jobs(); });
          done(std::move(status), std::move(response));
        },
        [](auto* async, auto& call, auto callback) {
          async->Initialize(&call.context, &call.request, &call.response, std::move(callback));
        });
  }
  void Start(Millis timeout, Done<v1::StartResponse> done) override {
    Unary<v1::StartRequest, v1::StartResponse>({}, timeout, std::move(done), [](auto* async, auto& call, auto callback) {
      async->Start(&call.context, &call.request, &call.response, std::move(callback));
    });
  }
  void Stop(Millis timeout, Done<v1::StopResponse> done) override {
    v1::StopRequest request;
    request.set_deadline_ms(timeout.count());
    Unary<v1::StopRequest, v1::StopResponse>(request, timeout, std::move(done), [](auto* async, auto& call, auto callback) {
      async->Stop(&call.context, &call.request, &call.response, std::move(callback));
    });
  }
  void Health(Millis timeout, Done<v1::HealthResponse> done) override {
    Unary<v1::HealthRequest, v1::HealthResponse>({}, timeout, std::move(done), [](auto* async, auto& call, auto callback) {
      async->Health(&call.context, &call.request, &call.response, std::move(callback));
    });
  }
  void Metrics(Millis timeout, Done<v1::MetricsResponse> done) override {
    Unary<v1::MetricsRequest, v1::MetricsResponse>({}, timeout, std::move(done), [](auto* async, auto& call, auto callback) {
      async->Metrics(&call.context, &call.request, &call.response, std::move(callback));
    });
  }
  void Configure(const v1::ConfigureRequest& request, Millis timeout, Done<v1::ConfigureResponse> done) override {
    Unary<v1::ConfigureRequest, v1::ConfigureResponse>(request, timeout, std::move(done), [](auto* async, auto& call, auto callback) {
      async->Configure(&call.context, &call.request, &call.response, std::move(callback));
    });
  }
  void RunningJobs(Millis timeout, Done<v1::RunningJobsResponse> done) override {
    Unary<v1::RunningJobsRequest, v1::RunningJobsResponse>({}, timeout, std::move(done), [](auto* async, auto& call, auto callback) {
      async->RunningJobs(&call.context, &call.request, &call.response, std::move(callback));
    });
  }
  void DeliverEvents(const v1::DeliverEventsRequest& request, Millis timeout, Done<v1::DeliverEventsResponse> done) override {
    Unary<v1::DeliverEventsRequest, v1::DeliverEventsResponse>(request, timeout, std::move(done), [](auto* async, auto& call, auto callback) {
      async->DeliverEvents(&call.context, &call.request, &call.response, std::move(callback));
    });
  }
  std::shared_ptr<JobCall> RunJob(const v1::RunJobRequest& request, Millis timeout,
                                  std::function<void(const v1::RunJobUpdate&)> update,
                                  std::function<void(absl::Status)> done) override {
    if (auto stream = Stream()) {
      if (auto call = stream->Begin(request, update, done)) return call;
      stream = Stream(stream.get());  // the one before has just ended
      if (auto call = stream->Begin(request, update, done)) return call;
    }
    auto reactor = std::make_shared<RunJobReactor>(std::move(update), std::move(done));
    reactor->request = request;
    Prepare(reactor->context, timeout);
    reactor->Begin(*stub_, reactor);
    return reactor;
  }

  void Flush() override {
    if (auto stream = runs_->With([](Runs& runs) { return runs.stream; })) stream->Flush();
  }

 private:
  struct Runs {
    bool offered = false;  // by the module, in its answer to Initialize
    std::shared_ptr<RunStream> stream;
  };
  // The one for all runs, where the module serves that; another one than `ended`.
  std::shared_ptr<RunStream> Stream(const RunStream* ended = nullptr) {
    return runs_->With([&](Runs& runs) {
      if (runs.offered && (!runs.stream || runs.stream.get() == ended)) runs.stream = RunStream::Open(*stub_, token_);
      return runs.stream;
    });
  }
  void Prepare(grpc::ClientContext& context, Millis timeout) {
    context.AddMetadata("x-bulkhead-token", token_);
    context.set_deadline(std::chrono::system_clock::now() + timeout);
  }
  template <typename Request, typename Response, typename Method>
  void Unary(const Request& request, Millis timeout, Done<Response> done, Method method) {
    auto call = std::make_shared<Call<Request, Response>>();
    call->request = request;
    Prepare(call->context, timeout);
    method(stub_->async(), *call,
           [call, done = std::move(done)](grpc::Status status) { done(ToAbsl(status), std::move(call->response)); });
  }

  const std::string token_;
  std::unique_ptr<v1::Module::Stub> stub_;
  const std::shared_ptr<Guarded<Runs>> runs_ = std::make_shared<Guarded<Runs>>();
};

}  // namespace

std::shared_ptr<ControlPort> ControlPort::Open(const std::string& socket, const std::string& token) {
  KeepCallbackThreads();
  return std::make_shared<GrpcControlPort>(socket, token);
}

}  // namespace bulkhead
