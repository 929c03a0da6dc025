#include "supervisor/gateway/module_call.h"

#include <sys/socket.h>

#include "bulkhead/link/frame.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/status.h"
#include "supervisor/gateway/request_head.h"

namespace bulkhead {
namespace {

using testing::HasSubstr;

// The head keeps views into `text`.
http1::RequestHead HeadOf(std::string& text) {
  http1::RequestHead head;
  http1::HeadParser parser;
  EXPECT_EQ(parser.Parse(text.data(), text.size(), head), http1::Progress::kComplete);
  return head;
}

absl::StatusOr<CallTerms> Terms(std::string fields) {
  static thread_local std::string text;
  text = "GET /api/v1/m/b/x HTTP/1.1\r\nHost: b\r\n" + fields + "\r\n";
  return ReadCallTerms(HeadOf(text));
}

Manifest ManifestOf(std::string name, std::vector<std::string> dependencies) {
  Manifest manifest;
  manifest.name = std::move(name);
  for (std::string& module : dependencies) manifest.dependencies.push_back({std::move(module), "^1.0.0"});
  return manifest;
}

TEST(CallTerms, AreReadFromTheHeadersOfACall) {
  auto terms = Terms("x-bulkhead-token: abc\r\nX-Bulkhead-Timeout-Ms: 1500\r\nx-bulkhead-hops: 2\r\n");
  ASSERT_TRUE(terms.ok()) << terms.status();
  EXPECT_EQ(terms->token, "abc");
  EXPECT_EQ(terms->timeout, Millis(1500));
  EXPECT_EQ(terms->hops, 2);
  terms = Terms("");
  ASSERT_TRUE(terms.ok());
  EXPECT_TRUE(terms->token.empty());
  EXPECT_EQ(terms->timeout, std::nullopt);
  EXPECT_EQ(terms->hops, 0);
}

TEST(CallTerms, WithTwoTokensHaveNone) { EXPECT_TRUE(Terms("x-bulkhead-token: abc\r\nx-bulkhead-token: abc\r\n")->token.empty()); }

TEST(CallTerms, ThatAreNoWholeNumbersAreRefused) {
  for (const char* fields :
       {"x-bulkhead-timeout-ms: 1.5\r\n", "x-bulkhead-timeout-ms: -1\r\n", "x-bulkhead-timeout-ms:\r\n", "x-bulkhead-timeout-ms: 0x10\r\n",
        "x-bulkhead-timeout-ms: 1\r\nx-bulkhead-timeout-ms: 1\r\n", "x-bulkhead-timeout-ms: 99999999999999999999\r\n",
        "x-bulkhead-hops: one\r\n", "x-bulkhead-hops: 1\r\nx-bulkhead-hops: 1\r\n"}) {
    EXPECT_EQ(ErrorCode(Terms(fields).status()), "INVALID_ARGUMENT") << fields;
  }
}

TEST(CallTerms, HaveNoMoreTimeThanARouteMayHave) {
  EXPECT_EQ(Terms("x-bulkhead-timeout-ms: 999999999999999999\r\n")->timeout, limits::kMaxRouteTimeout);
  EXPECT_EQ(Terms("x-bulkhead-timeout-ms: 0\r\n")->timeout, Millis(0));
}

TEST(CallTerms, OfAChainThatIsTooLongAreALoop) {
  EXPECT_TRUE(Terms("x-bulkhead-hops: " + std::to_string(limits::kMaxCallHops - 1) + "\r\n").ok());
  for (const std::string& hops : {std::to_string(limits::kMaxCallHops), std::string("999999999999")}) {
    EXPECT_EQ(ErrorCode(Terms("x-bulkhead-hops: " + hops + "\r\n").status()), "LOOP_DETECTED");
  }
}

TEST(MayCall, IsForDeclaredDependenciesAlone) {
  const Manifest orders = ManifestOf("orders", {"pricing-engine", "stock"});
  EXPECT_TRUE(MayCall(orders, "pricing-engine").ok());
  EXPECT_TRUE(MayCall(orders, "stock").ok());
  for (const char* other : {"pricing", "pricing-engine2", "", "orders", "mail"}) {
    const absl::Status may = MayCall(orders, other);
    EXPECT_EQ(ErrorCode(may), "MODULE_NOT_A_DEPENDENCY") << other;
    EXPECT_EQ(HttpStatus(ErrorCode(may)), 403);
  }
  EXPECT_THAT(std::string(MayCall(orders, "mail").message()),
              HasSubstr("\"mail\": \"<range of its versions>\" to dependencies.modules in the manifest of orders"));
}

TEST(CallerIdentity, HasThePermissionsThatTheCalledModuleDeclaresAndNoOthers) {
  Manifest called = ManifestOf("pricing-engine", {});
  called.permissions = {"prices:read", "prices:write"};
  auto manifest = std::make_shared<Manifest>(ManifestOf("orders", {"pricing-engine"}));
  manifest->permissions = {"orders:write"};
  const Identity identity = CallerIdentity({manifest, "module:orders"}, called);
  EXPECT_EQ(identity.subject, "module:orders");
  EXPECT_TRUE(identity.roles.empty());
  EXPECT_TRUE(identity.Allows("prices:read", "pricing-engine"));
  EXPECT_FALSE(identity.Allows("orders:write", "pricing-engine"));
  EXPECT_FALSE(identity.Allows("modules:read"));
}

TEST(ModuleCallers, AreKnownByTheirTokensAsLongAsTheyRun) {
  ModuleCallers callers;
  const uint64_t at_first = callers.version();
  callers.Add("one", std::make_shared<Manifest>(ManifestOf("orders", {})));
  callers.Add("two", std::make_shared<Manifest>(ManifestOf("orders", {})));
  EXPECT_GT(callers.version(), at_first);
  ASSERT_NE(callers.Find("one"), nullptr);
  EXPECT_EQ(callers.Find("one")->subject, "module:orders");
  EXPECT_EQ(callers.Find("on"), nullptr);
  EXPECT_EQ(callers.Find(""), nullptr);
  const uint64_t before = callers.version();
  callers.Remove("one");
  EXPECT_GT(callers.version(), before);
  EXPECT_EQ(callers.Find("one"), nullptr);
  EXPECT_NE(callers.Find("two"), nullptr);
}

TEST(ModuleConnections, AreBoundedForEachWhoConnects) {
  ModuleConnections connections;
  auto pair = SocketPair(SOCK_STREAM);
  ASSERT_TRUE(pair.ok());
  std::optional<uint64_t> peer;
  for (size_t i = 0; i < limits::kMaxConnectionsPerModule; ++i) {
    peer = connections.Take(pair->first.get());
    ASSERT_TRUE(peer) << i;
  }
  EXPECT_FALSE(connections.Take(pair->first.get()));
  connections.Release(*peer);
  EXPECT_EQ(connections.Take(pair->first.get()), peer);
}

// What a frame tells of the time, and whether all its lengths fit.
std::string TimeoutOf(const std::string& frame, std::string_view body) {
  const link::Header header = link::GetHeader(frame.data());
  EXPECT_EQ(frame.size(), link::kHeaderSize + header.length);
  EXPECT_EQ(std::string_view(frame).substr(link::kHeaderSize + header.head_length), body);
  link::HeadReader head(std::string_view(frame).substr(link::kHeaderSize, header.head_length));
  std::string_view method, target;
  EXPECT_TRUE(head.Str(method) && head.Str(target));
  std::string found;
  EXPECT_TRUE(link::ForEachPair(head.rest(), [&](std::string_view name, std::string_view value) {
    if (name == kTimeoutHeader) found = value;
  }));
  return found;
}

TEST(LowerTimeout, ChangesWhatAFrameTellsAndNothingElse) {
  std::string text = "POST /api/v1/m/b/x HTTP/1.1\r\nHost: b\r\nContent-Length: 4\r\nx-of-mine: x-bulkhead-timeout-ms\r\n\r\n";
  const http1::RequestHead head = HeadOf(text);
  RequestContext context;
  context.method = "POST";
  context.path = "/x";
  context.request_id = "id";
  context.timeout = Millis(30'000);
  std::string frame;
  ASSERT_TRUE(EncodeRequest(head, context, "body", true, frame));
  EXPECT_EQ(TimeoutOf(frame, "body"), "30000");
  LowerTimeout(frame, Millis(31'000));
  EXPECT_EQ(TimeoutOf(frame, "body"), "30000") << "never more";
  LowerTimeout(frame, Millis(9'999));
  EXPECT_EQ(TimeoutOf(frame, "body"), "9999");
  LowerTimeout(frame, Millis(-5));
  EXPECT_EQ(TimeoutOf(frame, "body"), "1");
}

}  // namespace
}  // namespace bulkhead
