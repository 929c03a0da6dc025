#include "supervisor/worker/file_calls.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "supervisor/worker/later_call.h"

namespace bulkhead {
namespace {

using host::v1::GetFileResponse;
using host::v1::PutFileRequest;
using host::v1::PutFileResponse;

constexpr char kBusy[] = "The supervisor has too much to do with files, or stops; try again soon.";
constexpr char kTooMany[] = "As many transfers of the module's files are under way as may be; try again soon.";

void FillFile(const StoredFile& file, host::v1::StoredFile& message) {
  message.set_name(file.name);
  message.set_bytes(file.bytes);
  message.set_modified_ms(std::chrono::duration_cast<Millis>(file.modified.time_since_epoch()).count());
}

// A stream as long as it is open. What the disk is at work on has it after that, too.
template <typename Reactor>
class OpenCall {
 public:
  explicit OpenCall(Reactor* reactor) : reactor_(reactor) {}
  // `use` is called with the reactor while it can't end; not when it has ended.
  template <typename F>
  void With(F use) {
    std::lock_guard lock(mutex_);
    if (reactor_ != nullptr) use(*reactor_);
  }
  void End(grpc::Status status) {
    std::lock_guard lock(mutex_);
    if (Reactor* const open = std::exchange(reactor_, nullptr)) open->Finish(std::move(status));
  }

 private:
  std::mutex mutex_;
  Reactor* reactor_;
};

class PutCall final : public grpc::ServerReadReactor<PutFileRequest> {
 public:
  PutCall(HostFiles& files, std::string module, std::shared_ptr<UploadPlace> place, PutFileResponse* response)
      : files_(&files), open_(std::make_shared<OpenCall<PutCall>>(this)), put_(std::make_shared<Put>()), response_(response) {
    put_->module = std::move(module);
    put_->place = std::move(place);
    StartRead(&part_);
  }
  explicit PutCall(grpc::Status refused) : files_(nullptr), response_(nullptr) { Finish(std::move(refused)); }

  void OnReadDone(bool ok) override {
    // By its sender, or because the call was cancelled: what has no end is not kept.
    if (!ok) return open_->End({grpc::INVALID_ARGUMENT, "The stream has ended without its `end`."});
    auto part = std::make_shared<PutFileRequest>(std::move(part_));
    const bool taken = files_->Run([files = files_, open = open_, put = put_, part] {
      const absl::Status done = Take(*files, *open, *put, *part);
      if (done.ok() && !part->has_end()) return open->With([](PutCall& call) { call.StartRead(&call.part_); });
      put->Leave();
      open->End(ToGrpc(done));
    });
    if (!taken) open_->End({grpc::UNAVAILABLE, kBusy});
  }
  void OnCancel() override {
    if (open_) open_->End(grpc::Status::CANCELLED);
  }
  void OnDone() override {
    // A file that is not kept is removed from the disk.
    if (put_) (void)!files_->Run([put = std::move(put_)] {});
    delete this;
  }

 private:
  struct Put {
    std::string module;
    std::shared_ptr<UploadPlace> place;
    std::unique_ptr<HostFiles::Writer> writer;
    // Before the caller has his answer, who may begin the next one then.
    void Leave() {
      writer.reset();
      place.reset();
    }
  };

  // One part, on a thread that may block.
  static absl::Status Take(HostFiles& files, OpenCall<PutCall>& open, Put& put, const PutFileRequest& part) {
    if (part.has_head() == (put.writer != nullptr))
      return absl::InvalidArgumentError(part.has_head() ? "The head of a file comes once." : "The head of a file comes first.");
    if (part.has_head()) {
      auto writer = files.Create(put.module, part.head().name(), part.head().bytes());
      if (!writer.ok()) return writer.status();
      put.writer = *std::move(writer);
      return absl::OkStatus();
    }
    if (!part.has_end()) return put.writer->Write(part.data());
    if (part.end().bytes() != put.writer->written()) return absl::InvalidArgumentError("Another number of bytes has come than the end says.");
    const absl::StatusOr<StoredFile> kept = put.writer->Commit();
    if (!kept.ok()) return kept.status();
    open.With([&](PutCall& call) { FillFile(*kept, *call.response_->mutable_file()); });
    return absl::OkStatus();
  }

