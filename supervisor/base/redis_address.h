// Where a Redis is, as an operator writes it. Pure.
#pragma once

#include <optional>
#include <string>

namespace bulkhead {

struct RedisAddress {
  std::string host;  // empty: `socket` counts
  int port = 6379;
  std::string socket;
  std::string user, password;
  int database = 0;
};

// "redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]" or "unix://[[USER]:PASSWORD@]/PATH[?db=DATABASE]", with %XX in user and password; nullopt
// when it is neither. A password may be in it: no log and no answer shows it.
std::optional<RedisAddress> ParseRedisUrl(const std::string& url);

}  // namespace bulkhead
