// The service Modules: registry and lifecycle of modules.
#include "bulkhead/admin/v1/modules.grpc.pb.h"
#include "nlohmann/json.hpp"
#include "supervisor/admin/call.h"
#include "supervisor/admin/json.h"
#include "supervisor/admin/module_list.h"
#include "supervisor/admin/parameters.h"
#include "supervisor/admin/services.h"
#include "supervisor/admin/views.h"
#include "supervisor/base/limits.h"
#include "supervisor/manifest/manifest_schema.h"

namespace bulkhead {
namespace {

using admin::v1::DeleteModuleRequest;
using admin::v1::DeleteModuleResponse;
using admin::v1::GetManifestSchemaRequest;
using admin::v1::GetManifestSchemaResponse;
using admin::v1::GetModulePlanRequest;
using admin::v1::GetModulePlanResponse;
using admin::v1::GetModuleRequest;
using admin::v1::ListModulesRequest;
using admin::v1::ListModulesResponse;
using admin::v1::ModuleActionRequest;
using admin::v1::ModuleActionResponse;
using admin::v1::ModuleResponse;
using admin::v1::RegisterModuleRequest;
using admin::v1::RescanModulesRequest;
using admin::v1::RescanModulesResponse;
using admin::v1::SetModuleConfigRequest;
using admin::v1::SetModuleStatusRequest;
using admin::v1::SetModuleWorkersRequest;
using admin::v1::UpgradeModuleRequest;
using admin::v1::ValidateManifestRequest;
using admin::v1::ValidateManifestResponse;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

#define METHOD(name) "bulkhead.admin.v1.Modules." name

ModuleResponse ToResponse(const ModuleView& view) {
  ModuleResponse response;
  *response.mutable_module() = ToMessage(view);
  return response;
}

// Answers with the module of a finished action; 202 in REST when it has not converged, and then the outcome is for the audit.
Modules::Done<ActionResult> AnswerAction(CallPtr<ModuleActionResponse> call) {
  return [call = std::move(call)](absl::StatusOr<ActionResult> result) {
    if (!result.ok()) return call->Fail(result.status());
    ModuleActionResponse response;
    *response.mutable_module() = ToMessage(result->module);
    response.mutable_meta()->set_converged(result->converged);
    result->converged ? call->Answer(std::move(response)) : call->AnswerEarly(std::move(response));
  };
}

template <typename Request>
std::optional<int64_t> IfGeneration(const Request& request) {
  if (!request.has_if_generation()) return std::nullopt;
  return request.if_generation();
}

class ModulesService : public admin::v1::Modules::CallbackService {
 public:
  ModulesService(const Guard& guard, Modules& modules, BlockingPool& pool) : guard_(guard), modules_(modules), pool_(pool) {}

  ServerUnaryReactor* ListModules(CallbackServerContext* context, const ListModulesRequest* request,
                                  ListModulesResponse* response) override {
    return Serve(guard_, context, METHOD("ListModules"), request, response,
                 [this](CallPtr<ListModulesResponse> call, const ListModulesRequest* request) {
      auto query = ModuleQuery::Parse(*request);
      if (!query.ok()) return call->Fail(query.status());
      modules_.List([call, query = *query, &pool = pool_](absl::StatusOr<std::vector<ModuleView>> views) {
        if (!views.ok()) return call->Fail(views.status());
        if (!call->live()) return;
        // Up to 500 manifests become messages: not on the control loop.
        auto result = std::make_shared<ModuleQuery::Result>(query.Apply(*std::move(views)));
        OnPool(pool, call, [call, query, result] {
          ListModulesResponse answer;
          for (const ModuleView& view : result->modules) *answer.add_modules() = ToMessage(view);
          answer.mutable_meta()->set_total(result->total);
          answer.mutable_meta()->set_page(query.page());
          answer.mutable_meta()->set_page_size(query.page_size());
          call->Answer(std::move(answer));
        });
      });
    });
  }

  ServerUnaryReactor* GetModule(CallbackServerContext* context, const GetModuleRequest* request,
                                ModuleResponse* response) override {
    return Serve(guard_, context, METHOD("GetModule"), request, response,
                 [this](CallPtr<ModuleResponse> call, const GetModuleRequest* request) {
      modules_.Get(request->name(), [call](absl::StatusOr<ModuleView> view) {
        if (!view.ok()) return call->Fail(view.status());
        call->Answer(ToResponse(*view));
      });
    });
  }

