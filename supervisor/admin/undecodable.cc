#include "supervisor/admin/undecodable.h"

#include <string_view>

#include "supervisor/admin/rpc_status.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

using grpc::experimental::InterceptionHookPoints;
using grpc::experimental::InterceptorBatchMethods;

class Explainer : public grpc::experimental::Interceptor {
 public:
  explicit Explainer(bool ours) : ours_(ours) {}
  void Intercept(InterceptorBatchMethods* methods) override {
    if (ours_ && methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS) && Wordless(methods->GetSendStatus())) {
      methods->ModifySendStatus(ToGrpcStatus(
          Error("INVALID_ARGUMENT", "The request is no message of this call: its bytes, or a text that is not UTF-8, could not be decoded."), RandomUuid(),
          kMaxWireDetails));
    }
    methods->Proceed();
  }

 private:
  // No handler of ours ends so.
  static bool Wordless(const grpc::Status& status) {
    return status.error_code() == grpc::StatusCode::UNIMPLEMENTED && status.error_message().empty() && status.error_details().empty();
  }
  const bool ours_;
};

class Explainers : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) override {
    // All of our calls have one request; to gRPC one that does not exist has many.
    using Type = grpc::experimental::ServerRpcInfo::Type;
    const bool one_request = info->type() == Type::UNARY || info->type() == Type::SERVER_STREAMING;
    const bool ours = one_request && std::string_view(info->method()).starts_with("/bulkhead.admin.v1.");
    return new Explainer(ours);  // gRPC's from here on
  }
};

}  // namespace

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> ExplainUndecodable() { return std::make_unique<Explainers>(); }

}  // namespace bulkhead
