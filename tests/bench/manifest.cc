// What it costs to check a manifest, and how that grows with its routes: for each number of routes the median CPU time of several
// rounds, per manifest and per route, and the share of the schema's stage. bench_manifest [ROUNDS]
#include "supervisor/manifest/manifest.h"

#include <malloc.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "supervisor/manifest/manifest_schema.h"

namespace {

using nlohmann::json;

json ManifestWith(int routes) {
  json manifest = {{"name", "bench"}, {"version", "1.0.0"}, {"permissions", json::array()}};
  for (int i = 0; i < 40; ++i) manifest["permissions"].push_back("bench:p" + std::to_string(i));
  json& list = manifest["capabilities"]["api"]["routes"] = json::array();
  const char* methods[] = {"GET", "POST", "PUT", "DELETE"};
  for (int i = 0; i < routes; ++i) {
    // Resources with five routes each, as real ones have them.
    const std::string resource = "/resource-" + std::to_string(i / 5);
    const char* tails[] = {"", "/:id", "/:id/parts", "/:id/parts/:part", "/search/*"};
    list.push_back({{"method", methods[i % 4]},
                    {"path", resource + tails[i % 5]},
                    {"permissions", {"bench:p" + std::to_string(i % 40)}},
                    {"timeout", 15000},
                    {"bodyLimit", 65536},
                    {"handler", "handlers/resource.ts"}});
  }
  return manifest;
}

double MedianMs(int rounds, const std::function<void()>& work) {
  std::vector<double> taken;
  for (int i = 0; i < rounds; ++i) {
    const std::clock_t began = std::clock();
    work();
    taken.push_back(1000.0 * static_cast<double>(std::clock() - began) / CLOCKS_PER_SEC);
  }
  std::nth_element(taken.begin(), taken.begin() + rounds / 2, taken.end());
  return taken[rounds / 2];
}

}  // namespace

int main(int argc, char** argv) {
  // What is freed stays: giving memory back and taking it again costs more than the check, and depends on the kernel.
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  const int rounds = argc > 1 ? std::max(1, atoi(argv[1])) : 21;
  printf("%8s %10s %12s %14s %12s\n", "routes", "ms", "us/route", "schema's ms", "YAML ms");
  for (int routes : {10, 100, 200, 500}) {
    const json document = ManifestWith(routes);
    const std::string text = document.dump(2);
    if (!bulkhead::ParseManifest(text, false).errors.empty()) {
      fprintf(stderr, "the manifest is not valid\n");
      return 1;
    }
    const double all = MedianMs(rounds, [&] { bulkhead::ParseManifest(text, false); });
    const double schema = MedianMs(rounds, [&] { bulkhead::CheckAgainstSchema(document); });
    const double yaml = MedianMs(rounds, [&] { bulkhead::ParseManifest(text, true); });
    printf("%8d %10.2f %12.1f %14.2f %12.2f\n", routes, all, all * 1000 / routes, schema, yaml);
  }
}
