// The service Migrations: status, plan, up and down of a module's migrations.
#include "bulkhead/admin/v1/migrations.grpc.pb.h"
#include "supervisor/admin/call.h"
#include "supervisor/admin/json.h"
#include "supervisor/admin/parameters.h"
#include "supervisor/admin/services.h"
#include "supervisor/base/limits.h"

namespace bulkhead {
namespace {

using admin::v1::GetMigrationsRequest;
using admin::v1::GetMigrationsResponse;
using admin::v1::MigrateDownRequest;
using admin::v1::MigrateResponse;
using admin::v1::MigrateUpRequest;
using admin::v1::PlanMigrationsRequest;
using admin::v1::PlanMigrationsResponse;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

#define METHOD(name) "bulkhead.admin.v1.Migrations." name

constexpr std::string_view kOwn = "bulkhead";

admin::v1::MigrationState::Enum ToMessage(MigrationState state) {
  switch (state) {
    case MigrationState::kPending: return admin::v1::MigrationState::PENDING;
    case MigrationState::kPartial: return admin::v1::MigrationState::PARTIAL;
    case MigrationState::kApplied: return admin::v1::MigrationState::APPLIED;
    case MigrationState::kRolledBack: return admin::v1::MigrationState::ROLLED_BACK;
  }
  return admin::v1::MigrationState::UNSPECIFIED;
}

void Fill(const MigrationInfo& info, admin::v1::Migration& message) {
  message.set_number(info.number);
  message.set_name(info.name);
  message.set_state(ToMessage(info.state));
  message.set_checksum(info.checksum);
  message.set_transactional(info.transactional);
  message.set_statements(info.statements);
  message.set_done(info.done);
  message.set_present(info.present);
  message.set_edited(info.edited);
  message.set_reversible(!info.down_checksum.empty());
  message.set_down_checksum(info.down_checksum);
  if (info.applied_at) *message.mutable_applied_at() = ToTimestamp(*info.applied_at);
  if (info.rolled_back_at) *message.mutable_rolled_back_at() = ToTimestamp(*info.rolled_back_at);
  if (info.took_ms) message.set_took_ms(*info.took_ms);
}

void Fill(const MigrationProblem& problem, admin::v1::MigrationProblem& message) {
  message.set_code(problem.code);
  message.set_file(problem.file);
  message.set_line(problem.line);
  message.set_column(problem.column);
  message.set_message(problem.message);
}

GetMigrationsResponse ToResponse(const std::string& module, const MigrationOverview& overview) {
  GetMigrationsResponse response;
  auto& migrations = *response.mutable_migrations();
  migrations.set_module(module);
  for (const MigrationInfo& info : overview.files) {
    const bool applied = info.state == MigrationState::kApplied;
    applied ? migrations.set_applied(migrations.applied() + 1) : migrations.set_pending(migrations.pending() + 1);
    Fill(info, *migrations.add_files());
  }
  for (const MigrationProblem& problem : overview.problems) Fill(problem, *migrations.add_problems());
  if (overview.running) {
    auto& running = *migrations.mutable_running();
    running.set_file(overview.running->file);
    running.set_direction(overview.running->down ? "down" : "up");
    *running.mutable_since() = ToTimestamp(overview.running->since);
    running.set_pid(overview.running->pid);
  }
  return response;
}

MigrateResponse ToResponse(const std::string& module, bool down, const MigrationReport& report, bool converged) {
  MigrateResponse response;
  response.mutable_result()->set_module(module);
  response.mutable_result()->set_direction(down ? "down" : "up");
  for (size_t i = 0; converged && i < report.applied.size(); ++i) {
    auto& step = *response.mutable_result()->add_steps();
    step.set_name(report.applied[i]);
    step.set_took_ms(report.took_ms[i]);
  }
  response.mutable_meta()->set_converged(converged);
  return response;
}

absl::StatusOr<MigratedModule> ToMigrated(const ModuleView& view) {
  if (view.row.package.empty()) {
    return Error("MODULE_NOT_INSTALLED", "The module \"" + view.row.name + "\" is registered and not installed: nobody has looked at its files. "
                 "POST /api/v1/modules/" + view.row.name + "/install first.");
  }
  MigratedModule module{.name = view.row.name};
  if (!view.manifest->has_database) return module;
  module.folder = view.row.package + "/" + view.manifest->migrations_dir;
  module.connections = (view.workers_wanted + view.manifest->warm_spare) * limits::kConnectionsPerWorker;
  module.extensions = view.manifest->extensions;
  return module;
}

absl::Status OwnIsReadOnly() {
  return Error("INVALID_ARGUMENT", "The supervisor's own tables are migrated at its start and never rolled back: only their status can be asked for.",
               {{.path = "name"}});
}

// What each file is recorded as; the call has a row of its own beside them.
AuditRecord FileRecord(const CallBase& call, const char* action) { return {.by = OnTheWay(call.actor()), .action = action}; }

std::optional<int> To(bool given, int to) { return given ? std::optional(to) : std::nullopt; }

class MigrationsService : public admin::v1::Migrations::CallbackService {
 public:
  MigrationsService(const Guard& guard, Modules& modules, ModuleMigrations& migrations, BlockingPool& pool)
      : guard_(guard), modules_(modules), migrations_(migrations), pool_(pool) {}

