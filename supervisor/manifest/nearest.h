// The known name that a wrong one was probably meant to be. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace bulkhead {

// The closest of `known` by edit distance, letter case aside; "" when none is close enough to be a likely slip.
std::string Nearest(std::string_view wrong, const std::vector<std::string>& known);
// " Did you mean \"x\"?", or "".
std::string DidYouMean(std::string_view wrong, const std::vector<std::string>& known);

}  // namespace bulkhead