  ServerUnaryReactor* RegisterModule(CallbackServerContext* context, const RegisterModuleRequest* request,
                                     ModuleResponse* response) override {
    return Serve(guard_, context, METHOD("RegisterModule"), request, response,
                 [this](CallPtr<ModuleResponse> call, const RegisterModuleRequest* request) {
      if (!request->has_manifest()) return call->Fail(BadParameter("manifest", "is missing: send {\"manifest\": {…}}"));
      RegisterRequest wanted;
      wanted.manifest_json = ToJson(request->manifest()).dump();
      if (request->has_config()) wanted.config_json = ToJson(request->config()).dump();
      wanted.path = request->path();
      wanted.by = call->actor();
      modules_.Register(std::move(wanted), [call](absl::StatusOr<ModuleView> view) {
        if (!view.ok()) return call->Fail(view.status());
        call->Answer(ToResponse(*view));
      });
    });
  }

  ServerUnaryReactor* ValidateManifest(CallbackServerContext* context, const ValidateManifestRequest* request,
                                       ValidateManifestResponse* response) override {
    return Serve(guard_, context, METHOD("ValidateManifest"), request, response,
                 [this](CallPtr<ValidateManifestResponse> call, const ValidateManifestRequest* request) {
      if (request->has_manifest() == request->has_text()) {
        return call->Fail(BadParameter("manifest", "is wanted, or text: send {\"manifest\": {…}} or {\"text\": \"…\", \"format\": \"yaml\"}"));
      }
      const std::string& format = request->format();
      if (!format.empty() && format != "json" && format != "yaml") return call->Fail(BadParameter("format", "must be json or yaml"));
      const ManifestResult result =
          request->has_text() ? ParseManifest(request->text(), format == "yaml") : ParseManifestJson(ToJson(request->manifest()));
      ValidateManifestResponse answer;
      answer.set_valid(result.errors.empty());
      for (const Finding& finding : result.errors) *answer.add_errors() = ToMessage(finding);
      for (const Finding& finding : result.warnings) *answer.add_warnings() = ToMessage(finding);
      call->Answer(std::move(answer));
    });
  }

  ServerUnaryReactor* GetManifestSchema(CallbackServerContext* context, const GetManifestSchemaRequest* request,
                                        GetManifestSchemaResponse* response) override {
    return Serve(guard_, context, METHOD("GetManifestSchema"), request, response,
                 [](CallPtr<GetManifestSchemaResponse> call, const GetManifestSchemaRequest*) {
      GetManifestSchemaResponse answer;
      answer.set_schema_json(std::string(ManifestSchemaJson()));
      call->Answer(std::move(answer));
    });
  }

  ServerUnaryReactor* InstallModule(CallbackServerContext* context, const ModuleActionRequest* request,
                                    ModuleActionResponse* response) override {
    return Serve(guard_, context, METHOD("InstallModule"), request, response,
                 [this](CallPtr<ModuleActionResponse> call, const ModuleActionRequest* request) {
      Act(call, *request, &Modules::Install);
    });
  }

  ServerUnaryReactor* EnableModule(CallbackServerContext* context, const ModuleActionRequest* request,
                                   ModuleActionResponse* response) override {
    return Serve(guard_, context, METHOD("EnableModule"), request, response,
                 [this](CallPtr<ModuleActionResponse> call, const ModuleActionRequest* request) {
      Switch(call, *request, true);
    });
  }

  ServerUnaryReactor* DisableModule(CallbackServerContext* context, const ModuleActionRequest* request,
                                    ModuleActionResponse* response) override {
    return Serve(guard_, context, METHOD("DisableModule"), request, response,
                 [this](CallPtr<ModuleActionResponse> call, const ModuleActionRequest* request) {
      Switch(call, *request, false);
    });
  }

  ServerUnaryReactor* SetModuleStatus(CallbackServerContext* context, const SetModuleStatusRequest* request,
                                      ModuleActionResponse* response) override {
    return Serve(guard_, context, METHOD("SetModuleStatus"), request, response,
                 [this](CallPtr<ModuleActionResponse> call, const SetModuleStatusRequest* request) {
      const bool enable = request->status() == "ENABLED";
      if (!enable && request->status() != "DISABLED") return call->Fail(BadParameter("status", "must be ENABLED or DISABLED"));
      call->IsAction(enable ? "modules.enable" : "modules.disable");
      Switch(call, *request, enable);
    });
  }

