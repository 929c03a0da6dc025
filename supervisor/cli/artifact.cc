// bulkhead runs artifact: a file that a run has left, downloaded.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "bulkhead/admin/v1/jobs.grpc.pb.h"
#include "supervisor/admin/json.h"
#include "supervisor/base/status.h"
#include "supervisor/cli/commands.h"
#include "supervisor/cli/report.h"

namespace bulkhead {
namespace {

// A file that is there whole or not at all: it is written under another name, and renamed when it is complete.
class NewFile {
 public:
  explicit NewFile(std::string path)
      : path_(std::move(path)), part_(path_ + ".part-" + std::to_string(getpid())), file_(fopen(part_.c_str(), "wbx")), fault_(file_ ? 0 : errno) {}
  ~NewFile() {
    if (!file_) return;
    fclose(file_);
    remove(part_.c_str());
  }
  NewFile(const NewFile&) = delete;

  void Write(const std::string& bytes) {
    if (file_ && fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size() && fault_ == 0) fault_ = errno;
  }
  absl::Status Finish() {
    if (file_ && fclose(std::exchange(file_, nullptr)) != 0 && fault_ == 0) fault_ = errno;
    if (fault_ == 0 && rename(part_.c_str(), path_.c_str()) != 0) fault_ = errno;
    if (fault_ == 0) return absl::OkStatus();
    const std::string why = strerror(fault_);
    remove(part_.c_str());
    return Error("CONFIG_INVALID", path_ + " can't be written: " + why + ". Name another file with -o.", {{.path = path_}});
  }

 private:
  const std::string path_, part_;
  FILE* file_;
  int fault_;
};

// Where it goes. Without -o nothing is overwritten.
absl::StatusOr<std::string> PlaceFor(const ArtifactCommand& command) {
  std::error_code error;
  if (!command.output.empty()) {
    const bool folder = std::filesystem::is_directory(command.output, error);
    return folder ? (std::filesystem::path(command.output) / command.name).string() : command.output;
  }
  const bool plain = !command.name.empty() && command.name.find('/') == std::string::npos && command.name != "." && command.name != "..";
  if (!plain) return Error("CONFIG_INVALID", "\"" + command.name + "\" is no name of a file: say with -o where it goes.", {{.path = "NAME"}});
  if (std::filesystem::exists(command.name, error))
    return Error("CONFIG_INVALID", command.name + " is there already: -o " + command.name + " replaces it, or name another file.", {{.path = command.name}});
  return command.name;
}

}  // namespace

Outcome Run(Session& session, const ArtifactCommand& command) {
  Terminal& terminal = session.terminal;
  const bool to_stdout = command.output == "-";
  std::optional<NewFile> file;
  std::string place;
  if (!to_stdout) {
    auto found = PlaceFor(command);
    if (!found.ok()) return Misused(session, found.status());
    place = *std::move(found);
  }
  admin::v1::GetArtifactRequest request;
  request.set_id(command.id);
  request.set_name(command.name);
  admin::v1::Artifact artifact;
  int64_t received = 0;
  const absl::Status end =
      session.connection.Follow<admin::v1::GetArtifactResponse>(&admin::v1::Jobs::Stub::GetArtifact, request, [&](const auto& part) {
        if (part.has_artifact()) {
          artifact = part.artifact();
          if (!to_stdout) file.emplace(place);  // not before it is known that there is such a thing
          return;
        }
        received += static_cast<int64_t>(part.data().size());
        to_stdout ? terminal.Out(part.data()) : file ? file->Write(part.data()) : void();
        if (artifact.bytes() > 0) terminal.Progress(command.name + " " + std::to_string(received * 100 / artifact.bytes()) + " %");
      });
  terminal.Flush();
  if (!end.ok()) return Failed(session, end);
  if (to_stdout) return Outcome::kDone;
  if (!file) return Failed(session, Error("INTERNAL", "The supervisor did not say what the file is."));
  if (const absl::Status written = file->Finish(); !written.ok()) return Misused(session, written);
  if (session.options.json) {
    std::string body = "{\"success\":true,\"data\":";
    PrintMessage(artifact, body);
    terminal.Out(body + "}\n");
  } else {
    terminal.Out(place + ": " + std::to_string(received) + " bytes, " + artifact.content_type() + "\n");
  }
  return Outcome::kDone;
}

}  // namespace bulkhead
