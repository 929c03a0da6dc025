#include "supervisor/auth/passwords.h"

#include <argon2.h>

#include <algorithm>
#include <array>

#include "supervisor/auth/identity.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"
#include "supervisor/base/text.h"

namespace bulkhead {
namespace {

// OWASP's Password Storage Cheat Sheet, argon2id.
constexpr uint32_t kMemoryKib = 19'456, kPasses = 2, kLanes = 1;
constexpr size_t kSaltBytes = 16, kHashBytes = 32;
constexpr std::string_view kParameters = "$argon2id$v=19$m=19456,t=2,p=1$";

// The commonest of 12 characters and more in published lists, in lower case; and ours.
constexpr std::array<std::string_view, 32> kCommon = {
    "123456789012",  "1234567890123", "12345678901234",  "123123123123", "111111111111",  "000000000000",   "qwertyuiopasdf", "qwertyuiop123",
    "qwerty123456",  "qwertyuiop[]",  "1q2w3e4r5t6y",    "1qaz2wsx3edc", "password1234",  "password12345",  "passwordpassword", "password123456",
    "iloveyou1234",  "administrator", "administrator1",  "admin1234567", "adminadminadmin", "letmeinletmein", "changeme1234", "changemechangeme",
    "welcome12345",  "abcdefghijkl",  "abcdefghijklm",   "abcd12345678", "correcthorsebatterystaple", "unbelievable", "bulkheadbulkhead", "bulkhead1234"};

size_t Characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return lower;
}

}  // namespace

absl::Status CheckNewPassword(std::string_view password, std::string_view user, std::string_view field) {
  std::string why;
  const std::string lower = Lower(password);
  if (!IsValidUtf8(password)) why = "The password is not valid UTF-8.";
  else if (const size_t size = Characters(password); size < limits::kMinPassword || size > limits::kMaxPassword)
    why = "The password must have 12 to 256 characters. A few words in a row are easy to remember and hard to guess.";
  else if (!user.empty() && lower == Lower(user)) why = "The password is the user's name. Choose another one.";
  else if (std::find(kCommon.begin(), kCommon.end(), lower) != kCommon.end() ||
           std::all_of(lower.begin(), lower.end(), [&](char c) { return c == lower[0]; }))
    why = "The password is one of the commonest, which are tried first. Choose another one.";
  if (why.empty()) return absl::OkStatus();
  return Error("INVALID_ARGUMENT", why, {{"/" + std::string(field), "INVALID_ARGUMENT", why}});
}

absl::StatusOr<std::string> HashPassword(std::string_view password) {
  const std::string salt = FromHex(RandomHex(kSaltBytes));
  std::string phc(argon2_encodedlen(kPasses, kMemoryKib, kLanes, kSaltBytes, kHashBytes, Argon2_id), '\0');
  const int error = argon2id_hash_encoded(kPasses, kMemoryKib, kLanes, password.data(), password.size(), salt.data(), salt.size(), kHashBytes,
                                          phc.data(), phc.size());
  if (error != ARGON2_OK) return Error("INTERNAL", std::string("The password could not be hashed: ") + argon2_error_message(error) + ".");
  phc.resize(phc.find('\0'));
  return phc;
}

bool VerifyPassword(std::string_view password, const std::string& phc) {
  return argon2id_verify(phc.c_str(), password.data(), password.size()) == ARGON2_OK;
}

bool NeedsRehash(std::string_view phc) { return !phc.starts_with(kParameters); }

bool VerifyNobody(std::string_view password) {
  static const std::string nobody = HashPassword(RandomHex(kSaltBytes)).value_or(std::string(kParameters));
  (void)VerifyPassword(password, nobody);
  return false;
}

}  // namespace bulkhead