  ServerUnaryReactor* ResetModule(CallbackServerContext* context, const ModuleActionRequest* request,
                                  ModuleActionResponse* response) override {
    return Serve(guard_, context, METHOD("ResetModule"), request, response,
                 [this](CallPtr<ModuleActionResponse> call, const ModuleActionRequest* request) {
      auto wait = ParseWait(request->wait(), limits::kDefaultWait);
      if (!wait.ok()) return call->Fail(wait.status());
      if (request->with_dependencies()) return call->Fail(BadParameter("withDependencies", "belongs to enable only"));
      modules_.Reset(Target(call, *request), *wait, AnswerAction(call));
    });
  }

  ServerUnaryReactor* SetModuleWorkers(CallbackServerContext* context, const SetModuleWorkersRequest* request,
                                       ModuleActionResponse* response) override {
    return Serve(guard_, context, METHOD("SetModuleWorkers"), request, response,
                 [this](CallPtr<ModuleActionResponse> call, const SetModuleWorkersRequest* request) {
      auto wait = ParseWait(request->wait(), limits::kDefaultWait);
      if (!wait.ok()) return call->Fail(wait.status());
      const auto workers = request->has_workers() ? std::optional<int>(request->workers()) : std::nullopt;
      modules_.SetWorkers(Target(call, *request), workers, *wait, AnswerAction(call));
    });
  }

  ServerUnaryReactor* SetModuleConfig(CallbackServerContext* context, const SetModuleConfigRequest* request,
                                      ModuleActionResponse* response) override {
    return Serve(guard_, context, METHOD("SetModuleConfig"), request, response,
                 [this](CallPtr<ModuleActionResponse> call, const SetModuleConfigRequest* request) { Configure(call, *request, false); });
  }

  ServerUnaryReactor* PatchModuleConfig(CallbackServerContext* context, const SetModuleConfigRequest* request,
                                        ModuleActionResponse* response) override {
    return Serve(guard_, context, METHOD("PatchModuleConfig"), request, response,
                 [this](CallPtr<ModuleActionResponse> call, const SetModuleConfigRequest* request) { Configure(call, *request, true); });
  }

  ServerUnaryReactor* ReloadModule(CallbackServerContext* context, const ModuleActionRequest* request,
                                   ModuleActionResponse* response) override {
    return Serve(guard_, context, METHOD("ReloadModule"), request, response,
                 [this](CallPtr<ModuleActionResponse> call, const ModuleActionRequest* request) { Act(call, *request, &Modules::Reload); });
  }

  ServerUnaryReactor* RestartModule(CallbackServerContext* context, const ModuleActionRequest* request,
                                    ModuleActionResponse* response) override {
    return Serve(guard_, context, METHOD("RestartModule"), request, response,
                 [this](CallPtr<ModuleActionResponse> call, const ModuleActionRequest* request) { Act(call, *request, &Modules::Restart); });
  }

  ServerUnaryReactor* RollbackModule(CallbackServerContext* context, const ModuleActionRequest* request,
                                     ModuleActionResponse* response) override {
    return Serve(guard_, context, METHOD("RollbackModule"), request, response,
                 [this](CallPtr<ModuleActionResponse> call, const ModuleActionRequest* request) { Act(call, *request, &Modules::Rollback); });
  }

  ServerUnaryReactor* UpgradeModule(CallbackServerContext* context, const UpgradeModuleRequest* request,
                                    ModuleActionResponse* response) override {
    return Serve(guard_, context, METHOD("UpgradeModule"), request, response,
                 [this](CallPtr<ModuleActionResponse> call, const UpgradeModuleRequest* request) {
      auto wait = ParseWait(request->wait(), limits::kDefaultWait);
      if (!wait.ok()) return call->Fail(wait.status());
      modules_.Upgrade(Target(call, *request), {request->version(), request->path()}, *wait, AnswerAction(call));
    });
  }

  ServerUnaryReactor* GetModulePlan(CallbackServerContext* context, const GetModulePlanRequest* request,
                                    GetModulePlanResponse* response) override {
    return Serve(guard_, context, METHOD("GetModulePlan"), request, response,
                 [this](CallPtr<GetModulePlanResponse> call, const GetModulePlanRequest* request) {
      const auto action = ParseModuleAction(request->action());
      if (!action) {
        return call->Fail(BadParameter(
            "action", "must be one of install, enable, disable, configure, scale, reset, reload, restart, upgrade, rollback, delete"));
      }
      Modules::PlanRequest wanted{*action, request->with_dependencies(), request->purge(), {request->version(), request->path()}};
      if (request->has_workers()) wanted.workers = request->workers();
      modules_.MakePlan(request->name(), wanted, [call](absl::StatusOr<Plan> plan) {
        if (!plan.ok()) return call->Fail(plan.status());
        GetModulePlanResponse answer;
        *answer.mutable_plan() = ToMessage(*plan);
        call->Answer(std::move(answer));
      });
    });
  }

