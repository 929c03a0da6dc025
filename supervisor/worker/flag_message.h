// Flags in the words of the protocol: of Host.WatchFlags, and of Initialize. Private to this room.
#pragma once

#include <map>
#include <string>

#include "bulkhead/host/v1/host.pb.h"
#include "supervisor/worker/host.h"

namespace bulkhead {

void FillFlags(const std::map<std::string, HostFlag>& flags, google::protobuf::Map<std::string, bool>& values,
               google::protobuf::Map<std::string, host::v1::FlagRule>& rules);

}  // namespace bulkhead
