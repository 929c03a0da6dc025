// What `serve` prints on its standard output once it is ready: the line that scripts wait for, and commands to try next.
#pragma once

#include <string>

namespace bulkhead {

// `show_token` is a shell command that prints the admin token; `sample`: the module consumption-monitor is there to be asked.
void Greet(const std::string& url, const std::string& show_token, bool sample);

}  // namespace bulkhead
