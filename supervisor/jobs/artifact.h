// Files that runs of jobs leave behind: what they are, how many and how large they may be. Values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "supervisor/base/clock.h"

namespace bulkhead {

namespace limits {
inline constexpr int kMaxArtifacts = 16;                             // of an attempt; beyond: OUT_OF_RANGE
inline constexpr int64_t kMaxArtifactBytes = 16 << 20;               // of one; beyond: INVALID_ARGUMENT
inline constexpr int64_t kMaxRunArtifactBytes = 64 << 20;            // of an attempt together; beyond: OUT_OF_RANGE
inline constexpr int64_t kMaxModuleArtifactBytes = int64_t{1} << 30;  // of all runs of a module; beyond: its oldest files are deleted
inline constexpr size_t kArtifactPart = 256 * 1024;                  // in one row, and in one message of a download
inline constexpr size_t kMaxArtifactName = 128, kMaxContentType = 128;
}  // namespace limits

struct Artifact {
  std::string name, content_type;
  int64_t bytes = 0;
  WallTime at;
  int64_t key = 0;  // of its row, which another one of that name does not have
};

// One on its way in; `fence` is that of the attempt which has made it.
struct ArtifactUpload {
  std::string run_id;
  int64_t fence = 0;
  std::string name, content_type;  // type empty: application/octet-stream
  std::string data;
};

// INVALID_ARGUMENT: a name that is no file's, a type that is no header's. Not the data: that is counted as it comes.
absl::Status CheckArtifact(const ArtifactUpload& upload);

}  // namespace bulkhead
