// The part of the run store that keeps what runs leave behind.
#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"
#include "supervisor/jobs/run_store.h"

namespace bulkhead {
namespace {

constexpr char kUnknownType[] = "application/octet-stream";

absl::Status Invalid(std::string_view sentence) { return Error("INVALID_ARGUMENT", std::string(sentence)); }

int PartsOf(int64_t bytes) { return static_cast<int>((bytes + limits::kArtifactPart - 1) / limits::kArtifactPart); }

// To a module, whose call answers with these codes of gRPC (host.proto).
absl::Status Refused(const std::string& why, const ArtifactUpload& upload) {
  if (why == "attempt") {
    return absl::FailedPreconditionError(
        absl::StrCat("The attempt with the fence ", upload.fence, " is not the one under way of a run of this module; it keeps no file any more."));
  }
  if (why == "count") return absl::OutOfRangeError(absl::StrCat("The run has ", limits::kMaxArtifacts, " files already, which is all that it may have."));
  return absl::OutOfRangeError(absl::StrCat("With this file the run's would be more than ", limits::kMaxRunArtifactBytes >> 20, " MiB together."));
}

}  // namespace

absl::Status CheckArtifact(const ArtifactUpload& upload) {
  const std::string& name = upload.name;
  if (name.empty() || name.size() > limits::kMaxArtifactName || !IsValidUtf8(name))
    return Invalid(absl::StrCat("The name of an artifact has 1 to ", limits::kMaxArtifactName, " bytes of UTF-8."));
  const auto part_of_path = [](unsigned char c) { return c < 0x20 || c == 0x7f || c == '/' || c == '\\'; };
  if (name == "." || name == ".." || std::any_of(name.begin(), name.end(), part_of_path))
    return Invalid("The name of an artifact is that of a file alone: without \"/\", \"\\\" or control characters, and not \".\" or \"..\".");
  const std::string& type = upload.content_type;
  if (type.size() > limits::kMaxContentType || std::any_of(type.begin(), type.end(), [](unsigned char c) { return c < 0x20 || c > 0x7e; }))
    return Invalid(absl::StrCat("The content type has at most ", limits::kMaxContentType, " bytes of printable ASCII."));
  return absl::OkStatus();
}

absl::StatusOr<Artifact> RunStore::KeepArtifact(const std::string& module, const ArtifactUpload& upload) {
  RETURN_IF_ERROR(CheckArtifact(upload));
  const int64_t bytes = static_cast<int64_t>(upload.data.size());
  if (bytes > limits::kMaxArtifactBytes) return Invalid(absl::StrCat("An artifact has at most ", limits::kMaxArtifactBytes >> 20, " MiB."));
  Artifact kept{.name = upload.name, .content_type = upload.content_type.empty() ? kUnknownType : upload.content_type, .bytes = bytes};
  if (!IsRunId(upload.run_id)) return Refused("attempt", upload);
  const absl::Status stored = database_.Transaction([&](Connection& connection) -> absl::Status {
    ASSIGN_OR_RETURN(const Rows begun,
                     connection.Run("SELECT artifact, refused FROM bulkhead_internal.begin_artifact($1::uuid, $2::bigint, $3, $4, $5, $6::bigint, $7::int,"
                                    " $8::bigint, $9::bigint)",
                                    {upload.run_id, absl::StrCat(upload.fence), module, kept.name, kept.content_type, absl::StrCat(bytes),
                                     absl::StrCat(limits::kMaxArtifacts), absl::StrCat(limits::kMaxRunArtifactBytes),
                                     absl::StrCat(limits::kMaxModuleArtifactBytes)}));
    if (!begun.Null(0, "refused")) return Refused(begun.Text(0, "refused"), upload);
    kept.key = begun.Int(0, "artifact");
    for (int part = 0; part < PartsOf(bytes); ++part) {
      const std::string_view data = std::string_view(upload.data).substr(part * limits::kArtifactPart, limits::kArtifactPart);
      RETURN_IF_ERROR(connection
                          .Run("INSERT INTO bulkhead_internal.run_artifact_parts (artifact, part, data) VALUES ($1::bigint, $2::int, decode($3, 'hex'))",
                               {absl::StrCat(kept.key), absl::StrCat(part), absl::BytesToHexString(View(data))})
                          .status());
    }
    ASSIGN_OR_RETURN(const Rows now, connection.Run("SELECT at FROM bulkhead_internal.run_artifacts WHERE id = $1::bigint", {absl::StrCat(kept.key)}));
    kept.at = now.Time(0, "at").value_or(WallTime());
    return absl::OkStatus();
  });
  if (!stored.ok()) return stored;
  return kept;
}

absl::StatusOr<Artifact> RunStore::FindArtifact(const std::string& run_id, const std::string& name) {
  ASSIGN_OR_RETURN(RunView run, Get(run_id));
  for (Artifact& artifact : run.artifacts) {
    if (artifact.name == name) return std::move(artifact);
  }
  return Error("ARTIFACT_NOT_FOUND", absl::StrCat("The run ", run_id, " has no artifact \"", name.substr(0, limits::kMaxArtifactName), "\"."));
}

absl::StatusOr<std::string> RunStore::ReadArtifact(const Artifact& artifact, int part) {
  ASSIGN_OR_RETURN(const Rows rows, database_.Run("SELECT encode(data, 'hex') AS data FROM bulkhead_internal.run_artifact_parts"
                                                  " WHERE artifact = $1::bigint AND part = $2::int",
                                                  {absl::StrCat(artifact.key), absl::StrCat(part)}));
  if (rows.size() == 0) return Error("ARTIFACT_NOT_FOUND", absl::StrCat("The artifact \"", artifact.name, "\" has been deleted meanwhile."));
  return absl::HexStringToBytes(rows.Text(0, "data"));
}

}  // namespace bulkhead
