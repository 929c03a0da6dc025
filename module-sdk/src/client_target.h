// What a call sends, made from what an author gives, who may have it from anywhere. Pure; a sentence says what is wrong.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bulkhead/client.h"

namespace bulkhead::sdk {

// Of a base URL that can't be used, else "".
std::string BaseUrlFault(std::string_view url);
// Of a path that can't be called below it: not from "/" on, bytes that no target has, a fragment, a "." or ".." segment in whatever
// spelling, too long. Else "".
std::string PathFault(std::string_view path);
// Both as one URL, the queries behind what the path has. `path` is one without a fault.
std::string JoinUrl(std::string_view base, std::string_view path, const std::vector<std::pair<std::string, std::string>>& query,
                    const Headers& secret_query);
// Of a header that can't be sent: no token for a name, a control character in the value, or one that is the client's own business (framing,
// host, connection). Else "".
std::string HeaderFault(std::string_view name, std::string_view value);
std::string MethodFault(std::string_view method);
bool SameHeader(std::string_view a, std::string_view b);  // case-insensitive

}  // namespace bulkhead::sdk