  ServerUnaryReactor* RescanModules(CallbackServerContext* context, const RescanModulesRequest* request,
                                    RescanModulesResponse* response) override {
    return Serve(guard_, context, METHOD("RescanModules"), request, response,
                 [this](CallPtr<RescanModulesResponse> call, const RescanModulesRequest*) {
      modules_.Rescan(call->actor(), [call](absl::StatusOr<RescanResult> result) {
        if (!result.ok()) return call->Fail(result.status());
        RescanModulesResponse answer;
        for (const RescanResult::Folder& folder : result->folders) *answer.add_folders() = ToMessage(folder);
        answer.mutable_meta()->set_total(static_cast<int>(result->folders.size()));
        answer.mutable_meta()->set_page(1);
        answer.mutable_meta()->set_page_size(static_cast<int>(result->folders.size()));
        call->Answer(std::move(answer));
      });
    });
  }

  ServerUnaryReactor* DeleteModule(CallbackServerContext* context, const DeleteModuleRequest* request,
                                   DeleteModuleResponse* response) override {
    return Serve(guard_, context, METHOD("DeleteModule"), request, response,
                 [this](CallPtr<DeleteModuleResponse> call, const DeleteModuleRequest* request) {
      if (request->purge()) call->IsAction("modules.purge");
      modules_.Delete(Target(call, *request), request->purge(), [call, name = request->name()](absl::StatusOr<bool> purged) {
        if (!purged.ok()) return call->Fail(purged.status());
        DeleteModuleResponse answer;
        answer.set_name(name);
        answer.set_purged(*purged);
        call->Answer(std::move(answer));
      });
    });
  }

 private:
  void Act(const CallPtr<ModuleActionResponse>& call, const ModuleActionRequest& request,
           void (Modules::*action)(const ModuleTarget&, Millis, Modules::Done<ActionResult>)) {
    auto wait = ParseWait(request.wait(), limits::kDefaultWait);
    if (!wait.ok()) return call->Fail(wait.status());
    if (request.with_dependencies()) return call->Fail(BadParameter("withDependencies", "belongs to enable only"));
    (modules_.*action)(Target(call, request), *wait, AnswerAction(call));
  }

  void Configure(const CallPtr<ModuleActionResponse>& call, const SetModuleConfigRequest& request, bool merge) {
    if (!request.has_config()) return call->Fail(BadParameter("config", "is missing: send {\"config\": {…}}"));
    auto wait = ParseWait(request.wait(), limits::kDefaultWait);
    if (!wait.ok()) return call->Fail(wait.status());
    modules_.Configure(Target(call, request), {ToJson(request.config()).dump(), merge}, *wait, AnswerAction(call));
  }

  // A request with `name` and `if_generation`.
  template <typename Request>
  static ModuleTarget Target(const std::shared_ptr<CallBase>& call, const Request& request) {
    return {request.name(), IfGeneration(request), call->actor()};
  }

  template <typename Request>
  void Switch(const CallPtr<ModuleActionResponse>& call, const Request& request, bool enable) {
    auto wait = ParseWait(request.wait(), limits::kDefaultWait);
    if (!wait.ok()) return call->Fail(wait.status());
    if constexpr (std::is_same_v<Request, ModuleActionRequest>) {
      if (request.with_dependencies() && !enable) return call->Fail(BadParameter("withDependencies", "belongs to enable only"));
      if (request.with_dependencies()) {
        // The guard has looked at the module of the request alone.
        auto may = [&guard = guard_, identity = call->caller().identity](const std::string& module) {
          return guard.Authorize(*identity, METHOD("EnableModule"), module).ok();
        };
        return modules_.EnableWithDependencies(Target(call, request), may, *wait, AnswerAction(call));
      }
    }
    enable ? modules_.Enable(Target(call, request), *wait, AnswerAction(call))
           : modules_.Disable(Target(call, request), *wait, AnswerAction(call));
  }

  const Guard& guard_;
  Modules& modules_;
  BlockingPool& pool_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeModulesService(const Guard& guard, Modules& modules, BlockingPool& pool) {
  return std::make_unique<ModulesService>(guard, modules, pool);
}

#undef METHOD

}  // namespace bulkhead
