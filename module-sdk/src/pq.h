// libpq, loaded by the first connection: it brings more libraries along than all the rest of a module (Kerberos, LDAP, TLS), which each start would
// pay for, with a database or without.
#pragma once

#include <libpq-fe.h>

namespace bulkhead::sdk {

#define BULKHEAD_LIBPQ(F) \
  F(PQcancel) F(PQclear) F(PQcmdStatus) F(PQcmdTuples) F(PQconnectdbParams) F(PQconsumeInput) F(PQenterPipelineMode) F(PQerrorMessage) \
  F(PQexitPipelineMode) F(PQfinish) F(PQflush) F(PQfname) F(PQfreeCancel) F(PQftype) F(PQgetCancel) F(PQgetResult) \
  F(PQgetisnull) F(PQgetlength) F(PQgetvalue) \
  F(PQisBusy) F(PQnfields) F(PQntuples) F(PQpipelineSync) F(PQresultErrorField) F(PQresultErrorMessage) F(PQresultStatus) \
  F(PQsendPrepare) F(PQsendQuery) F(PQsendQueryParams) F(PQsendQueryPrepared) F(PQsetnonblocking) F(PQsocket) \
  F(PQstatus) F(PQtransactionStatus)

struct Libpq {
#define BULKHEAD_LIBPQ_MEMBER(name) decltype(&::name) name;
  BULKHEAD_LIBPQ(BULKHEAD_LIBPQ_MEMBER)
#undef BULKHEAD_LIBPQ_MEMBER
};

// Throws DatabaseError when it can't be loaded. Any thread.
const Libpq& pq();

}  // namespace bulkhead::sdk
