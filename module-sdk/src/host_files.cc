#include "host_files.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "json_text.h"

namespace bulkhead::sdk {

namespace files_pb = ::bulkhead::host::v1;

namespace {

constexpr std::chrono::seconds kFileDeadline{30}, kTransferDeadline{3'600};
constexpr size_t kFilePart = 256 * 1024;

FileInfo InfoOf(const files_pb::StoredFile& file) {
  return {file.name(), file.bytes(), std::chrono::system_clock::time_point(std::chrono::milliseconds(file.modified_ms()))};
}

// What the protocol takes for text, and no message too long; the supervisor looks at the rest.
std::string Name(std::string_view name) {
  std::string text = Utf8(name);
  if (text != name || text.size() > kMaxFileName) throw std::invalid_argument("the name of a file has 1 to 240 bytes of UTF-8");
  return text;
}

// false: there is no such file.
bool Found(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::OK: return true;
    case grpc::StatusCode::NOT_FOUND: return false;
    case grpc::StatusCode::OUT_OF_RANGE: throw NoRoom("QUOTA_EXCEEDED", status.error_message());
    case grpc::StatusCode::RESOURCE_EXHAUSTED: throw NoRoom("DISK_FULL", status.error_message());
    case grpc::StatusCode::INVALID_ARGUMENT: throw std::invalid_argument(status.error_message());
    default: break;
  }
  const bool may_pass = status.error_code() == grpc::StatusCode::UNAVAILABLE || status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
  throw HostError(status.error_message(), may_pass);
}
void Require(const grpc::Status& status) {
  if (!Found(status)) throw HostError(status.error_message(), false);
}

}  // namespace

// The call and what it needs, which a thread that leaves in the middle cancels.
class HostFileWriter final : public FileWriter {
 public:
  HostFileWriter() = default;
  ~HostFileWriter() override {
    if (!call) return;
    context.TryCancel();
    call->Finish();
  }
  void Write(std::string_view bytes) override {
    for (; !bytes.empty(); bytes.remove_prefix(std::min(kFilePart, bytes.size()))) {
      const std::string_view next = bytes.substr(0, kFilePart);
      part.set_data(next.data(), next.size());
      Send();
      sent += static_cast<int64_t>(next.size());
    }
  }
  FileInfo Commit() override {
    part.mutable_end()->set_bytes(sent);
    Send();
    Require(End());
    return InfoOf(response.file());
  }

  void Send() {
    if (!call) throw HostError("the file was committed, or has failed, before", false);
    if (call->Write(part)) return;
    Require(End());  // the call has its status already
    throw HostError("the supervisor takes nothing more of the file", true);
  }
  grpc::Status End() {
    const auto ended = std::move(call);
    ended->WritesDone();
    return ended->Finish();
  }