  ServerUnaryReactor* GetMigrations(CallbackServerContext* context, const GetMigrationsRequest* request,
                                    GetMigrationsResponse* response) override {
    return Serve(guard_, context, METHOD("GetMigrations"), request, response,
                 [this](CallPtr<GetMigrationsResponse> call, const GetMigrationsRequest* request) {
      const auto answer = [call](const std::string& name, const absl::StatusOr<MigrationOverview>& overview) {
        overview.ok() ? call->Answer(ToResponse(name, *overview)) : call->Fail(overview.status());
      };
      if (request->name() == kOwn) {
        return OnPool(pool_, call, [answer, &migrations = migrations_] { answer(std::string(kOwn), migrations.InspectOwn()); });
      }
      WithModule(call, request->name(), [answer, &migrations = migrations_](const MigratedModule& module) {
        answer(module.name, migrations.Inspect(module));
      });
    });
  }

  ServerUnaryReactor* PlanMigrations(CallbackServerContext* context, const PlanMigrationsRequest* request,
                                     PlanMigrationsResponse* response) override {
    return Serve(guard_, context, METHOD("PlanMigrations"), request, response,
                 [this](CallPtr<PlanMigrationsResponse> call, const PlanMigrationsRequest* request) {
      if (request->name() == kOwn) return call->Fail(OwnIsReadOnly());
      if (request->has_to() && !request->down()) return call->Fail(BadParameter("to", "is for a plan with \"down\" only"));
      WithModule(call, request->name(),
                 [call, down = request->down(), to = To(request->has_to(), request->to()), &migrations = migrations_](const MigratedModule& module) {
                   auto overview = migrations.Inspect(module);
                   if (!overview.ok()) return call->Fail(overview.status());
                   PlanMigrationsResponse answer;
                   auto& plan = *answer.mutable_plan();
                   plan.set_module(module.name);
                   plan.set_direction(down ? "down" : "up");
                   if (down) {
                     auto steps = PlanRollback(*overview, module.name, to);
                     if (!steps.ok()) return call->Fail(steps.status());
                     for (const MigrationInfo& info : *steps) Fill(info, *plan.add_steps());
                   } else {
                     for (const MigrationInfo& info : overview->files) {
                       if (info.state != MigrationState::kApplied && info.present) Fill(info, *plan.add_steps());
                     }
                     for (const MigrationProblem& problem : overview->problems) Fill(problem, *plan.add_problems());
                   }
                   call->Answer(std::move(answer));
                 });
    });
  }

  ServerUnaryReactor* MigrateUp(CallbackServerContext* context, const MigrateUpRequest* request, MigrateResponse* response) override {
    return Serve(guard_, context, METHOD("MigrateUp"), request, response,
                 [this](CallPtr<MigrateResponse> call, const MigrateUpRequest* request) {
      Run(call, *request, false, [&migrations = migrations_, audit = FileRecord(*call, "migrations.up")](const MigratedModule& module) {
        return migrations.Up(module, &audit);
      });
    });
  }

  ServerUnaryReactor* MigrateDown(CallbackServerContext* context, const MigrateDownRequest* request, MigrateResponse* response) override {
    return Serve(guard_, context, METHOD("MigrateDown"), request, response,
                 [this](CallPtr<MigrateResponse> call, const MigrateDownRequest* request) {
      if (request->has_to() && request->to() < 0) return call->Fail(BadParameter("to", "must be the number of a migration, or 0"));
      const auto to = To(request->has_to(), request->to());
      Run(call, *request, true, [to, &migrations = migrations_, audit = FileRecord(*call, "migrations.down")](const MigratedModule& module) {
        return migrations.Down(module, to, &audit);
      });
    });
  }

 private:
  // `act` runs on the pool.
  template <typename Response>
  void WithModule(const CallPtr<Response>& call, const std::string& name, std::function<void(const MigratedModule&)> act) {
    modules_.Get(name, [this, call, act = std::move(act)](absl::StatusOr<ModuleView> view) {
      if (!view.ok()) return call->Fail(view.status());
      auto module = ToMigrated(*view);
      if (!module.ok()) return call->Fail(module.status());
      OnPool(pool_, call, [act, module = *std::move(module)] { act(module); });
    });
  }

  template <typename Request>
  void Run(const CallPtr<MigrateResponse>& call, const Request& request, bool down,
           std::function<absl::StatusOr<MigrationReport>(const MigratedModule&)> work) {
    if (request.name() == kOwn) return call->Fail(OwnIsReadOnly());
    auto wait = ParseWait(request.wait(), limits::kDefaultWait);
    if (!wait.ok()) return call->Fail(wait.status());
    std::optional<int64_t> generation;
    if (request.has_if_generation()) generation = request.if_generation();
    auto report = std::make_shared<MigrationReport>();  // written before `done(true)`, read in it
    modules_.WithStopped(
        ModuleTarget(request.name(), generation), *wait,
        [report, work = std::move(work)](const ModuleView& view) -> absl::Status {
          ASSIGN_OR_RETURN(const MigratedModule module, ToMigrated(view));
          ASSIGN_OR_RETURN(*report, work(module));
          return absl::OkStatus();
        },
        [call, report, down, name = request.name()](absl::StatusOr<bool> done) {
          if (!done.ok()) return call->Fail(done.status());
          *done ? call->Answer(ToResponse(name, down, *report, true)) : call->AnswerEarly(ToResponse(name, down, MigrationReport(), false));
        });
  }

  const Guard& guard_;
  Modules& modules_;
  ModuleMigrations& migrations_;
  BlockingPool& pool_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeMigrationsService(const Guard& guard, Modules& modules, ModuleMigrations& migrations, BlockingPool& pool) {
  return std::make_unique<MigrationsService>(guard, modules, migrations, pool);
}

#undef METHOD

}  // namespace bulkhead
