// Files as the supervisor keeps them: the service Files on the host socket (proto/bulkhead/host/v1/files.proto).
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "bulkhead/files.h"
#include "bulkhead/host/v1/files.grpc.pb.h"

namespace bulkhead::sdk {

class HostFiles final : public Files {
 public:
  // Connects when it is first needed. An empty socket: every call throws.
  HostFiles(std::string host_socket, std::string token) : host_socket_(std::move(host_socket)), token_(std::move(token)) {}

  FileInfo Put(std::string_view name, std::string_view bytes) override;
  std::unique_ptr<FileWriter> Create(std::string_view name, int64_t bytes) override;
  std::optional<std::string> Get(std::string_view name, const FileRange& range) override;
  std::optional<FileInfo> Read(std::string_view name, const FileRange& range, const Part& part) override;
  std::optional<FileInfo> Stat(std::string_view name) override;
  FileList List(std::string_view prefix, std::string_view after, int limit) override;
  FileSpace Space() override;
  bool Remove(std::string_view name) override;
  bool Rename(std::string_view from, std::string_view to) override;

 private:
  ::bulkhead::host::v1::Files::Stub& stub();
  void Prepare(grpc::ClientContext& context, std::chrono::seconds deadline) const;

  const std::string host_socket_, token_;
  std::once_flag connected_;
  std::unique_ptr<::bulkhead::host::v1::Files::Stub> stub_;
};

}  // namespace bulkhead::sdk
