// libpq's result behind Rows.
#pragma once

#include <libpq-fe.h>

#include "bulkhead/database.h"

namespace bulkhead::sdk {

struct Rows::Result {
  explicit Result(PGresult* r) : result(r) {}
  Result(const Result&) = delete;
  ~Result() { PQclear(result); }
  PGresult* result;
};

}  // namespace bulkhead::sdk
