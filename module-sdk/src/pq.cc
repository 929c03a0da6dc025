#include "pq.h"

#include <dlfcn.h>

#include <string>

#include "bulkhead/database.h"

namespace bulkhead::sdk {
namespace {

constexpr char kLibrary[] = "libpq.so.5";  // of every PostgreSQL since 8.2; pipelines since 14

Libpq Load() {
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (!library) throw DatabaseError(std::string("PostgreSQL's client library can't be loaded (package libpq5): ") + dlerror(), "", false);
  Libpq loaded;
  const auto take = [library](const char* name) {
    void* found = dlsym(library, name);
    if (!found) throw DatabaseError(std::string("PostgreSQL's client library is too old, it lacks ") + name, "", false);
    return found;
  };
#define BULKHEAD_LIBPQ_LOAD(name) loaded.name = reinterpret_cast<decltype(&::name)>(take(#name));
  BULKHEAD_LIBPQ(BULKHEAD_LIBPQ_LOAD)
#undef BULKHEAD_LIBPQ_LOAD
  return loaded;
}

}  // namespace

const Libpq& pq() {
  static const Libpq loaded = Load();
  return loaded;
}

}  // namespace bulkhead::sdk
