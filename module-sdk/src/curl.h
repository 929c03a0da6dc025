// libcurl, loaded by the first call of a service: as with libpq (pq.h), what it brings along is more than all the rest of a module.
#pragma once

#define CURL_DISABLE_TYPECHECK  // its macros know functions alone, not members
#include <curl/curl.h>

namespace bulkhead::sdk {

#define BULKHEAD_LIBCURL(F) \
  F(curl_global_init) F(curl_easy_init) F(curl_easy_cleanup) F(curl_easy_setopt) F(curl_easy_perform) F(curl_easy_getinfo) F(curl_easy_strerror) \
  F(curl_slist_append) F(curl_slist_free_all)

struct Libcurl {
#define BULKHEAD_LIBCURL_MEMBER(name) decltype(&::name) name;
  BULKHEAD_LIBCURL(BULKHEAD_LIBCURL_MEMBER)
#undef BULKHEAD_LIBCURL_MEMBER
};

// Throws ClientError CLIENT_UNAVAILABLE when it can't be loaded. Any thread.
const Libcurl& curl();

}  // namespace bulkhead::sdk
