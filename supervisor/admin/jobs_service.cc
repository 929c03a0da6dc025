// The service Jobs: jobs of modules and their runs.
#include <algorithm>
#include <charconv>

#include "bulkhead/admin/v1/jobs.grpc.pb.h"
#include "nlohmann/json.hpp"
#include "supervisor/admin/call.h"
#include "supervisor/admin/file_source.h"
#include "supervisor/admin/json.h"
#include "supervisor/admin/parameters.h"
#include "supervisor/admin/services.h"
#include "supervisor/admin/stream.h"
#include "supervisor/admin/views.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

using admin::v1::CancelRunRequest;
using admin::v1::FollowRunRequest;
using admin::v1::FollowRunResponse;
using admin::v1::GetArtifactRequest;
using admin::v1::GetArtifactResponse;
using admin::v1::GetRunRequest;
using admin::v1::ListAllRunsRequest;
using admin::v1::ListArtifactsRequest;
using admin::v1::ListArtifactsResponse;
using admin::v1::ListJobsRequest;
using admin::v1::ListJobsResponse;
using admin::v1::ListRunLogsRequest;
using admin::v1::ListRunLogsResponse;
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

constexpr Millis kCancelWait{10'000};
constexpr int kMaxRunLogAnswer = 5'000, kRunLogAnswer = 1'000;

admin::v1::RunLogLine RunLineMessage(const RunLogLine& line) {
  admin::v1::RunLogLine l;
  l.set_seq(line.seq);
  *l.mutable_time() = ToTimestamp(line.at);
  l.set_level(ValidUtf8(line.level));
  l.set_message(ValidUtf8(line.message));
  return l;
}

absl::StatusOr<std::optional<RunStatus>> ParseStatus(const std::string& name) {
  if (name.empty()) return std::nullopt;
  const auto status = ParseRunStatus(name);
  if (!status) return BadParameter("status", "must be one of " + EnumNames(*admin::v1::RunStatus::Enum_descriptor()));
  return status;
}

absl::StatusOr<int64_t> ParseAfter(const std::string& text) {
  int64_t after = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), after);
  if (!text.empty() && (error != std::errc() || end != text.data() + text.size() || after < 0))
    return BadParameter("after", "must be a cursor, as an event of the stream has it");
  return after;
}

void AnswerRuns(const CallPtr<ListRunsResponse>& call, const Page& page, const absl::StatusOr<RunPage>& runs) {
  if (!runs.ok()) return call->Fail(runs.status());
  ListRunsResponse answer;
  for (const RunView& run : runs->runs) *answer.add_runs() = ToMessage(run);
  answer.mutable_meta()->set_total(runs->total);
  answer.mutable_meta()->set_page(page.number);
  answer.mutable_meta()->set_page_size(page.size);
  call->Answer(std::move(answer));
}

// Asks a follower; the stream is woken by it.
class RunSource : public StreamCall<FollowRunResponse>::Source {
 public:
  RunSource(std::shared_ptr<RunFollower> follower, int64_t after) : follower_(std::move(follower)), last_(after) {}
  std::optional<FollowRunResponse> Next(std::optional<absl::Status>& end) override {
    FollowRunResponse response;
    if (!std::exchange(begun_, true)) return response;
    RunFollower::Event event = follower_->Next();
    switch (event.kind) {
      case RunFollower::Event::Kind::kNothing: return std::nullopt;
      case RunFollower::Event::Kind::kEnded: end = absl::OkStatus(); return std::nullopt;
      case RunFollower::Event::Kind::kRun: *response.mutable_run() = ToMessage(event.run); break;
      case RunFollower::Event::Kind::kLine:
        last_ = event.line.seq;
        *response.mutable_log() = RunLineMessage(event.line);
        break;
    }
    response.set_cursor(std::to_string(last_));
    return response;
  }

 private:
  const std::shared_ptr<RunFollower> follower_;
  int64_t last_;
  bool begun_ = false;
};

