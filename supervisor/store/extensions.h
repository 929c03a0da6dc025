// The PostgreSQL extensions that modules may ask for when the operator has not said otherwise (store.extensions). They add types, functions
// and index methods, and reach neither files nor the network nor the rows of others.
#pragma once

#include <string>
#include <vector>

namespace bulkhead {

inline std::vector<std::string> DefaultExtensions() {
  return {"pg_trgm", "pgcrypto", "citext", "uuid-ossp", "btree_gin", "btree_gist", "timescaledb"};
}

}  // namespace bulkhead
