// What can be said of two pg_snapshots without the database. Snapshots of one cluster are ordered by time: of two, the later shows all that the
// earlier does.
#pragma once

#include <string_view>

namespace bulkhead {

// Whether all that is visible in `part` is certainly visible in `whole`. False for what is no snapshot; it may be false for two that show the same.
bool Covers(std::string_view whole, std::string_view part);

}  // namespace bulkhead
