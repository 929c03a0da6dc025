// The files of migrations/, compiled in (embed_migrations.cmake). Only migrations.cc reads this.
#pragma once

#include <cstddef>
#include <string_view>

namespace bulkhead {

struct EmbeddedFile {
  std::string_view name;
  std::string_view text;
};
extern const EmbeddedFile kOwnMigrations[];
extern const size_t kOwnMigrationCount;

}  // namespace bulkhead
