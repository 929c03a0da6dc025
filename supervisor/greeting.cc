#include "supervisor/greeting.h"

#include <cstdio>

namespace bulkhead {

void Greet(const std::string& url, const std::string& show_token, bool sample) {
  printf("bulkhead ready %s\n\n", url.c_str());
  const char* header = "-H \"Authorization: Bearer $TOKEN\"";
  printf("Try next, in another terminal:\n");
  printf("  TOKEN=$(%s)\n", show_token.c_str());
  printf("  curl %s %s/api/v1/modules\n", header, url.c_str());
  if (sample) {
    printf("  curl -X POST %s \"%s/api/v1/modules/consumption-monitor/jobs/collect-readings/run?wait=30s\"\n", header, url.c_str());
    printf("  curl %s %s/api/v1/m/consumption-monitor/live\n", header, url.c_str());
  } else {
    printf("  curl %s %s/api/v1/system/modules\n", header, url.c_str());
  }
  fflush(stdout);
}

}  // namespace bulkhead
