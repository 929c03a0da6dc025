// The service Jobs: jobs of modules and their runs.
#include <algorithm>

#include "bulkhead/admin/v1/jobs.grpc.pb.h"
#include "nlohmann/json.hpp"
#include "supervisor/admin/call.h"
#include "supervisor/admin/json.h"
#include "supervisor/admin/parameters.h"
#include "supervisor/admin/services.h"
#include "supervisor/admin/views.h"
#include "supervisor/base/limits.h"

namespace bulkhead {
namespace {

using admin::v1::GetRunRequest;
using admin::v1::ListJobsRequest;
using admin::v1::ListJobsResponse;
using admin::v1::ListRunsRequest;
using admin::v1::ListRunsResponse;
using admin::v1::RunJobRequest;
using admin::v1::RunJobResponse;
using admin::v1::RunResponse;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

#define METHOD(name) "bulkhead.admin.v1.Jobs." name

bool Ended(RunStatus status) { return status != RunStatus::kQueued && status != RunStatus::kRunning; }

bool HasJob(const Manifest& manifest, const std::string& job) {
  return std::any_of(manifest.jobs.begin(), manifest.jobs.end(), [&](const JobSpec& spec) { return spec.name == job; });
}

class JobsService : public admin::v1::Jobs::CallbackService {
 public:
  JobsService(const Guard& guard, Modules& modules, Jobs& jobs) : guard_(guard), modules_(modules), jobs_(jobs) {}

  ServerUnaryReactor* ListJobs(CallbackServerContext* context, const ListJobsRequest* request,
                               ListJobsResponse* response) override {
    return Serve(guard_, context, METHOD("ListJobs"), request, response,
                 [this](CallPtr<ListJobsResponse> call, const ListJobsRequest* request) {
      WithModule(call, request->module(), [call, &jobs = jobs_](const ModuleView& view) {
        jobs.ListJobs(view.row.name, view.manifest, [call](absl::StatusOr<std::vector<JobView>> list) {
          if (!list.ok()) return call->Fail(list.status());
          ListJobsResponse answer;
          for (const JobView& job : *list) *answer.add_jobs() = ToMessage(job);
          const int count = static_cast<int>(list->size());  // a manifest's jobs are few: one page
          answer.mutable_meta()->set_total(count);
          answer.mutable_meta()->set_page(1);
          answer.mutable_meta()->set_page_size(count);
          call->Answer(std::move(answer));
        });
      });
    });
  }

  ServerUnaryReactor* RunJob(CallbackServerContext* context, const RunJobRequest* request, RunJobResponse* response) override {
    return Serve(guard_, context, METHOD("RunJob"), request, response,
                 [this](CallPtr<RunJobResponse> call, const RunJobRequest* request) {
      auto wait = ParseWait(request->wait(), Millis(0));
      if (!wait.ok()) return call->Fail(wait.status());
      std::string payload = ToJson(request->payload()).dump();
      if (payload.size() > limits::kMaxJobPayload) {
        return call->Fail(BadParameter("payload", "is larger than " + std::to_string(limits::kMaxJobPayload) + " bytes as JSON"));
      }
      WithModule(call, request->module(),
                 [call, job = request->job(), payload = std::move(payload), wait = *wait, &jobs = jobs_](const ModuleView& view) {
                   AuditRecord audit{.by = call->actor(), .action = "jobs.run", .module = view.row.name};
                   jobs.Run(view.row.name, job, payload, wait, std::move(audit), [call, wait](absl::StatusOr<RunView> run) {
                     if (!run.ok()) return call->Fail(run.status());
                     RunJobResponse answer;
                     *answer.mutable_run() = ToMessage(*run);
                     // Who does not wait is told 202, however quick the run was.
                     const bool converged = wait > Millis(0) && Ended(run->status);
                     answer.mutable_meta()->set_converged(converged);
                     converged ? call->Answer(std::move(answer)) : call->AnswerEarly(std::move(answer));
                   });
                 });
    });
  }

  ServerUnaryReactor* ListRuns(CallbackServerContext* context, const ListRunsRequest* request,
                               ListRunsResponse* response) override {
    return Serve(guard_, context, METHOD("ListRuns"), request, response,
                 [this](CallPtr<ListRunsResponse> call, const ListRunsRequest* request) {
      std::optional<RunStatus> status;
      if (!request->status().empty()) {
        status = ParseRunStatus(request->status());
        if (!status) return call->Fail(BadParameter("status", "must be one of " + EnumNames(*admin::v1::RunStatus::Enum_descriptor())));
      }
      auto page = ParsePage(request->has_page() ? std::optional(request->page()) : std::nullopt,
                            request->has_page_size() ? std::optional(request->page_size()) : std::nullopt);
      if (!page.ok()) return call->Fail(page.status());
      WithModule(
          call, request->module(), [call, status, page = *page, job = request->job(), &jobs = jobs_](const ModuleView& view) {
            if (view.manifest && !HasJob(*view.manifest, job)) {
              return call->Fail(Error("JOB_NOT_FOUND", "The module \"" + view.row.name + "\" has no job \"" + job + "\"."));
            }
            jobs.ListRuns(view.row.name, job, status, page.number, page.size, [call, page](absl::StatusOr<RunPage> runs) {
              if (!runs.ok()) return call->Fail(runs.status());
              ListRunsResponse answer;
              for (const RunView& run : runs->runs) *answer.add_runs() = ToMessage(run);
              answer.mutable_meta()->set_total(runs->total);
              answer.mutable_meta()->set_page(page.number);
              answer.mutable_meta()->set_page_size(page.size);
              call->Answer(std::move(answer));
            });
          });
    });
  }

  ServerUnaryReactor* GetRun(CallbackServerContext* context, const GetRunRequest* request, RunResponse* response) override {
    return Serve(guard_, context, METHOD("GetRun"), request, response,
                 [this](CallPtr<RunResponse> call, const GetRunRequest* request) {
      jobs_.GetRun(request->id(), [call](absl::StatusOr<RunView> run) {
        if (!run.ok()) return call->Fail(run.status());
        RunResponse answer;
        *answer.mutable_run() = ToMessage(*run);
        call->Answer(std::move(answer));
      });
    });
  }

 private:
  // MODULE_NOT_FOUND comes before whatever else may be wrong; `act` runs on the control loop.
  template <typename Response>
  void WithModule(const CallPtr<Response>& call, const std::string& name, std::function<void(const ModuleView&)> act) {
    modules_.Get(name, [call, act = std::move(act)](absl::StatusOr<ModuleView> view) {
      if (!view.ok()) return call->Fail(view.status());
      if (call->GoesOn()) act(*view);
    });
  }

  const Guard& guard_;
  Modules& modules_;
  Jobs& jobs_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeJobsService(const Guard& guard, Modules& modules, Jobs& jobs) {
  return std::make_unique<JobsService>(guard, modules, jobs);
}

#undef METHOD

}  // namespace bulkhead
