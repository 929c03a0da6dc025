// How much of the network a module may reach, as `access.network` of its manifest names it.
#pragma once

#include <cstdint>
#include <string_view>

namespace bulkhead {

enum class NetworkAccess : uint8_t { kOutbound, kNone, kLoopback, kPorts };

constexpr std::string_view NetworkAccessName(NetworkAccess access) {
  switch (access) {
    case NetworkAccess::kOutbound: return "outbound";
    case NetworkAccess::kNone: return "none";
    case NetworkAccess::kLoopback: return "loopback";
    case NetworkAccess::kPorts: return "ports";
  }
  return "";
}

}  // namespace bulkhead
