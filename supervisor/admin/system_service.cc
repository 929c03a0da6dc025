// The service System: the whole node.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "bulkhead/admin/v1/system.grpc.pb.h"
#include "supervisor/admin/admin.h"
#include "supervisor/admin/call.h"
#include "supervisor/admin/json.h"
#include "supervisor/admin/services.h"
#include "supervisor/admin/views.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

using admin::v1::GetPrometheusMetricsRequest;
using admin::v1::GetSystemHealthRequest;
using admin::v1::GetSystemMetricsRequest;
using admin::v1::PrometheusMetrics;
using admin::v1::RotateSecretsRequest;
using admin::v1::RotateSecretsResponse;
using admin::v1::SystemHealth;
using admin::v1::SystemMetrics;

// A part of the node itself that does with less, when there is a message.
void AddDetail(const std::string& part, const std::string& message, SystemHealth& answer) {
  auto& detail = (*answer.mutable_details())[part];
  detail.set_status(message.empty() ? "up" : "degraded");
  detail.set_message(message);
  if (!message.empty() && answer.status() == "healthy") answer.set_status("degraded");
}

class SystemService : public admin::v1::System::CallbackService {
 public:
  SystemService(const Guard& guard, Modules& modules, const Clock& clock, const MetricsSources& metrics, const BlockingPool& pool,
                const NodeStatus& node, const EventQueries& events)
      : guard_(guard), modules_(modules), clock_(clock), metrics_(metrics), pool_(pool), node_(node), events_(events) {}

  grpc::ServerUnaryReactor* GetSystemHealth(grpc::CallbackServerContext* context, const GetSystemHealthRequest* request,
                                            SystemHealth* response) override {
    return Serve(guard_, context, "bulkhead.admin.v1.System.GetSystemHealth", request, response,
                 [this](CallPtr<SystemHealth> call, const GetSystemHealthRequest* request) {
      modules_.List([call, &clock = clock_, &events = events_, cache = metrics_.cache](absl::StatusOr<std::vector<ModuleView>> views) {
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
        const std::string away = events.Engine().fault;
        AddDetail("events", away.empty() ? "" : absl::StrCat("Redis is away, and events come from the outbox: ", ValidUtf8(away)), answer);
        if (const auto redis = cache ? cache->RedisUsage() : std::nullopt) {
          const std::string why = absl::StrCat("Redis is away, and this node has the cache that it keeps itself: ", ValidUtf8(redis->fault));
          AddDetail("cache", redis->up ? "" : why, answer);
        }
        *answer.mutable_checked_at() = ToTimestamp(clock.Wall());
        call->Answer(std::move(answer));
      });
    });
  }

  grpc::ServerUnaryReactor* GetSystemMetrics(grpc::CallbackServerContext* context, const GetSystemMetricsRequest* request,
                                             SystemMetrics* response) override {
    return Serve(guard_, context, "bulkhead.admin.v1.System.GetSystemMetrics", request, response,
                 [this](CallPtr<SystemMetrics> call, const GetSystemMetricsRequest*) {
      ReadMetrics(metrics_, modules_, clock_, [call, &metrics = metrics_, &clock = clock_](absl::StatusOr<MetricsReading> reading) {
        if (!reading.ok()) return call->Fail(reading.status());
        if (call->live()) call->Answer(ToSystemMetrics(metrics, *reading, clock.Wall()));
      });
    });
  }

  grpc::ServerUnaryReactor* GetPrometheusMetrics(grpc::CallbackServerContext* context, const GetPrometheusMetricsRequest* request,
                                                 PrometheusMetrics* response) override {
    return Serve(guard_, context, "bulkhead.admin.v1.System.GetPrometheusMetrics", request, response,
                 [this](CallPtr<PrometheusMetrics> call, const GetPrometheusMetricsRequest*) {
      ReadMetrics(metrics_, modules_, clock_, [call, this](absl::StatusOr<MetricsReading> reading) {
        if (!reading.ok()) return call->Fail(reading.status());
        if (!call->live()) return;
        PrometheusMetrics answer;
        answer.set_text(ToPrometheus(metrics_, *reading, pool_, node_.started_at));
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
  const MetricsSources metrics_;
  const BlockingPool& pool_;
  const NodeStatus& node_;
  const EventQueries& events_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeSystemService(const Guard& guard, Modules& modules, const Clock& clock, const MetricsSources& metrics,
                                                 const BlockingPool& pool, const NodeStatus& node, const EventQueries& events) {
  return std::make_unique<SystemService>(guard, modules, clock, metrics, pool, node, events);
}

}  // namespace bulkhead
