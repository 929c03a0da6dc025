// For the tests of the cache that run without and with Redis.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "supervisor/cache/shared_cache.h"
#include "tests/fakes/redis_fixture.h"

namespace bulkhead {

enum class CacheEngine { kMemory, kRedis };
inline std::string CacheEngineName(const testing::TestParamInfo<CacheEngine>& info) { return info.param == CacheEngine::kRedis ? "Redis" : "Memory"; }

inline std::shared_ptr<const Directory> EnabledModules(const std::vector<std::string>& names, WallTime since = {}, const std::string& version = "1.0.0") {
  auto directory = std::make_shared<Directory>();
  for (const std::string& name : names) {
    auto manifest = std::make_shared<Manifest>();
    manifest->version = version;
    auto module = std::make_shared<DirectoryModule>();
    module->name = name;
    module->manifest = manifest;
    module->enabled_at = since;
    directory->modules[name] = module;
  }
  return directory;
}

// Until Redis is used, or is not.
inline void AwaitRedis(const SharedCache& cache, bool up = true) {
  for (int i = 0; i < 20'000 && cache.RedisUsage()->up != up; ++i) std::this_thread::sleep_for(Millis(1));
  ASSERT_EQ(cache.RedisUsage()->up, up) << cache.RedisUsage()->fault;
}

}  // namespace bulkhead
