// The service Flags: feature flags, and which modules wait for them.
#include <set>

#include "bulkhead/admin/v1/flags.grpc.pb.h"
#include "supervisor/admin/call.h"
#include "supervisor/admin/parameters.h"
#include "supervisor/admin/services.h"
#include "supervisor/admin/views.h"
#include "supervisor/manifest/manifest.h"

namespace bulkhead {
namespace {

using admin::v1::DeleteFlagRequest;
using admin::v1::DeleteFlagResponse;
using admin::v1::FlagResponse;
using admin::v1::GetFlagRequest;
using admin::v1::ListFlagsRequest;
using admin::v1::ListFlagsResponse;
using admin::v1::SetFlagRequest;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

#define METHOD(name) "bulkhead.admin.v1.Flags." name

// A flag as it is shown: what is in force, and the modules that it starts.
struct Shown {
  Flag flag;
  std::vector<std::string> modules;
};

// By variable, those included that only a module's manifest names.
std::map<std::string, Shown> Combined(const FlagSet& flags, const std::vector<ModuleView>& modules) {
  std::map<std::string, Shown> shown;
  for (const auto& [variable, flag] : flags.all()) shown[variable].flag = flag;
  for (const ModuleView& view : modules) {
    if (!view.manifest || view.manifest->feature_flag.empty()) continue;
    Shown& one = shown[FeatureFlagVariable(view.manifest->feature_flag)];
    if (one.flag.name.empty()) one.flag.name = view.manifest->feature_flag;
    one.modules.push_back(view.row.name);
  }
  return shown;
}

class FlagsService : public admin::v1::Flags::CallbackService {
 public:
  FlagsService(const Guard& guard, Flags& flags, Modules& modules) : guard_(guard), flags_(flags), modules_(modules) {}

  ServerUnaryReactor* ListFlags(CallbackServerContext* context, const ListFlagsRequest* request, ListFlagsResponse* response) override {
    return Serve(guard_, context, METHOD("ListFlags"), request, response,
                 [this](CallPtr<ListFlagsResponse> call, const ListFlagsRequest*) {
      WithShown(call, [call](const std::map<std::string, Shown>& shown) {
        ListFlagsResponse answer;
        for (const auto& [variable, one] : shown) *answer.add_flags() = ToMessage(one.flag, one.modules);
        answer.mutable_meta()->set_total(answer.flags_size());
        answer.mutable_meta()->set_page(1);
        answer.mutable_meta()->set_page_size(answer.flags_size());
        call->Answer(std::move(answer));
      });
    });
  }

  ServerUnaryReactor* GetFlag(CallbackServerContext* context, const GetFlagRequest* request, FlagResponse* response) override {
    return Serve(guard_, context, METHOD("GetFlag"), request, response, [this](CallPtr<FlagResponse> call, const GetFlagRequest* request) {
      AnswerWith(call, request->name());
    });
  }

  ServerUnaryReactor* SetFlag(CallbackServerContext* context, const SetFlagRequest* request, FlagResponse* response) override {
    return Serve(guard_, context, METHOD("SetFlag"), request, response, [this](CallPtr<FlagResponse> call, const SetFlagRequest* request) {
      if (!request->has_enabled()) return call->Fail(BadParameter("enabled", "is missing: send {\"enabled\": true} or false"));
      FlagChange change;
      change.enabled = request->enabled();
      if (request->has_percentage()) change.percentage = request->percentage();
      change.identities.assign(request->identities().begin(), request->identities().end());
      change.description = request->description();
      flags_.Set(request->name(), std::move(change), call->actor(), [this, call](absl::StatusOr<Flag> flag) {
        if (!flag.ok()) return call->Fail(flag.status());
        AnswerWith(call, flag->name);
      });
    });
  }

  ServerUnaryReactor* DeleteFlag(CallbackServerContext* context, const DeleteFlagRequest* request, DeleteFlagResponse* response) override {
    return Serve(guard_, context, METHOD("DeleteFlag"), request, response,
                 [this](CallPtr<DeleteFlagResponse> call, const DeleteFlagRequest* request) {
      flags_.Delete(request->name(), call->actor(), [call, name = request->name()](absl::StatusOr<bool> deleted) {
        if (!deleted.ok()) return call->Fail(deleted.status());
        DeleteFlagResponse answer;
        answer.set_name(name);
        call->Answer(std::move(answer));
      });
    });
  }

 private:
  template <typename Response>
  void WithShown(const CallPtr<Response>& call, std::function<void(const std::map<std::string, Shown>&)> act) {
    modules_.List([call, act = std::move(act), &flags = flags_](absl::StatusOr<std::vector<ModuleView>> views) {
      if (!views.ok()) return call->Fail(views.status());
      act(Combined(*flags.current(), *views));
    });
  }

  void AnswerWith(const CallPtr<FlagResponse>& call, const std::string& name) {
    WithShown(call, [call, name](const std::map<std::string, Shown>& shown) {
      const auto found = shown.find(FeatureFlagVariable(name));
      if (found == shown.end())
        return call->Fail(Error("FLAG_NOT_FOUND", "the flag \"" + name + "\" is set nowhere, and no module waits for it"));
      FlagResponse answer;
      *answer.mutable_flag() = ToMessage(found->second.flag, found->second.modules);
      call->Answer(std::move(answer));
    });
  }

  const Guard& guard_;
  Flags& flags_;
  Modules& modules_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeFlagsService(const Guard& guard, Flags& flags, Modules& modules) {
  return std::make_unique<FlagsService>(guard, flags, modules);
}

#undef METHOD

}  // namespace bulkhead