class JobsService : public admin::v1::Jobs::CallbackService {
 public:
  JobsService(const Guard& guard, Modules& modules, Jobs& jobs, Streams& streams, const Clock& clock)
      : guard_(guard), modules_(modules), jobs_(jobs), streams_(streams), clock_(clock) {}

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
      const auto status = ParseStatus(request->status());
      if (!status.ok()) return call->Fail(status.status());
      const auto page = PageOf(*request);
      if (!page.ok()) return call->Fail(page.status());
      WithModule(call, request->module(), [call, status = *status, page = *page, job = request->job(), &jobs = jobs_](const ModuleView& view) {
        if (view.manifest && !HasJob(*view.manifest, job)) {
          return call->Fail(Error("JOB_NOT_FOUND", "The module \"" + view.row.name + "\" has no job \"" + job + "\"."));
        }
        jobs.ListRuns({.module = view.row.name, .job = job, .status = status}, page.number, page.size,
                      [call, page](absl::StatusOr<RunPage> runs) { AnswerRuns(call, page, runs); });
      });
    });
  }

  ServerUnaryReactor* ListAllRuns(CallbackServerContext* context, const ListAllRunsRequest* request, ListRunsResponse* response) override {
    return Serve(guard_, context, METHOD("ListAllRuns"), request, response,
                 [this](CallPtr<ListRunsResponse> call, const ListAllRunsRequest* request) {
      const auto status = ParseStatus(request->status());
      if (!status.ok()) return call->Fail(status.status());
      const std::string& trigger = request->trigger();
      if (!trigger.empty() && trigger != "schedule" && trigger != "manual" && trigger != "enqueue")
        return call->Fail(BadParameter("trigger", "must be one of schedule, manual, enqueue"));
      const auto page = PageOf(*request);
      if (!page.ok()) return call->Fail(page.status());
      jobs_.ListRuns({.module = request->module(), .job = request->job(), .trigger = trigger, .status = *status}, page->number, page->size,
                     [call, page = *page](absl::StatusOr<RunPage> runs) { AnswerRuns(call, page, runs); });
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

  grpc::ServerWriteReactor<FollowRunResponse>* FollowRun(CallbackServerContext* context, const FollowRunRequest* request) override {
    using Stream = StreamCall<FollowRunResponse>;
    return Stream::Serve(guard_, streams_, clock_, context, METHOD("FollowRun"), request,
                         [this](std::shared_ptr<Stream> stream, const FollowRunRequest& request) {
      const auto after = ParseAfter(request.after());
      if (!after.ok()) return stream->End(after.status());
      const auto wake = [weak = std::weak_ptr(stream)] {
        if (auto stream = weak.lock()) stream->Wake();
      };
      jobs_.Follow(request.id(), *after, wake, [stream, after = *after](absl::StatusOr<std::shared_ptr<RunFollower>> follower) {
        if (!follower.ok()) return stream->End(follower.status());
        if (stream->live()) stream->Open(std::make_unique<RunSource>(*std::move(follower), after));
      });
    });
  }

  ServerUnaryReactor* ListRunLogs(CallbackServerContext* context, const ListRunLogsRequest* request, ListRunLogsResponse* response) override {
    return Serve(guard_, context, METHOD("ListRunLogs"), request, response,
                 [this](CallPtr<ListRunLogsResponse> call, const ListRunLogsRequest* request) {
      const int limit = request->has_limit() ? request->limit() : kRunLogAnswer;
      if (limit < 1 || limit > kMaxRunLogAnswer) return call->Fail(BadParameter("limit", "must be from 1 to " + std::to_string(kMaxRunLogAnswer)));
      jobs_.ListLogs(request->id(), request->after(), limit, [call](absl::StatusOr<std::vector<RunLogLine>> lines) {
        if (!lines.ok()) return call->Fail(lines.status());
        ListRunLogsResponse answer;
        for (const RunLogLine& line : *lines) *answer.add_lines() = RunLineMessage(line);
        call->Answer(std::move(answer));
      });
    });
  }

  ServerUnaryReactor* ListArtifacts(CallbackServerContext* context, const ListArtifactsRequest* request, ListArtifactsResponse* response) override {
    return Serve(guard_, context, METHOD("ListArtifacts"), request, response,
                 [this](CallPtr<ListArtifactsResponse> call, const ListArtifactsRequest* request) {
      jobs_.GetRun(request->id(), [call](absl::StatusOr<RunView> run) {
        if (!run.ok()) return call->Fail(run.status());
        ListArtifactsResponse answer;
        for (const Artifact& artifact : run->artifacts) *answer.add_artifacts() = ToMessage(artifact);
        call->Answer(std::move(answer));
      });
    });
  }

  grpc::ServerWriteReactor<GetArtifactResponse>* GetArtifact(CallbackServerContext* context, const GetArtifactRequest* request) override {
    using Stream = StreamCall<GetArtifactResponse>;
    return Stream::Serve(guard_, streams_, clock_, context, METHOD("GetArtifact"), request,
                         [this](std::shared_ptr<Stream> stream, const GetArtifactRequest& request) {
      jobs_.FindArtifact(request.id(), request.name(), [stream, &jobs = jobs_](absl::StatusOr<Artifact> artifact) {
        if (!artifact.ok()) return stream->End(artifact.status());
        GetArtifactResponse head;
        *head.mutable_artifact() = ToMessage(*artifact);
        const auto fetch = [&jobs, artifact = *artifact, next = std::make_shared<int>(0)](FileSource<GetArtifactResponse>::Fetched done) {
          jobs.ReadArtifact(artifact, (*next)++, std::move(done));
        };
        if (stream->live()) stream->Open(std::make_unique<FileSource<GetArtifactResponse>>(std::move(head), artifact->bytes, fetch, stream));
      });
    });
  }

  ServerUnaryReactor* CancelRun(CallbackServerContext* context, const CancelRunRequest* request, RunJobResponse* response) override {
    return Serve(guard_, context, METHOD("CancelRun"), request, response, [this](CallPtr<RunJobResponse> call, const CancelRunRequest* request) {
      const auto wait = ParseWait(request->wait(), kCancelWait);
      if (!wait.ok()) return call->Fail(wait.status());
      if (!call->GoesOn()) return;
      jobs_.Cancel(request->id(), *wait, {.by = call->actor(), .action = "jobs.cancel"}, [call](absl::StatusOr<RunView> run) {
        if (!run.ok()) return call->Fail(run.status());
        RunJobResponse answer;
        *answer.mutable_run() = ToMessage(*run);
        const bool converged = Ended(run->status);
        answer.mutable_meta()->set_converged(converged);
        converged ? call->Answer(std::move(answer)) : call->AnswerEarly(std::move(answer));
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
  Streams& streams_;
  const Clock& clock_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeJobsService(const Guard& guard, Modules& modules, Jobs& jobs, Streams& streams, const Clock& clock) {
  return std::make_unique<JobsService>(guard, modules, jobs, streams, clock);
}

#undef METHOD

}  // namespace bulkhead
