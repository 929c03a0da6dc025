#include "curl.h"

#include <dlfcn.h>

#include <string>

#include "bulkhead/client.h"

namespace bulkhead::sdk {
namespace {

constexpr char kCurlLibrary[] = "libcurl.so.4";  // of every libcurl since 7.16

Libcurl LoadCurl() {
  const auto fail = [](const std::string& why) { return ClientError("CLIENT_UNAVAILABLE", why, false); };
  void* library = dlopen(kCurlLibrary, RTLD_NOW | RTLD_LOCAL);
  if (!library) throw fail(std::string("libcurl can't be loaded (package libcurl4): ") + dlerror());
  Libcurl loaded;
  const auto take = [&](const char* name) {
    void* found = dlsym(library, name);
    if (!found) throw fail(std::string("libcurl is too old, it lacks ") + name);
    return found;
  };
#define BULKHEAD_LIBCURL_LOAD(name) loaded.name = reinterpret_cast<decltype(&::name)>(take(#name));
  BULKHEAD_LIBCURL(BULKHEAD_LIBCURL_LOAD)
#undef BULKHEAD_LIBCURL_LOAD
  if (loaded.curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) throw fail("libcurl can't be initialised");
  return loaded;
}

}  // namespace

const Libcurl& curl() {
  static const Libcurl loaded = LoadCurl();
  return loaded;
}

}  // namespace bulkhead::sdk
