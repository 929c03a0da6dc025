#include "supervisor/store/secret_box.h"

#include <openssl/evp.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_split.h"
#include "supervisor/base/digest.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

constexpr size_t kKeyBytes = 32, kNonceBytes = 12, kTagBytes = 16, kNameDigits = 8;
constexpr std::string_view kVersion = "v1.";

struct ContextDeleter {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using ContextPtr = std::unique_ptr<EVP_CIPHER_CTX, ContextDeleter>;

const unsigned char* Bytes(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }
unsigned char* Bytes(std::string& text, size_t at = 0) { return reinterpret_cast<unsigned char*>(text.data()) + at; }
int Size(std::string_view text) { return static_cast<int>(text.size()); }

absl::Status Unreadable(std::string_view why) { return Error("SECRET_UNREADABLE", "a stored secret can't be read: " + std::string(why)); }

std::string RandomBytes(size_t count) { return absl::HexStringToBytes(RandomHex(count)); }

}  // namespace

SecretBox::SecretBox(std::string path, bool from_environment, std::vector<Key> keys)
    : path_(std::move(path)), from_environment_(from_environment), keys_(std::move(keys)) {}

absl::StatusOr<SecretBox::Key> SecretBox::ParseKey(std::string_view hex) {
  const bool digits = std::all_of(hex.begin(), hex.end(), [](char c) { return HexDigit(c) >= 0; });
  if (hex.size() != 2 * kKeyBytes || !digits) return absl::InvalidArgumentError("a key is 64 hexadecimal digits");
  Key key;
  key.bytes = absl::HexStringToBytes(absl::string_view(hex.data(), hex.size()));
  key.name = DigestHex(key.bytes).substr(0, kNameDigits);
  return key;
}

absl::StatusOr<std::unique_ptr<SecretBox>> SecretBox::Load(const std::string& path, const std::string& environment) {
  const bool from_environment = !environment.empty();
  std::string text = environment;
  if (!from_environment) {
    auto file = ReadFile(path);
    if (!file.ok() && file.status().code() != absl::StatusCode::kNotFound)
      return Error("DATA_UNUSABLE", path + " can't be read: " + std::string(file.status().message()));
    if (file.ok()) {
      text = *file;
    } else {
      text = RandomHex(kKeyBytes) + "\n";
      RETURN_IF_ERROR(WriteFileAtomically(path, text, 0600));
    }
  }
  std::vector<Key> keys;
  for (absl::string_view part : absl::StrSplit(text, absl::ByAnyChar(",\n"), absl::SkipWhitespace())) {
    auto key = ParseKey(std::string(absl::StripAsciiWhitespace(part)));
    if (!key.ok() || keys.size() == kMaxKeys) {
      return Error("DATA_UNUSABLE", (from_environment ? "BULKHEAD_SECRETS_KEYS" : path) + " is not usable: " +
                                        (key.ok() ? "it has more than 8 keys" : "its key " + std::to_string(keys.size() + 1) +
                                                                                   " is not 64 hexadecimal digits"));
    }
    keys.push_back(*std::move(key));
  }
  if (keys.empty()) return Error("DATA_UNUSABLE", path + " holds no key. What was sealed with it can't be read without; put it back.");
  return std::unique_ptr<SecretBox>(new SecretBox(path, from_environment, std::move(keys)));
}

std::string SecretBox::Seal(std::string_view plain, std::string_view purpose) const {
  const Key key = keys_.With([](const std::vector<Key>& keys) { return keys.front(); });
  const std::string nonce = RandomBytes(kNonceBytes);
  std::string text(plain.size(), '\0'), tag(kTagBytes, '\0');
  int size = 0, more = 0;
  ContextPtr context(EVP_CIPHER_CTX_new());
  bool ok = context && EVP_EncryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, Bytes(key.bytes), Bytes(nonce)) == 1 &&
            EVP_EncryptUpdate(context.get(), nullptr, &size, Bytes(purpose), Size(purpose)) == 1 &&
            EVP_EncryptUpdate(context.get(), Bytes(text), &size, Bytes(plain), Size(plain)) == 1 &&
            EVP_EncryptFinal_ex(context.get(), Bytes(text, static_cast<size_t>(size)), &more) == 1 &&
            EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, tag.data()) == 1;
  BULKHEAD_CHECK(ok);
  return std::string(kVersion) + key.name + "." + absl::WebSafeBase64Escape(nonce + text + tag);
}

