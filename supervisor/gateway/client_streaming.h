// What a client keeps of an answer of the LocalService that goes on.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "supervisor/gateway/client.h"

namespace bulkhead {

struct Client::Streaming {
  std::shared_ptr<void> gone;  // whoever writes is told when this goes
  std::string idle;            // for when nothing else is written
  std::function<void()> then;  // to call when there is room
  Instant wrote{};
};

}  // namespace bulkhead
