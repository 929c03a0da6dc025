#include "supervisor/worker/artifact_upload.h"

#include <mutex>
#include <utility>

#include "supervisor/worker/later_call.h"

namespace bulkhead {
namespace {

class Upload final : public grpc::ServerReadReactor<host::v1::PutArtifactRequest> {
 public:
  Upload(host::v1::PutArtifactResponse* response, std::string module, std::shared_ptr<UploadPlace> place,
         const std::function<void(HostArtifact, HostServer::ArtifactDone)>& keep)
      : keep_(keep), handle_(std::make_shared<Handle>(this, response)), place_(std::move(place)) {
    file_.module = std::move(module);
    StartRead(&part_);
  }
  explicit Upload(grpc::Status refused) : handle_(std::make_shared<Handle>(nullptr, nullptr)) { Finish(std::move(refused)); }

  void OnReadDone(bool ok) override {
    if (!ok) return Ended();
    const bool head = part_.has_head();
    if (head == begun_) return Refuse(head ? "The head of an artifact comes once." : "The head of an artifact comes first.");
    if (head) {
      begun_ = true;
      file_.run_id = part_.head().run_id();
      file_.fence = part_.head().fence();
      file_.name = part_.head().name();
      file_.content_type = part_.head().content_type();
      bytes_ = part_.head().bytes();
      if (bytes_ < 0 || bytes_ > limits::kMaxUpload) return Refuse("An artifact has at most 16 MiB.");
    } else {
      if (static_cast<int64_t>(file_.data.size() + part_.data().size()) > bytes_) return Refuse("More bytes have come than the head says.");
      file_.data += part_.data();
    }
    StartRead(&part_);
  }
  void OnCancel() override { handle_->End(grpc::Status::CANCELLED, 0); }
  void OnDone() override { delete this; }

 private:
  // The call as long as it is open; the file may be kept after that.
  struct Handle {
    Handle(Upload* open, host::v1::PutArtifactResponse* answer) : call(open), response(answer) {}
    void End(grpc::Status status, int64_t bytes) {
      std::lock_guard lock(mutex);
      Upload* const open = std::exchange(call, nullptr);
      if (open == nullptr) return;
      if (status.ok()) response->set_bytes(bytes);
      open->Finish(std::move(status));
    }
    std::mutex mutex;
    Upload* call;
    host::v1::PutArtifactResponse* response;
  };

  void Refuse(const char* sentence) { handle_->End({grpc::INVALID_ARGUMENT, sentence}, 0); }

  // By its sender, or because the call was cancelled, which need not be known here yet: what is not whole is not kept.
  void Ended() {
    {
      std::lock_guard lock(handle_->mutex);
      if (handle_->call == nullptr) return;
    }
    if (!begun_) return Refuse("The stream has no head.");
    if (static_cast<int64_t>(file_.data.size()) != bytes_) return Refuse("Fewer bytes have come than the head says.");
    keep_(std::move(file_), [handle = handle_, place = std::exchange(place_, nullptr), bytes = bytes_](const absl::Status& status) {
      handle->End(ToGrpc(status), bytes);
    });
  }

  const std::function<void(HostArtifact, HostServer::ArtifactDone)> keep_;
  const std::shared_ptr<Handle> handle_;
  std::shared_ptr<UploadPlace> place_;
  host::v1::PutArtifactRequest part_;
  HostArtifact file_;
  int64_t bytes_ = 0;  // that the head promises
  bool begun_ = false;
};

}  // namespace

grpc::ServerReadReactor<host::v1::PutArtifactRequest>* ReceiveArtifact(grpc::CallbackServerContext* context, host::v1::PutArtifactResponse* response,
                                                                       std::string module, std::shared_ptr<UploadPlaces> places,
                                                                       const std::function<void(HostArtifact, HostServer::ArtifactDone)>& keep,
                                                                       grpc::Status refused) {
  if (!refused.ok()) return new Upload(std::move(refused));
  if (context->deadline() > Clock::Real().Wall() + limits::kMaxUploadTime)
    return new Upload(grpc::Status(grpc::INVALID_ARGUMENT, "PutArtifact needs a deadline of at most 300 s."));
  auto place = UploadPlace::Take(std::move(places), module);
  if (!place) return new Upload(grpc::Status(grpc::RESOURCE_EXHAUSTED, "As many artifacts are on their way as may be; try again soon."));
  return new Upload(response, std::move(module), std::move(place), keep);
}

}  // namespace bulkhead
