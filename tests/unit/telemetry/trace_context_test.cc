#include "supervisor/telemetry/trace_context.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "supervisor/base/limits.h"

namespace bulkhead {
namespace {

const std::string kTrace = "0af7651916cd43dd8448eb211c80319c", kSpan = "b7ad6b7169203331";
const std::string kGood = "00-" + kTrace + "-" + kSpan + "-01";

bool Parses(const std::string& text) {
  TraceContext context;
  return ParseTraceparent(text, context);
}

TEST(Traceparent, IsReadAndWritten) {
  TraceContext context;
  ASSERT_TRUE(ParseTraceparent(kGood, context));
  EXPECT_EQ(context.trace_high, 0x0af7651916cd43ddu);
  EXPECT_EQ(context.trace_low, 0x8448eb211c80319cu);
  EXPECT_EQ(context.span, 0xb7ad6b7169203331u);
  EXPECT_TRUE(context.sampled);
  EXPECT_EQ(FormatTraceparent(context), kGood);
  EXPECT_EQ(FormatTraceparent(context).size(), kTraceparentSize);
  EXPECT_EQ(TraceId(context), kTrace);
}

// Every byte at every place: what is valid there is exactly what the grammar says.
TEST(Traceparent, IsRefusedForAnyByteThatTheGrammarDoesNotHave) {
  for (size_t at = 0; at < kGood.size(); ++at) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string text = kGood;
      text[at] = char(byte);
      const bool dash = at == 2 || at == 35 || at == 52;
      const bool hex = (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'f');
      // "ff" is the one version that is forbidden; no id is all zero after one change.
      EXPECT_EQ(Parses(text), dash ? byte == '-' : hex) << text;
    }
  }
}

TEST(Traceparent, IsRefusedAtAnyOtherLengthOfVersion00) {
  for (size_t length = 0; length < kGood.size(); ++length) EXPECT_FALSE(Parses(kGood.substr(0, length))) << length;
  for (const char* more : {"-", "-more", "0", " "}) EXPECT_FALSE(Parses(kGood + more)) << more;
}

TEST(Traceparent, OfAVersionToComeIsReadAsFarAsItIsKnown) {
  const std::string rest = "-" + kTrace + "-" + kSpan + "-01";
  for (int version = 1; version < 255; ++version) {
    char digits[3];
    snprintf(digits, sizeof digits, "%02x", version);
    EXPECT_TRUE(Parses(digits + rest)) << digits;
    EXPECT_TRUE(Parses(digits + rest + "-what-comes")) << digits;
    EXPECT_FALSE(Parses(digits + rest + ".what-comes")) << digits;
  }
  EXPECT_FALSE(Parses("ff" + rest));
}

TEST(Traceparent, WithAnIdOfZerosIsRefused) {
  EXPECT_FALSE(Parses("00-" + std::string(32, '0') + "-" + kSpan + "-01"));
  EXPECT_FALSE(Parses("00-" + kTrace + "-" + std::string(16, '0') + "-01"));
  EXPECT_TRUE(Parses("00-" + std::string(31, '0') + "1-" + std::string(15, '0') + "1-01"));
  EXPECT_TRUE(Parses("00-1" + std::string(31, '0') + "-" + kSpan + "-01"));
}

TEST(Traceparent, PassesOnNoFlagButSampled) {
  for (int flags = 0; flags < 256; ++flags) {
    char digits[3];
    snprintf(digits, sizeof digits, "%02x", flags);
    TraceContext context;
    ASSERT_TRUE(ParseTraceparent("00-" + kTrace + "-" + kSpan + "-" + digits, context));
    EXPECT_EQ(FormatTraceparent(context).substr(53), flags & 1 ? "01" : "00");
  }
}

TEST(Traceparent, ThatIsMalformedLeavesTheContextAsItWas) {
  TraceContext context;
  ASSERT_TRUE(ParseTraceparent(kGood, context));
  EXPECT_FALSE(ParseTraceparent("rubbish", context));
  EXPECT_EQ(FormatTraceparent(context), kGood);
}

TEST(Child, KeepsTheTraceAndHasASpanOfItsOwn) {
  Random random(1);
  TraceContext parent;
  ASSERT_TRUE(ParseTraceparent(kGood, parent));
  const TraceContext child = ChildOf(parent, random), other = ChildOf(parent, random);
  EXPECT_EQ(TraceId(child), kTrace);
  EXPECT_TRUE(child.sampled);
  EXPECT_NE(child.span, parent.span);
  EXPECT_NE(child.span, other.span);
  const TraceContext root = ChildOf({}, random), second = ChildOf({}, random);
  EXPECT_TRUE(root.valid());
  EXPECT_NE(TraceId(root), TraceId(second));
}

TEST(Tracestate, OfSeveralFieldsIsOneList) {
  EXPECT_EQ(CombineTracestate({}), "");
  EXPECT_EQ(CombineTracestate({"a=1"}), "a=1");
  EXPECT_EQ(CombineTracestate({"a=1, b=2", " c=3\t,,", "", ","}), "a=1,b=2,c=3");
  EXPECT_EQ(CombineTracestate({"tenant@system=x !y", "0a*_-/z=~"}), "tenant@system=x !y,0a*_-/z=~");
}

TEST(Tracestate, WithAMalformedMemberIsNotPassedOn) {
  for (const char* bad : {"a", "=1", "A=1", "a=", "a=1=2", "a b=1", "a=\x7f", "a=\xc3\xa4", "-a=1", "a=b\tc"}) {
    EXPECT_EQ(CombineTracestate({"good=1", bad}), "") << bad;
  }
  EXPECT_EQ(CombineTracestate({std::string(257, 'k') + "=1"}), "");
}

TEST(Tracestate, OfTooManyMembersIsNotPassedOn) {
  std::string members;
  for (size_t i = 0; i < limits::kMaxTracestateMembers; ++i) members += (i == 0 ? "" : ",") + std::string("k") + std::to_string(i) + "=1";
  EXPECT_EQ(CombineTracestate({members}), members);
  EXPECT_EQ(CombineTracestate({members, "one-more=1"}), "");
}

TEST(Tracestate, ThatIsTooLongLosesItsLongMembersFirstThenTheLast) {
  const std::string large = "large=" + std::string(200, 'x');
  std::string small;
  for (int i = 0; i < 5; ++i) small += (i == 0 ? "" : ",") + std::string("s") + std::to_string(i) + "=" + std::string(90, 'y');
  EXPECT_EQ(CombineTracestate({"first=1", large, small}), "first=1," + small);
  EXPECT_EQ(CombineTracestate({small + ",t=" + std::string(90, 'z')}), small);
  EXPECT_LE(CombineTracestate({large, large, small}).size(), limits::kMaxTracestate);
  const std::string exact = "k=" + std::string(254, 'v') + ",l=" + std::string(253, 'v');  // 512 bytes
  EXPECT_EQ(CombineTracestate({exact}), exact);
}

}  // namespace
}  // namespace bulkhead
