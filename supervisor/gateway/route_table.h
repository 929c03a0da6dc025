// Which route of a module a request means. Compiled once from a manifest, then immutable: thread-safe.
//
// A path is split at '/', and each segment is percent-decoded once before it is compared, because the module's router sees decoded
// segments too: what is authorised here must be what runs there. Literal segments win over ":name", which wins over a trailing "*";
// ":name" takes one segment that is not empty, "*" takes the rest, also an empty one. The method is part of the match.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/manifest/manifest.h"

namespace bulkhead {

class RouteTable {
 public:
  explicit RouteTable(std::shared_ptr<const Manifest> manifest);
  ~RouteTable();

  struct Match {
    const RouteSpec* route = nullptr;  // lives as long as the table
    bool head_as_get = false;          // a HEAD that a GET route answers
    uint32_t allowed = 0;              // when route is nullptr: methods that the path has; 0 means 404
  };
  // `path` begins with '/', raw.
  Match Find(std::string_view method, std::string_view path) const;
  // "GET, HEAD, POST" for Match::allowed.
  static std::string AllowHeader(uint32_t allowed);

 private:
  struct Node;
  void Add(const RouteSpec& route);
  const std::shared_ptr<const Manifest> manifest_;
  std::unique_ptr<Node> root_;
};

}  // namespace bulkhead
