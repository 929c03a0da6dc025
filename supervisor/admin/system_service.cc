// The service System: the whole node.
#include <algorithm>

#include "bulkhead/admin/v1/system.grpc.pb.h"
#include "supervisor/admin/call.h"
#include "supervisor/admin/json.h"
#include "supervisor/admin/services.h"
#include "supervisor/admin/views.h"

namespace bulkhead {
namespace {

using admin::v1::GetSystemHealthRequest;
using admin::v1::RotateSecretsRequest;
using admin::v1::RotateSecretsResponse;
using admin::v1::SystemHealth;

class SystemService : public admin::v1::System::CallbackService {
 public:
  SystemService(const Guard& guard, Modules& modules, const Clock& clock) : guard_(guard), modules_(modules), clock_(clock) {}

  grpc::ServerUnaryReactor* GetSystemHealth(grpc::CallbackServerContext* context, const GetSystemHealthRequest* request,
                                            SystemHealth* response) override {
    return Serve(guard_, context, "bulkhead.admin.v1.System.GetSystemHealth", request, response,
                 [this](CallPtr<SystemHealth> call, const GetSystemHealthRequest* request) {
      modules_.List([call, &clock = clock_](absl::StatusOr<std::vector<ModuleView>> views) {
        if (!views.ok()) return call->Fail(views.status());
        if (!call->live()) return;
        SystemHealth answer;
        answer.set_status("healthy");
        for (const ModuleView& view : *views) {
          // One whose feature flag is off is not to run, like a disabled one.
          if (!view.desired_enabled || view.observed == ObservedState::kSkipped) continue;
          auto health = ToHealth(view);
          // "degraded" < "healthy" < "unhealthy" as text, so the words are compared by meaning.
          if (health.status() == "unhealthy" || (health.status() == "degraded" && answer.status() == "healthy")) {
            answer.set_status(health.status());
          }
          (*answer.mutable_modules())[view.row.name] = std::move(health);
        }
        *answer.mutable_checked_at() = ToTimestamp(clock.Wall());
        call->Answer(std::move(answer));
      });
    });
  }

  grpc::ServerUnaryReactor* RotateSecrets(grpc::CallbackServerContext* context, const RotateSecretsRequest* request,
                                          RotateSecretsResponse* response) override {
    return Serve(guard_, context, "bulkhead.admin.v1.System.RotateSecrets", request, response,
                 [this](CallPtr<RotateSecretsResponse> call, const RotateSecretsRequest*) {
      const auto also = [&records = guard_.records()] { return records.idempotent().Reseal(); };
      modules_.RotateSecrets(call->actor(), also, [call](absl::StatusOr<Modules::RotatedSecrets> rotated) {
        if (!rotated.ok()) return call->Fail(rotated.status());
        RotateSecretsResponse answer;
        for (const std::string& key : rotated->keys) answer.add_keys(key);
        answer.set_modules(rotated->modules);
        call->Answer(std::move(answer));
      });
    });
  }

 private:
  const Guard& guard_;
  Modules& modules_;
  const Clock& clock_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeSystemService(const Guard& guard, Modules& modules, const Clock& clock) {
  return std::make_unique<SystemService>(guard, modules, clock);
}

}  // namespace bulkhead
