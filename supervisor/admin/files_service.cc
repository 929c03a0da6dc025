// The service Files: what modules keep with the supervisor of this node.
#include <algorithm>

#include "bulkhead/admin/v1/files.grpc.pb.h"
#include "supervisor/admin/call.h"
#include "supervisor/admin/file_source.h"
#include "supervisor/admin/json.h"
#include "supervisor/admin/parameters.h"
#include "supervisor/admin/services.h"
#include "supervisor/worker/host_files.h"

namespace bulkhead {
namespace {

using admin::v1::GetFileRequest;
using admin::v1::GetFileResponse;
using admin::v1::ListFilesRequest;
using admin::v1::ListFilesResponse;

constexpr size_t kFileMessage = 256 * 1024;  // bytes of the file in one message
constexpr size_t kListStep = 1'000;          // files that are looked at without a pause

void FillStored(const StoredFile& file, admin::v1::StoredFile& message) {
  message.set_name(file.name);
  message.set_bytes(file.bytes);
  *message.mutable_at() = ToTimestamp(file.modified);
}

// In steps, so that the module waits for no long list.
std::vector<StoredFile> FilesBehind(HostFiles& files, const std::string& module, const std::string& prefix, size_t skip, size_t limit) {
  std::string after;
  while (skip > 0) {
    const HostFiles::Page page = files.List(module, prefix, after, std::min(skip, kListStep));
    if (!page.more) return {};
    skip -= page.files.size();
    after = page.files.back().name;
  }
  return files.List(module, prefix, after, limit).files;
}

absl::Status TooBusy() { return Error("OVERLOADED", "The supervisor has too much to do with files, or stops; try again soon."); }

class FilesAdminService : public admin::v1::Files::CallbackService {
 public:
  FilesAdminService(const Guard& guard, Modules& modules, HostFiles& files, Streams& streams, const Clock& clock)
      : guard_(guard), modules_(modules), files_(files), streams_(streams), clock_(clock) {}

  grpc::ServerUnaryReactor* ListFiles(grpc::CallbackServerContext* context, const ListFilesRequest* request, ListFilesResponse* response) override {
    return Serve(guard_, context, "bulkhead.admin.v1.Files.ListFiles", request, response,
                 [this](CallPtr<ListFilesResponse> call, const ListFilesRequest* request) {
      const auto page = PageOf(*request);
      if (!page.ok()) return call->Fail(page.status());
      modules_.Get(request->module(), [call, &files = files_, page = *page, module = request->module(), prefix = request->prefix()](auto view) {
        if (!view.ok()) return call->Fail(view.status());
        // Not for the disk, but because there may be many.
        const bool taken = files.Run([call, &files, page, module, prefix] {
          const size_t size = static_cast<size_t>(page.size);
          ListFilesResponse answer;
          for (const StoredFile& file : FilesBehind(files, module, prefix, (static_cast<size_t>(page.number) - 1) * size, size))
            FillStored(file, *answer.add_files());
          answer.mutable_meta()->set_total(static_cast<int>(files.Count(module, prefix)));
          answer.mutable_meta()->set_page(page.number);
          answer.mutable_meta()->set_page_size(page.size);
          call->Answer(std::move(answer));
        });
        if (!taken) call->Fail(TooBusy());
      });
    });
  }

  grpc::ServerWriteReactor<GetFileResponse>* GetFile(grpc::CallbackServerContext* context, const GetFileRequest* request) override {
    using Stream = StreamCall<GetFileResponse>;
    return Stream::Serve(guard_, streams_, clock_, context, "bulkhead.admin.v1.Files.GetFile", request,
                         [this](std::shared_ptr<Stream> stream, const GetFileRequest& request) {
      modules_.Get(request.module(), [stream, &files = files_, module = request.module(), name = request.name()](auto view) {
        if (!view.ok()) return stream->End(view.status());
        const bool taken = files.Run([stream, &files, module, name] {
          auto opened = files.Open(module, name, 0, -1);
          if (!opened.ok()) return stream->End(opened.status());
          const std::shared_ptr<HostFiles::Reader> reader = *std::move(opened);
          GetFileResponse head;
          FillStored(reader->file(), *head.mutable_file());
          const auto fetch = [&files, reader](const FileSource<GetFileResponse>::Fetched& done) {
            if (!files.Run([reader, done] { done(reader->Read(kFileMessage)); })) done(TooBusy());
          };
          if (stream->live()) stream->Open(std::make_unique<FileSource<GetFileResponse>>(std::move(head), reader->file().bytes, fetch, stream));
        });
        if (!taken) stream->End(TooBusy());
      });
    });
  }

 private:
  const Guard& guard_;
  Modules& modules_;
  HostFiles& files_;
  Streams& streams_;
  const Clock& clock_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeFilesService(const Guard& guard, Modules& modules, HostFiles& files, Streams& streams, const Clock& clock) {
  return std::make_unique<FilesAdminService>(guard, modules, files, streams, clock);
}

}  // namespace bulkhead
