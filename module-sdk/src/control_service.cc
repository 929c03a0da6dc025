#include "control_service.h"

#include <algorithm>

#include "secret.h"

namespace bulkhead::sdk {

namespace pb = ::bulkhead::module::v1;

namespace {

constexpr auto kHealthBudget = std::chrono::milliseconds(4'000);  // for a call without deadline
constexpr auto kHealthMargin =
    std::chrono::milliseconds(1'200);  // of the caller's deadline, at most half: kept for Module::Health and the way back

grpc::Status WrongToken() { return {grpc::StatusCode::UNAUTHENTICATED, "x-bulkhead-token is missing or wrong"}; }

template <typename Reactor>
class Refused : public Reactor {
 public:
  Refused() { this->Finish(WrongToken()); }
  void OnDone() override { delete this; }
};

std::chrono::milliseconds TimeLeft(const grpc::CallbackServerContext& context) {
  auto left = std::chrono::duration_cast<std::chrono::milliseconds>(context.deadline() - std::chrono::system_clock::now());
  return std::clamp(left - std::min(kHealthMargin, left / 2), std::chrono::milliseconds(1), kHealthBudget);
}

}  // namespace

ControlService::ControlService(ModuleHost& host, std::string token, std::function<void()> changed)
    : host_(host), token_(std::move(token)), changed_(std::move(changed)) {}

bool ControlService::Authorized(Context* context) const {
  const auto& metadata = context->client_metadata();
  auto found = metadata.find("x-bulkhead-token");
  return found != metadata.end() && SameSecret({found->second.data(), found->second.size()}, token_);
}

ControlService::Unary* ControlService::On(SerialThread& thread, Context* context, std::function<grpc::Status()> work) {
  Unary* reactor = context->DefaultReactor();
  if (!Authorized(context)) {
    reactor->Finish(WrongToken());
  } else {
    thread.Post([reactor, work = std::move(work)] { reactor->Finish(work()); });
  }
  return reactor;
}

ControlService::Unary* ControlService::Initialize(Context* context, const pb::InitializeRequest* request,
                                                  pb::InitializeResponse* response) {
  return On(lifecycle_thread_, context, [this, request, response] {
    grpc::Status status = host_.Initialize(*request);
    response->set_run_jobs(true);
    if (host_.failed()) changed_();
    return status;
  });
}

ControlService::Unary* ControlService::Start(Context* context, const pb::StartRequest*, pb::StartResponse*) {
  return On(lifecycle_thread_, context, [this] {
    grpc::Status status = host_.Start();
    if (host_.failed()) changed_();
    return status;
  });
}

ControlService::Unary* ControlService::Stop(Context* context, const pb::StopRequest* request, pb::StopResponse*) {
  Unary* reactor = context->DefaultReactor();
  if (!Authorized(context)) {
    reactor->Finish(WrongToken());
    return reactor;
  }
  auto deadline = ModuleHost::Clock::now() + std::chrono::milliseconds(std::max<int64_t>(request->deadline_ms(), 0));
  lifecycle_thread_.Post([this, reactor, deadline] {
    host_.Stop(deadline);
    reactor->Finish(grpc::Status::OK);
    stopped_ = true;
    changed_();
  });
  return reactor;
}

void ControlService::StopModule(std::chrono::milliseconds budget) {
  auto deadline = ModuleHost::Clock::now() + budget;
  lifecycle_thread_.Post([this, deadline] {
    host_.Stop(deadline);
    stopped_ = true;
    changed_();
  });
}

ControlService::Unary* ControlService::Health(Context* context, const pb::HealthRequest*, pb::HealthResponse* response) {
  return On(health_thread_, context, [this, context, response] {
    host_.Health(TimeLeft(*context), *response);
    return grpc::Status::OK;
  });
}

ControlService::Unary* ControlService::Metrics(Context* context, const pb::MetricsRequest*, pb::MetricsResponse* response) {
  return On(metrics_thread_, context, [this, response] {
    host_.Metrics(*response);
    return grpc::Status::OK;
  });
}

ControlService::Unary* ControlService::Configure(Context* context, const pb::ConfigureRequest* request,
                                                 pb::ConfigureResponse* response) {
  return On(lifecycle_thread_, context, [this, request, response] {
    host_.Configure(*request, *response);
    return grpc::Status::OK;
  });
}

JobRuns::One* ControlService::RunJob(Context* context, const pb::RunJobRequest* request) {
  return Authorized(context) ? host_.RunJob(*request) : new Refused<JobRuns::One>;
}

JobRuns::Many* ControlService::RunJobs(Context* context) { return Authorized(context) ? host_.RunJobs() : new Refused<JobRuns::Many>; }

ControlService::Unary* ControlService::RunningJobs(Context* context, const pb::RunningJobsRequest*, pb::RunningJobsResponse* response) {
  Unary* reactor = context->DefaultReactor();
  if (!Authorized(context)) {
    reactor->Finish(WrongToken());
    return reactor;
  }
  for (int64_t fence : host_.RunningJobs()) response->add_fences(fence);
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

ControlService::Unary* ControlService::DeliverEvents(Context* context, const pb::DeliverEventsRequest* request,
                                                     pb::DeliverEventsResponse* response) {
  Unary* reactor = context->DefaultReactor();
  if (!Authorized(context)) {
    reactor->Finish(WrongToken());
    return reactor;
  }
  host_.DeliverEvents(*request, *response, [reactor] { reactor->Finish(grpc::Status::OK); });
  return reactor;
}

}  // namespace bulkhead::sdk
