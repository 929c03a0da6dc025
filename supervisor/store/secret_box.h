// Secrets at rest: AES-256-GCM (NIST SP 800-38D) with a key ring, of which the first key seals and every one opens. Immutable but
// for Rotate(); thread-safe.
//
// The keys come from BULKHEAD_SECRETS_KEYS (64 hexadecimal digits each, separated by commas), so that several nodes on one database
// share them, else from <data>/secrets/config.keys (one a line), which is made with a random key when it is missing.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/base/guarded.h"

namespace bulkhead {

class SecretBox {
 public:
  static constexpr size_t kMaxKeys = 8;

  // `environment` is the variable's value, empty when it is not set. DATA_UNUSABLE says what is wrong with a key, never the key.
  static absl::StatusOr<std::unique_ptr<SecretBox>> Load(const std::string& path, const std::string& environment);

  // "v1.<key>.<nonce ‖ ciphertext ‖ tag in base64url>". What it is of (`purpose`) is bound to it: opened for another one, it fails.
  std::string Seal(std::string_view plain, std::string_view purpose) const;
  // SECRET_UNREADABLE: no such key here, damaged, or sealed for another purpose.
  absl::StatusOr<std::string> Open(std::string_view sealed, std::string_view purpose) const;
  // Whether it was sealed with the key that seals now.
  bool Current(std::string_view sealed) const;
  // The names of the keys, the one that seals first: the first 8 hexadecimal digits of their SHA-256.
  std::vector<std::string> KeyNames() const;

  // One rotation at a time: a new key that seals from now on, which is in the file before this returns; then everything is sealed anew
  // by who keeps it; then the old keys are forgotten. Not for keys that come from the environment: there the operator puts
  // the new one in front, and takes the old ones away when all is sealed anew.
  absl::Status AddKey();
  absl::Status DropOldKeys();
  bool from_environment() const { return from_environment_; }

 private:
  struct Key {
    std::string name, bytes;
  };
  SecretBox(std::string path, bool from_environment, std::vector<Key> keys);
  static absl::StatusOr<Key> ParseKey(std::string_view hex);
  absl::Status Write(const std::vector<Key>& keys) const;

  const std::string path_;
  const bool from_environment_;
  mutable Guarded<std::vector<Key>> keys_;
};

}  // namespace bulkhead
