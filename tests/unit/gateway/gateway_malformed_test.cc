// The corpus through the real gateway: each request is refused, its connection closed, and the module sees nothing of it, nor of the
// request that was hidden behind it.
#include "supervisor/base/status.h"
#include "tests/unit/gateway/gateway_fixture.h"
#include "tests/unit/gateway/malformed_corpus.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;

const std::string kHidden = "GET /api/v1/m/m/hidden HTTP/1.1\r\nHost: a\r\n\r\n";

// The request with the target moved below the module, whose routes take everything there, and whether it has one to move.
std::pair<std::string, bool> AimedAtTheModule(std::string request) {
  size_t at = request.find(" /");
  if (at == std::string::npos || at > request.find('\n')) return {std::move(request), false};
  request.insert(at + 1, "/api/v1/m/m");
  return {std::move(request), true};
}

TEST_F(GatewayTest, RefusesEveryMalformedHeadBeforeTheModuleSeesAnything) {
  auto& module = AddWorker(Answer("ok"));
  Publish({Route("GET", "/*"), Route("POST", "/*")});
  int aimed = 0;
  for (const Malformed& entry : MalformedHeads()) {
    SCOPED_TRACE(entry.section);
    auto [request, at_module] = AimedAtTheModule(entry.request);
    aimed += at_module;
    HttpClient client = Client();
    client.Send(request + kHidden);
    HttpResponse r = client.Read();
    EXPECT_EQ(r.status, HttpStatus(entry.code.c_str()));
    EXPECT_THAT(r.body, HasSubstr(entry.code));
    EXPECT_EQ(r.Header("connection"), "close");
    EXPECT_TRUE(client.AtEnd()) << "a second answer: " << client.buffered();
  }
  EXPECT_EQ(module.counts().requests, 0) << module.counts().last.target;
  EXPECT_GE(aimed, 95) << "nothing can be seen of a request that would not have reached the module anyway";
}

TEST_F(GatewayTest, CancelsARequestWhoseChunksAreMalformedAndNeverEndsIt) {
  std::atomic<int> ended{0};
  auto& module = AddWorker([&](FakeLinkModule& m, FakeRequest& r) {
    ++ended;
    m.Respond(r, 200, {}, "ended");
  });
  RouteSpec route = Route("POST", "/x");
  Publish({route, Route("GET", "/*")});
  int sent = 0;
  for (const MalformedBody& entry : MalformedChunks()) {
    SCOPED_TRACE(entry.section);
    HttpClient client = Client();
    client.Send("POST /api/v1/m/m/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + entry.chunks + kHidden);
    HttpResponse r = client.Read();
    EXPECT_EQ(r.status, 400);
    EXPECT_EQ(r.Header("connection"), "close");
    EXPECT_TRUE(client.AtEnd()) << "a second answer: " << client.buffered();
    ++sent;
    EXPECT_TRUE(module.WaitFor([&](const auto& c) { return c.cancels == sent; }));
  }
  EXPECT_EQ(ended, 0);
  EXPECT_EQ(module.counts().requests, sent) << "what was hidden behind a body was answered";
}

}  // namespace
}  // namespace bulkhead
