// The last caller of a connection, so that a keep-alive client's token is not hashed for each request.
#pragma once

#include <memory>
#include <string>

#include "supervisor/gateway/client.h"

namespace bulkhead {

struct Client::Login {
  std::string authorization;  // the whole header
  std::shared_ptr<const Identity> identity;
  IdentityPairs pairs;
  uint64_t version = 0;  // of the token table
  Instant checked{};     // a token may expire without a new table
};

}  // namespace bulkhead