absl::StatusOr<std::string> SecretBox::Open(std::string_view sealed, std::string_view purpose) const {
  if (!sealed.starts_with(kVersion)) return Unreadable("it is of a form that this version does not know");
  sealed.remove_prefix(kVersion.size());
  const size_t dot = sealed.find('.');
  if (dot == sealed.npos) return Unreadable("it is damaged");
  const std::string name(sealed.substr(0, dot));
  std::string raw;
  const std::string_view coded = sealed.substr(dot + 1);
  if (!absl::WebSafeBase64Unescape(absl::string_view(coded.data(), coded.size()), &raw) || raw.size() < kNonceBytes + kTagBytes)
    return Unreadable("it is damaged");
  const std::string key = keys_.With([&](const std::vector<Key>& keys) {
    auto found = std::find_if(keys.begin(), keys.end(), [&](const Key& k) { return k.name == name; });
    return found == keys.end() ? std::string() : found->bytes;
  });
  if (key.empty()) return Unreadable("it was sealed with the key " + name + ", which is not in the key ring here");
  const std::string nonce = raw.substr(0, kNonceBytes);
  std::string tag = raw.substr(raw.size() - kTagBytes);
  const std::string text = raw.substr(kNonceBytes, raw.size() - kNonceBytes - kTagBytes);
  std::string plain(text.size(), '\0');
  int size = 0, more = 0;
  ContextPtr context(EVP_CIPHER_CTX_new());
  const bool ok = context && EVP_DecryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, Bytes(key), Bytes(nonce)) == 1 &&
                  EVP_DecryptUpdate(context.get(), nullptr, &size, Bytes(purpose), Size(purpose)) == 1 &&
                  EVP_DecryptUpdate(context.get(), Bytes(plain), &size, Bytes(text), Size(text)) == 1 &&
                  EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, tag.data()) == 1 &&
                  EVP_DecryptFinal_ex(context.get(), Bytes(plain, static_cast<size_t>(size)), &more) == 1;
  if (!ok) return Unreadable("it is damaged, or was sealed for something else");
  return plain;
}

bool SecretBox::Current(std::string_view sealed) const { return sealed.starts_with(std::string(kVersion) + KeyNames().front() + "."); }

std::vector<std::string> SecretBox::KeyNames() const {
  return keys_.With([](const std::vector<Key>& keys) {
    std::vector<std::string> names;
    for (const Key& key : keys) names.push_back(key.name);
    return names;
  });
}

absl::Status SecretBox::Write(const std::vector<Key>& keys) const {
  std::string text;
  for (const Key& key : keys) text += absl::BytesToHexString(key.bytes) + "\n";
  return WriteFileAtomically(path_, text, 0600);
}

absl::Status SecretBox::AddKey() {
  BULKHEAD_CHECK(!from_environment_);
  std::vector<Key> longer = keys_.With([](const std::vector<Key>& keys) { return keys; });
  ASSIGN_OR_RETURN(Key key, ParseKey(RandomHex(kKeyBytes)));
  longer.insert(longer.begin(), std::move(key));
  if (longer.size() > kMaxKeys) {
    return Error("OVERLOADED", "earlier rotations have not ended: the key ring holds " + std::to_string(kMaxKeys) +
                                   " keys already. Look into the log for what kept them from it.");
  }
  RETURN_IF_ERROR(Write(longer));
  keys_.With([&](std::vector<Key>& keys) { keys = std::move(longer); });
  return absl::OkStatus();
}

absl::Status SecretBox::DropOldKeys() {
  if (from_environment_) return absl::OkStatus();
  std::vector<Key> only = keys_.With([](const std::vector<Key>& keys) { return std::vector<Key>(keys.begin(), keys.begin() + 1); });
  RETURN_IF_ERROR(Write(only));
  keys_.With([&](std::vector<Key>& keys) { keys = std::move(only); });
  return absl::OkStatus();
}

}  // namespace bulkhead
