#include "bulkhead/jobs.h"

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <system_error>

namespace bulkhead::sdk {

void JobContext::Artifact(std::string_view, std::string_view, std::string_view) { throw HostError("there is no supervisor to keep a file", false); }

void JobContext::ArtifactFile(std::string_view name, std::string_view content_type, const std::string& path) {
  std::error_code why;
  if (const auto size = std::filesystem::file_size(path, why); !why && size > static_cast<uintmax_t>(kMaxArtifact))
    throw HostError("an artifact has at most 16 MiB, and " + path + " has more", false);
  std::string bytes;
  std::ifstream file(path, std::ios::binary);
  // One that grows meanwhile is read to a byte more than may be, and refused.
  for (char part[64 * 1024]; file && static_cast<int64_t>(bytes.size()) <= kMaxArtifact;) {
    file.read(part, sizeof part);
    bytes.append(part, static_cast<size_t>(file.gcount()));
  }
  if (why || file.bad() || !(file.eof() || static_cast<int64_t>(bytes.size()) > kMaxArtifact)) throw HostError("the file " + path + " can't be read", false);
  Artifact(name, content_type, bytes);
}

void Jobs::Handle(std::string name, JobHandler handler) {
  if (frozen_) throw std::logic_error("job " + name + ": jobs are registered in Initialize only");
  if (name.empty() || !handler) throw std::invalid_argument("job " + name + ": no name or no handler");
  if (!handlers_.emplace(name, std::move(handler)).second) throw std::invalid_argument("job " + name + " has a handler already");
}

const JobHandler* Jobs::Find(std::string_view name) const {
  auto found = handlers_.find(name);
  return found == handlers_.end() ? nullptr : &found->second;
}

}  // namespace bulkhead::sdk
