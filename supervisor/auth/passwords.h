// Passwords of users: what one may be, and argon2id (RFC 9106) with its PHC string. Pure, and slow on purpose: hashing takes some 40 ms
// and 19 MiB, so it belongs on the pool of Accounts.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace bulkhead {

// INVALID_ARGUMENT with the path "/<field>": 12 to 256 characters, valid UTF-8, not the user's name, not one of the commonest
// (NIST SP 800-63B: length instead of rules about its characters).
absl::Status CheckNewPassword(std::string_view password, std::string_view user, std::string_view field);

// "$argon2id$v=19$m=19456,t=2,p=1$…" with a salt of its own. INTERNAL when there is no memory.
absl::StatusOr<std::string> HashPassword(std::string_view password);
// Whether `password` is the one behind `phc`. Takes the time that its parameters ask for.
bool VerifyPassword(std::string_view password, const std::string& phc);
// Whether `phc` was made with other parameters than HashPassword's, so that a login replaces it.
bool NeedsRehash(std::string_view phc);
// Takes as long as VerifyPassword() and is always false: for a user who does not exist.
bool VerifyNobody(std::string_view password);

}  // namespace bulkhead
