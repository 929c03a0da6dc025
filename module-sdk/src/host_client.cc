#include "host_client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>

#include "bulkhead/host/v1/host.grpc.pb.h"
#include "bulkhead/host/v1/notifications.grpc.pb.h"
#include "json_text.h"

namespace bulkhead::sdk {

namespace {

constexpr std::chrono::seconds kHostDeadline{5};
constexpr std::chrono::seconds kPublishDeadline{10};
constexpr std::chrono::seconds kArtifactDeadline{120};
constexpr size_t kArtifactPart = 256 * 1024;

bool MayPass(grpc::StatusCode code) {
  return code == grpc::StatusCode::UNAVAILABLE || code == grpc::StatusCode::DEADLINE_EXCEEDED || code == grpc::StatusCode::RESOURCE_EXHAUSTED;
}

}  // namespace

struct HostClient::Connection {
  std::unique_ptr<::bulkhead::host::v1::Notifications::Stub> notifications;
  std::unique_ptr<::bulkhead::host::v1::Host::Stub> stub;
};

HostClient::HostClient(std::string host_socket, std::string token) : host_socket_(std::move(host_socket)), token_(std::move(token)) {}
HostClient::~HostClient() = default;

HostClient::Connection& HostClient::connection() {
  std::lock_guard lock(mutex_);
  if (!connection_) {
    connection_ = std::make_unique<Connection>();
    const auto channel = grpc::CreateChannel("unix:" + host_socket_, grpc::InsecureChannelCredentials());
    connection_->stub = ::bulkhead::host::v1::Host::NewStub(channel);
    connection_->notifications = ::bulkhead::host::v1::Notifications::NewStub(channel);
  }
  return *connection_;
}

EnqueuedRun HostClient::Enqueue(std::string_view job, std::string payload_json, const EnqueueOptions& options) {
  if (host_socket_.empty()) throw HostError("there is no supervisor to be asked", false);
  ::bulkhead::host::v1::EnqueueRequest request;
  request.set_job(Utf8(job));
  request.set_payload_json(std::move(payload_json));
  request.set_delay_ms(options.delay.count());
  request.set_unique_key(Utf8(options.unique_key));
  request.set_priority(options.priority);
  grpc::ClientContext context;
  context.AddMetadata("x-bulkhead-token", token_);
  context.set_deadline(std::chrono::system_clock::now() + kHostDeadline);
  ::bulkhead::host::v1::EnqueueResponse response;
  const grpc::Status status = connection().stub->Enqueue(&context, request, &response);
  if (!status.ok()) throw HostError(status.error_message(), MayPass(status.error_code()));
  return {response.run_id(), response.existed()};
}

void HostClient::PutArtifact(const std::string& run_id, int64_t fence, std::string_view name, std::string_view content_type, std::string_view bytes) {
  if (host_socket_.empty()) throw HostError("there is no supervisor to keep a file", false);
  grpc::ClientContext context;
  context.AddMetadata("x-bulkhead-token", token_);
  context.set_deadline(std::chrono::system_clock::now() + kArtifactDeadline);
  ::bulkhead::host::v1::PutArtifactResponse response;
  auto call = connection().stub->PutArtifact(&context, &response);
  ::bulkhead::host::v1::PutArtifactRequest part;
  auto& head = *part.mutable_head();
  head.set_run_id(run_id);
  head.set_fence(fence);
  head.set_name(Utf8(name));
  head.set_content_type(Utf8(content_type));
  head.set_bytes(static_cast<int64_t>(bytes.size()));
  // A write that fails means that the call has its status already.
  for (bool open = call->Write(part); open && !bytes.empty(); open = call->Write(part)) {
    const std::string_view next = bytes.substr(0, kArtifactPart);
    part.set_data(next.data(), next.size());
    bytes.remove_prefix(next.size());
  }
  call->WritesDone();
  const grpc::Status status = call->Finish();
  if (!status.ok()) throw HostError(status.error_message(), MayPass(status.error_code()));
}

std::string HostClient::Notify(std::string_view channel, std::string message_json) {
  if (host_socket_.empty()) throw HostError("there is no supervisor to send a notification", false);
  ::bulkhead::host::v1::NotifyRequest request;
  request.set_channel(Utf8(channel));
  request.set_message_json(std::move(message_json));
  grpc::ClientContext context;
  context.AddMetadata("x-bulkhead-token", token_);
  context.set_deadline(std::chrono::system_clock::now() + kHostDeadline);
  ::bulkhead::host::v1::NotifyResponse response;
  const grpc::Status status = connection().notifications->Notify(&context, request, &response);
  if (!status.ok()) throw HostError(status.error_message(), MayPass(status.error_code()));
  return response.run_id();
}

std::string HostClient::Publish(std::string_view topic, std::string_view key, std::string payload_json) {
  if (host_socket_.empty()) throw HostError("there is no supervisor to publish to", false);
  ::bulkhead::host::v1::PublishRequest request;
  request.set_topic(Utf8(topic));
  request.set_key(Utf8(key));
  request.set_payload_json(std::move(payload_json));
  grpc::ClientContext context;
  context.AddMetadata("x-bulkhead-token", token_);
  context.set_deadline(std::chrono::system_clock::now() + kPublishDeadline);
  ::bulkhead::host::v1::PublishResponse response;
  const grpc::Status status = connection().stub->Publish(&context, request, &response);
  if (!status.ok()) throw HostError(status.error_message(), MayPass(status.error_code()));
  return response.id();
}

}  // namespace bulkhead::sdk