  HostFiles* const files_;
  const std::shared_ptr<OpenCall<PutCall>> open_;  // null: refused
  std::shared_ptr<Put> put_;
  PutFileResponse* const response_;
  PutFileRequest part_;
};

class GetCall final : public grpc::ServerWriteReactor<GetFileResponse> {
 public:
  GetCall(HostFiles& files, std::shared_ptr<UploadPlace> place, const std::string& module, const host::v1::GetFileRequest& request)
      : files_(&files), open_(std::make_shared<OpenCall<GetCall>>(this)), get_(std::make_shared<Get>()) {
    get_->place = std::move(place);
    Go([&files, module, name = request.name(), offset = request.offset(),
        length = request.has_length() ? std::max<int64_t>(request.length(), 0) : -1](Get& get, GetFileResponse& part) -> absl::StatusOr<bool> {
      auto reader = files.Open(module, name, offset, length);
      if (!reader.ok()) return reader.status();
      get.reader = *std::move(reader);
      FillFile(get.reader->file(), *part.mutable_file());
      return true;
    });
  }
  explicit GetCall(grpc::Status refused) : files_(nullptr) { Finish(std::move(refused)); }

  void OnWriteDone(bool ok) override {
    if (!ok) return open_->End(grpc::Status::CANCELLED);
    Go([](Get& get, GetFileResponse& part) -> absl::StatusOr<bool> {
      auto bytes = get.reader->Read(limits::kFilePart);
      if (!bytes.ok()) return bytes.status();
      const bool more = !bytes->empty();
      part.set_data(*std::move(bytes));
      return more;
    });
  }
  void OnCancel() override {
    if (open_) open_->End(grpc::Status::CANCELLED);
  }
  void OnDone() override { delete this; }

 private:
  struct Get {
    std::shared_ptr<UploadPlace> place;
    std::unique_ptr<HostFiles::Reader> reader;
  };

  // `next` makes the next message on a thread that may block; false: there is none.
  template <typename F>
  void Go(F next) {
    const bool taken = files_->Run([open = open_, get = get_, next = std::move(next)] {
      GetFileResponse part;
      const absl::StatusOr<bool> more = next(*get, part);
      if (!more.ok() || !*more) {
        get->reader.reset();
        get->place.reset();
        return open->End(ToGrpc(more.status()));
      }
      open->With([&](GetCall& call) {
        call.part_.Swap(&part);
        call.StartWrite(&call.part_);
      });
    });
    if (!taken) open_->End({grpc::UNAVAILABLE, kBusy});
  }

