// The service Files of the host API, between gRPC and HostFiles. Private to this room.
//
// A transfer has one part in memory: the next one is read from gRPC, whose window makes the sender wait, when the disk has taken the one before, and the next
// one is read from the disk when gRPC has taken the one before.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "bulkhead/host/v1/files.grpc.pb.h"
#include "supervisor/worker/host_files.h"
#include "supervisor/worker/upload_places.h"

namespace bulkhead {

namespace limits {
inline constexpr int kMaxFilePuts = 32;               // at once of a module, one part of at most 1 MiB in memory each; beyond: UNAVAILABLE
inline constexpr int kMaxFileGets = 64;               // the same, 256 KiB each
inline constexpr size_t kFilePart = 256 * 1024;       // bytes of a message of GetFile
inline constexpr size_t kMaxFilesListed = 1'000;      // in one answer of ListFiles
}  // namespace limits

class FilesService final : public host::v1::Files::CallbackService {
 public:
  using CallerOf = std::function<std::optional<std::string>(const grpc::CallbackServerContext&)>;
  explicit FilesService(CallerOf caller_of) : caller_of_(std::move(caller_of)) {}
  // Before the first call; without it all are UNIMPLEMENTED. It outlives the server.
  void Serve(HostFiles& files) { files_ = &files; }

  grpc::ServerReadReactor<host::v1::PutFileRequest>* PutFile(grpc::CallbackServerContext* context, host::v1::PutFileResponse* response) override;
  grpc::ServerWriteReactor<host::v1::GetFileResponse>* GetFile(grpc::CallbackServerContext* context, const host::v1::GetFileRequest* request) override;
  grpc::ServerUnaryReactor* StatFile(grpc::CallbackServerContext* context, const host::v1::StatFileRequest* request,
                                     host::v1::StatFileResponse* response) override;
  grpc::ServerUnaryReactor* ListFiles(grpc::CallbackServerContext* context, const host::v1::ListFilesRequest* request,
                                      host::v1::ListFilesResponse* response) override;
  grpc::ServerUnaryReactor* RemoveFile(grpc::CallbackServerContext* context, const host::v1::RemoveFileRequest* request,
                                       host::v1::RemoveFileResponse* response) override;
  grpc::ServerUnaryReactor* RenameFile(grpc::CallbackServerContext* context, const host::v1::RenameFileRequest* request,
                                       host::v1::RenameFileResponse* response) override;

 private:
  // OK and the caller's module, or why the call is refused.
  grpc::Status Check(const grpc::CallbackServerContext& context, std::string& module) const;
  // `work` on a thread that may block; it answers the call by what it is given.
  template <typename Response, typename Work>
  grpc::ServerUnaryReactor* OnDisk(grpc::CallbackServerContext* context, Response* response, Work work);

  const CallerOf caller_of_;
  HostFiles* files_ = nullptr;
  const std::shared_ptr<UploadPlaces> puts_ = std::make_shared<UploadPlaces>(UploadPlaces::kAny, limits::kMaxFilePuts);
  const std::shared_ptr<UploadPlaces> gets_ = std::make_shared<UploadPlaces>(UploadPlaces::kAny, limits::kMaxFileGets);
};

}  // namespace bulkhead
