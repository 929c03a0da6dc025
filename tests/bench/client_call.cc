// What a call through a service client costs beside plain libcurl on the same kept connection: CPU of the calling thread and time, per call, medians of
// rounds in turns. The server is a thread of this process that does next to nothing.
//   build/tests/bench_client_call [calls of a round]
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "bulkhead/client.h"
#include "curl.h"
#include "tests/unit/sdk/http_server.h"

namespace {

using namespace bulkhead::sdk;
constexpr int kRounds = 9;

double Seconds(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

struct Cost {
  double cpu = 0, wall = 0;  // microseconds a call
};

template <typename F>
Cost Measure(int calls, F call) {
  const double cpu = Seconds(CLOCK_THREAD_CPUTIME_ID), wall = Seconds(CLOCK_MONOTONIC);
  for (int i = 0; i < calls; ++i) call();
  return {(Seconds(CLOCK_THREAD_CPUTIME_ID) - cpu) * 1e6 / calls, (Seconds(CLOCK_MONOTONIC) - wall) * 1e6 / calls};
}

size_t Append(char* data, size_t size, size_t count, void* to) {
  static_cast<std::string*>(to)->append(data, size * count);
  return size * count;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Print(const char* what, const std::vector<Cost>& costs) {
  std::vector<double> cpu, wall;
  for (const Cost& cost : costs) {
    cpu.push_back(cost.cpu);
    wall.push_back(cost.wall);
  }
  std::printf("%-28s %8.1f us CPU  %8.1f us\n", what, Median(cpu), Median(wall));
}

}  // namespace

int main(int argc, char** argv) {
  const int calls = argc > 1 ? std::max(1, std::atoi(argv[1])) : 2'000;
  bulkhead::sdk_test::HttpServer server([](const auto&) { return bulkhead::sdk_test::HttpAnswer(200, "{}", "content-type: application/json\r\n"); });
  ClientSettings settings;
  settings.name = "bench";
  settings.base_url = server.url();
  settings.secret_headers = {{"authorization", "Bearer 0123456789"}};
  ServiceClient client(settings);
  const Libcurl& c = curl();
  CURL* easy = c.curl_easy_init();
  curl_slist* headers = c.curl_slist_append(nullptr, "authorization: Bearer 0123456789");
  std::string body;
  const std::string url = server.url() + "/things/7";
  c.curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  c.curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
  c.curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Append);
  c.curl_easy_setopt(easy, CURLOPT_WRITEDATA, &body);
  std::vector<Cost> plain, ours;
  for (int round = 0; round <= kRounds; ++round) {
    const Cost one = Measure(calls, [&] {
      body.clear();
      c.curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
      if (c.curl_easy_perform(easy) != CURLE_OK) abort();
    });
    const Cost other = Measure(calls, [&] {
      if (client.Get("/things/7").status != 200) abort();
    });
    if (round == 0) continue;  // warms up
    plain.push_back(one);
    ours.push_back(other);
  }
  std::printf("%d rounds of %d GETs on a kept connection, medians\n", kRounds, calls);
  Print("plain libcurl", plain);
  Print("ServiceClient", ours);
  c.curl_slist_free_all(headers);
  c.curl_easy_cleanup(easy);
  return 0;
}
