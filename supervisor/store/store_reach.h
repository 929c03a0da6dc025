// Where a database is, seen from a module that must reach it. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bulkhead {

struct StoreReach {
  bool tcp = false;                         // any of its hosts; all below but the last is about these
  std::vector<uint16_t> ports;
  bool by_name = false;                     // one must be looked up
  bool loopback = true;                     // all are this machine's loopback
  std::vector<std::string> socket_folders;  // of Unix sockets
};

// Of a connection string or URL as libpq reads it; several hosts are several places. One that libpq can't read is on no network.
StoreReach ReachOf(const std::string& conninfo);

}  // namespace bulkhead
