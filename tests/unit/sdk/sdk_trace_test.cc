#include "bulkhead/http.h"
#include "bulkhead/trace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bulkhead::sdk {
namespace {

const std::string kTraceDigits = "0af7651916cd43dd8448eb211c80319c", kSpanDigits = "b7ad6b7169203331";
const std::string kWellFormed = "00-" + kTraceDigits + "-" + kSpanDigits + "-01";

TEST(Trace, IsReadAndPassedOn) {
  const TraceContext trace = TraceContext::Parse(kWellFormed, "a=1");
  ASSERT_TRUE(trace.valid());
  EXPECT_EQ(trace.trace_id(), kTraceDigits);
  EXPECT_EQ(trace.span_id(), kSpanDigits);
  EXPECT_TRUE(trace.sampled());
  EXPECT_EQ(trace.traceparent(), kWellFormed);
  EXPECT_THAT(trace.Headers(), testing::ElementsAre(testing::Pair("traceparent", kWellFormed), testing::Pair("tracestate", "a=1")));
}

TEST(Trace, ThatIsMalformedIsNone) {
  for (size_t at = 0; at < kWellFormed.size(); ++at) {
    std::string text = kWellFormed;
    text[at] = 'G';
    EXPECT_FALSE(TraceContext::Parse(text, "a=1").valid()) << text;
    EXPECT_FALSE(TraceContext::Parse(kWellFormed.substr(0, at)).valid()) << at;
  }
  EXPECT_FALSE(TraceContext::Parse(kWellFormed + "0").valid());
  EXPECT_FALSE(TraceContext::Parse("00-" + std::string(32, '0') + "-" + kSpanDigits + "-01").valid());
  const TraceContext none = TraceContext::Parse("rubbish", "a=1");
  EXPECT_EQ(none.traceparent(), "");
  EXPECT_TRUE(none.Headers().empty());
  EXPECT_FALSE(none.Child().valid());
}

TEST(Trace, AChildHasASpanOfItsOwn) {
  const TraceContext trace = TraceContext::Parse("00-" + kTraceDigits + "-" + kSpanDigits + "-00", "a=1"), child = trace.Child();
  EXPECT_EQ(child.trace_id(), kTraceDigits);
  EXPECT_NE(child.span_id(), kSpanDigits);
  EXPECT_NE(child.span_id(), trace.Child().span_id());
  EXPECT_FALSE(child.sampled());
  EXPECT_EQ(child.tracestate(), "a=1");
  EXPECT_TRUE(TraceContext::Parse(child.traceparent()).valid());
}

TEST(Trace, IsTheThreadsWithinItsScope) {
  EXPECT_FALSE(CurrentTrace::Get().valid());
  const Request request("GET", "/", {{"traceparent", kWellFormed}});
  {
    const CurrentTrace::Scope outer(request);
    EXPECT_EQ(CurrentTrace::Get().span_id(), kSpanDigits);
    {
      const CurrentTrace::Scope inner(request.trace().Child());
      EXPECT_NE(CurrentTrace::Get().span_id(), kSpanDigits);
    }
    EXPECT_EQ(CurrentTrace::Get().span_id(), kSpanDigits);
  }
  EXPECT_FALSE(CurrentTrace::Get().valid());
}

}  // namespace
}  // namespace bulkhead::sdk
