// The opening handshake of RFC 6455, section 4.2, as far as it is left to a module: the gateway has read Connection and Upgrade.
// Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bulkhead/http.h"

namespace bulkhead::sdk::websocket {

struct Handshake {
  std::string accept;    // of Sec-WebSocket-Accept
  std::string protocol;  // agreed on; empty for none
};

// Throws HttpError 400 when the request has no proper key.
Handshake ReadHandshake(const Request& request, const std::vector<std::string>& protocols);
// What a request is answered that does not ask for a WebSocket of version 13; nullopt when it does. `upgrade`: it asks for a
// tunnel.
std::optional<Response> RefuseOther(const Request& request, bool upgrade);
// 4.2.2, step 5.4.
std::string AcceptOf(std::string_view key);

}  // namespace bulkhead::sdk::websocket