  HostFiles* const files_;
  const std::shared_ptr<OpenCall<GetCall>> open_;  // null: refused
  const std::shared_ptr<Get> get_;
  GetFileResponse part_;
};

}  // namespace

grpc::Status FilesService::Check(const grpc::CallbackServerContext& context, std::string& module) const {
  const auto caller = caller_of_(context);
  if (!caller) return {grpc::UNAUTHENTICATED, "x-bulkhead-token is missing or not of a running instance"};
  if (files_ == nullptr) return {grpc::UNIMPLEMENTED, "Files are not offered here"};
  module = *caller;
  return grpc::Status::OK;
}

grpc::ServerReadReactor<PutFileRequest>* FilesService::PutFile(grpc::CallbackServerContext* context, PutFileResponse* response) {
  std::string module;
  if (grpc::Status refused = Check(*context, module); !refused.ok()) return new PutCall(std::move(refused));
  auto place = UploadPlace::Take(puts_, module);
  if (!place) return new PutCall(grpc::Status(grpc::UNAVAILABLE, kTooMany));
  return new PutCall(*files_, std::move(module), std::move(place), response);
}

grpc::ServerWriteReactor<GetFileResponse>* FilesService::GetFile(grpc::CallbackServerContext* context, const host::v1::GetFileRequest* request) {
  std::string module;
  if (grpc::Status refused = Check(*context, module); !refused.ok()) return new GetCall(std::move(refused));
  auto place = UploadPlace::Take(gets_, module);
  if (!place) return new GetCall(grpc::Status(grpc::UNAVAILABLE, kTooMany));
  return new GetCall(*files_, std::move(place), module, *request);
}

template <typename Response, typename Work>
grpc::ServerUnaryReactor* FilesService::OnDisk(grpc::CallbackServerContext* context, Response* response, Work work) {
  auto* call = new LaterCall(response);
  const auto answer = call->Answer();
  const auto nothing = [](Response&) {};
  std::string module;
  if (grpc::Status refused = Check(*context, module); !refused.ok()) {
    answer(absl::Status(static_cast<absl::StatusCode>(refused.error_code()), refused.error_message()), nothing);
  } else if (!files_->Run([answer, work = std::move(work), module] { work(module, answer); })) {
    answer(absl::UnavailableError(kBusy), nothing);
  }
  return call;
}

grpc::ServerUnaryReactor* FilesService::StatFile(grpc::CallbackServerContext* context, const host::v1::StatFileRequest* request,
                                                 host::v1::StatFileResponse* response) {
  return OnDisk(context, response, [files = files_, name = request->name()](const std::string& module, const auto& answer) {
    const auto file = files->Stat(module, name);
    answer(file.status(), [&](host::v1::StatFileResponse& found) { FillFile(*file, *found.mutable_file()); });
  });
}

grpc::ServerUnaryReactor* FilesService::ListFiles(grpc::CallbackServerContext* context, const host::v1::ListFilesRequest* request,
                                                  host::v1::ListFilesResponse* response) {
  return OnDisk(context, response, [files = files_, request = *request](const std::string& module, const auto& answer) {
    const size_t limit = request.limit() == 0 ? limits::kMaxFilesListed : static_cast<size_t>(std::max(request.limit(), 0));
    const bool valid = limit >= 1 && limit <= limits::kMaxFilesListed;
    answer(valid ? absl::OkStatus() : absl::InvalidArgumentError("`limit` is from 1 to 1000, or 0 for 1000."), [&](host::v1::ListFilesResponse& listed) {
      const HostFiles::Page page = files->List(module, request.prefix(), request.after(), limit);
      for (const StoredFile& file : page.files) FillFile(file, *listed.add_files());
      listed.set_more(page.more);
      const FileUsage usage = files->Usage(module, {});
      listed.set_used_bytes(usage.bytes);
      listed.set_used_files(usage.files);
      listed.set_quota_bytes(usage.quota.bytes);
      listed.set_quota_files(usage.quota.files);
    });
  });
}

grpc::ServerUnaryReactor* FilesService::RemoveFile(grpc::CallbackServerContext* context, const host::v1::RemoveFileRequest* request,
                                                   host::v1::RemoveFileResponse* response) {
  return OnDisk(context, response, [files = files_, name = request->name()](const std::string& module, const auto& answer) {
    const auto removed = files->Remove(module, name);
    answer(removed.status(), [&](host::v1::RemoveFileResponse& done) { done.set_removed(*removed); });
  });
}

grpc::ServerUnaryReactor* FilesService::RenameFile(grpc::CallbackServerContext* context, const host::v1::RenameFileRequest* request,
                                                   host::v1::RenameFileResponse* response) {
  return OnDisk(context, response, [files = files_, from = request->from(), to = request->to()](const std::string& module, const auto& answer) {
    answer(files->Rename(module, from, to), [](host::v1::RenameFileResponse&) {});
  });
}

}  // namespace bulkhead
