// Secrets and certificates that the configuration names by their files. Blocking; any thread. Errors are CONFIG_INVALID, with the key and the file, and
// say nothing of what stands there.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace bulkhead {

inline constexpr size_t kMaxSecretFile = 16 << 10;       // bytes
inline constexpr size_t kMaxCertificateFile = 1 << 20;  // bytes

// One line of printable ASCII, without its end. A warning when everybody on this host may read it.
absl::StatusOr<std::string> ReadSecretFile(const std::string& key, const std::string& file);
// Certificates in PEM.
absl::StatusOr<std::string> ReadCertificateFile(const std::string& key, const std::string& file);

}  // namespace bulkhead
