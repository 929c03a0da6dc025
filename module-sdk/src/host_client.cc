#include "host_client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <mutex>

namespace bulkhead::sdk {

namespace {

constexpr std::chrono::milliseconds kPublishTimeout{10'000};

struct LazyHost {
  std::once_flag once;
  std::unique_ptr<::bulkhead::host::v1::Host::Stub> stub;
};

}  // namespace

Events::Call PublishThrough(const std::string& host_socket, const std::string& token) {
  auto host = std::make_shared<LazyHost>();
  return [host, host_socket, token](std::string_view topic, std::string_view key, const std::string& payload_json) {
    std::call_once(host->once, [&] {
      host->stub = ::bulkhead::host::v1::Host::NewStub(grpc::CreateChannel("unix:" + host_socket, grpc::InsecureChannelCredentials()));
    });
    grpc::ClientContext context;
    context.AddMetadata("x-bulkhead-token", token);
    context.set_deadline(std::chrono::system_clock::now() + kPublishTimeout);
    ::bulkhead::host::v1::PublishRequest request;
    request.set_topic(std::string(topic));
    request.set_key(std::string(key));
    request.set_payload_json(payload_json);
    ::bulkhead::host::v1::PublishResponse response;
    const grpc::Status status = host->stub->Publish(&context, request, &response);
    if (status.ok()) return response.id();
    const bool transient = status.error_code() == grpc::UNAVAILABLE || status.error_code() == grpc::DEADLINE_EXCEEDED ||
                           status.error_code() == grpc::RESOURCE_EXHAUSTED;
    throw PublishError(status.error_message(), transient);
  };
}

}  // namespace bulkhead::sdk
