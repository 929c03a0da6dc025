// What `auth.jwt` of the configuration file says: whose JSON Web Tokens are taken. Values.
#pragma once

#include <string>
#include <vector>

#include "supervisor/base/clock.h"

namespace bulkhead {

struct JwtKeyFile {
  std::string id;         // the `kid` that tokens name
  std::string algorithm;  // HS256, RS256, ES256, EdDSA: the only one that this key verifies
  std::string file;       // absolute; the secret of HS256 as bytes, else a public key in PEM
};

struct JwtSettings {
  std::string issuer;                 // "": any
  std::vector<std::string> audience;  // one of these must be in `aud`; empty: any
  Millis clock_skew{60'000};
  std::string subject_claim = "sub";
  std::string roles_claim = "roles";  // a name, or a path with dots such as realm_access.roles
  std::string permissions_claim = "permissions";
  std::vector<JwtKeyFile> keys;
  std::string jwks_url;               // "": none
  Millis jwks_refresh{300'000};
};

}  // namespace bulkhead