  grpc::ClientContext context;
  files_pb::PutFileResponse response;
  std::unique_ptr<grpc::ClientWriter<files_pb::PutFileRequest>> call;
  files_pb::PutFileRequest part;
  int64_t sent = 0;
};

files_pb::Files::Stub& HostFiles::stub() {
  if (host_socket_.empty()) throw HostError("there is no supervisor to keep files", false);
  std::call_once(connected_, [this] {
    stub_ = files_pb::Files::NewStub(grpc::CreateChannel("unix:" + host_socket_, grpc::InsecureChannelCredentials()));
  });
  return *stub_;
}

void HostFiles::Prepare(grpc::ClientContext& context, std::chrono::seconds deadline) const {
  context.AddMetadata("x-bulkhead-token", token_);
  context.set_deadline(std::chrono::system_clock::now() + deadline);
}

std::unique_ptr<FileWriter> HostFiles::Create(std::string_view name, int64_t bytes) {
  auto writer = std::make_unique<HostFileWriter>();
  Prepare(writer->context, kTransferDeadline);
  writer->call = stub().PutFile(&writer->context, &writer->response);
  writer->part.mutable_head()->set_name(Name(name));
  writer->part.mutable_head()->set_bytes(bytes);
  writer->Send();
  return writer;
}

FileInfo HostFiles::Put(std::string_view name, std::string_view bytes) {
  const auto writer = Create(name, static_cast<int64_t>(bytes.size()));
  writer->Write(bytes);
  return writer->Commit();
}

std::optional<FileInfo> HostFiles::Read(std::string_view name, const FileRange& range, const Part& part) {
  files_pb::GetFileRequest request;
  request.set_name(Name(name));
  request.set_offset(range.offset);
  if (range.length && *range.length < 0) throw std::invalid_argument("the length of a range is not below 0");
  if (range.length) request.set_length(*range.length);
  grpc::ClientContext context;
  Prepare(context, kTransferDeadline);
  const auto call = stub().GetFile(&context, request);
  std::optional<FileInfo> info;
  files_pb::GetFileResponse next;
  bool wanted = true;
  try {
    while (wanted && call->Read(&next)) {
      if (next.has_file()) {
        info = InfoOf(next.file());
      } else {
        wanted = part(next.data());
      }
    }
  } catch (...) {
    context.TryCancel();
    call->Finish();
    throw;
  }
  if (!wanted) context.TryCancel();
  const grpc::Status status = call->Finish();
  if (!wanted) return info;
  return Found(status) ? info : std::nullopt;
}

std::optional<std::string> HostFiles::Get(std::string_view name, const FileRange& range) {
  std::string bytes;
  const auto found = Read(name, range, [&](std::string_view part) {
    bytes += part;
    return true;
  });
  return found ? std::optional(std::move(bytes)) : std::nullopt;
}

std::optional<FileInfo> HostFiles::Stat(std::string_view name) {
  files_pb::StatFileRequest request;
  request.set_name(Name(name));
  files_pb::StatFileResponse response;
  grpc::ClientContext context;
  Prepare(context, kFileDeadline);
  return Found(stub().StatFile(&context, request, &response)) ? std::optional(InfoOf(response.file())) : std::nullopt;
}

FileList HostFiles::List(std::string_view prefix, std::string_view after, int limit) {
  if (limit < 1) throw std::invalid_argument("the limit of a list is 1 to 1,000");
  files_pb::ListFilesRequest request;
  request.set_prefix(Name(prefix));
  request.set_after(Name(after));
  request.set_limit(limit);
  files_pb::ListFilesResponse response;
  grpc::ClientContext context;
  Prepare(context, kFileDeadline);
  Require(stub().ListFiles(&context, request, &response));
  FileList list{.files = {}, .more = response.more()};
  for (const files_pb::StoredFile& file : response.files()) list.files.push_back(InfoOf(file));
  return list;
}

FileSpace HostFiles::Space() {
  files_pb::ListFilesRequest request;
  request.set_limit(1);
  files_pb::ListFilesResponse response;
  grpc::ClientContext context;
  Prepare(context, kFileDeadline);
  Require(stub().ListFiles(&context, request, &response));
  return {response.used_bytes(), response.used_files(), response.quota_bytes(), response.quota_files()};
}

bool HostFiles::Remove(std::string_view name) {
  files_pb::RemoveFileRequest request;
  request.set_name(Name(name));
  files_pb::RemoveFileResponse response;
  grpc::ClientContext context;
  Prepare(context, kFileDeadline);
  Require(stub().RemoveFile(&context, request, &response));
  return response.removed();
}

bool HostFiles::Rename(std::string_view from, std::string_view to) {
  files_pb::RenameFileRequest request;
  request.set_from(Name(from));
  request.set_to(Name(to));
  files_pb::RenameFileResponse response;
  grpc::ClientContext context;
  Prepare(context, kFileDeadline);
  return Found(stub().RenameFile(&context, request, &response));
}

}  // namespace bulkhead::sdk
