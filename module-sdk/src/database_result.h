// libpq's result behind Rows.
#pragma once

#include "pq.h"

#include "bulkhead/database.h"

namespace bulkhead::sdk {

struct QueryResult {
  explicit QueryResult(PGresult* r) : result(r) {}
  QueryResult(const QueryResult&) = delete;
  ~QueryResult() { pq().PQclear(result); }
  PGresult* result;
};

}  // namespace bulkhead::sdk
