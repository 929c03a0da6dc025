// The last caller of a connection, so that a keep-alive client's token is not hashed for each request.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "supervisor/gateway/client.h"
#include "supervisor/gateway/module_call.h"

namespace bulkhead {

struct Client::Login {
  std::string authorization;  // the whole header
  std::shared_ptr<const Identity> identity;  // null: nobody's, or not decided yet
  absl::Status refusal;                      // why it was not decided; OK for one that is nobody's
  IdentityPairs pairs;
  uint64_t version = 0;  // of the token table
  Instant checked{};     // a token may expire without a new table
  // Of a module, whose token stands in `authorization` then, and `version` is of the running instances.
  std::shared_ptr<const ModuleCaller> caller;
  std::shared_ptr<const Manifest> called;  // what `identity` has permissions of
};

}  // namespace bulkhead
