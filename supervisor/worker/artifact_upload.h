// A file on its way from a module: PutArtifact of the host API, part by part into memory, then to whoever keeps it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "bulkhead/host/v1/host.pb.h"
#include "supervisor/worker/host.h"
#include "supervisor/worker/upload_places.h"

namespace bulkhead {

namespace limits {
inline constexpr int kMaxUploads = 4;           // on their way at once to this node, 16 MiB of memory each; beyond: RESOURCE_EXHAUSTED
inline constexpr int kMaxUploadsOfModule = 2;   // of these of one module
inline constexpr Millis kMaxUploadTime{300'000};  // what the caller's deadline may be; without one a caller who falls silent would keep his place
}  // namespace limits

// The call: ended with `refused` at once, unless that is OK. `keep` is called once the stream has ended well. It keeps its place, and `places`, until the
// file is kept or the call has failed.
grpc::ServerReadReactor<host::v1::PutArtifactRequest>* ReceiveArtifact(grpc::CallbackServerContext* context, host::v1::PutArtifactResponse* response,
                                                                       std::string module, std::shared_ptr<UploadPlaces> places,
                                                                       const std::function<void(HostArtifact, HostServer::ArtifactDone)>& keep,
                                                                       grpc::Status refused);

}  // namespace bulkhead
