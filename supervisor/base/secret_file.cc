#include "supervisor/base/secret_file.h"

#include <sys/stat.h>

#include <algorithm>

#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

absl::Status UnreadableFile(const std::string& key, const std::string& file, const absl::Status& why) {
  return Error("CONFIG_INVALID", key + ": the file " + file + " can't be read: " + std::string(why.message()) + ".");
}

}  // namespace

absl::StatusOr<std::string> ReadSecretFile(const std::string& key, const std::string& file) {
  auto content = ReadFile(file, kMaxSecretFile);
  if (!content.ok()) return UnreadableFile(key, file, content.status());
  struct stat info;
  if (stat(file.c_str(), &info) == 0 && (info.st_mode & 007) != 0)
    LogWarn("config", "everybody on this host can read a secret; run chmod o-rwx on its file", {{"key", key}, {"file", file}});
  while (content->ends_with('\n') || content->ends_with('\r')) content->pop_back();
  const bool printable = std::all_of(content->begin(), content->end(), [](unsigned char c) { return c >= 0x20 && c < 0x7f; });
  if (content->empty() || !printable) return Error("CONFIG_INVALID", key + ": the file " + file + " must hold one line of printable ASCII.");
  return content;
}

absl::StatusOr<std::string> ReadCertificateFile(const std::string& key, const std::string& file) {
  auto content = ReadFile(file, kMaxCertificateFile);
  if (!content.ok()) return UnreadableFile(key, file, content.status());
  if (content->find("-----BEGIN CERTIFICATE-----") == std::string::npos)
    return Error("CONFIG_INVALID", key + ": the file " + file + " holds no certificate in PEM.");
  return content;
}

}  // namespace bulkhead
