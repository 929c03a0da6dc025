#include "supervisor/telemetry/otlp.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "opentelemetry/trace.pb.h"
#include "supervisor/base/limits.h"

namespace bulkhead {
namespace {

namespace pb = ::opentelemetry::proto;

Span FullSpan() {
  Span span;
  span.name = "GET /api/v1/m/echo/echo";
  span.context = {0x0102030405060708, 0x090a0b0c0d0e0f10, 0x1112131415161718, true};
  span.parent = 0x2122232425262728;
  span.tracestate = "a=1";
  span.kind = Span::Kind::kServer;
  span.begin_ns = 1'000;
  span.end_ns = 3'000;
  span.attributes = {{"http.route", std::string("/echo")}, {"http.response.status_code", int64_t{503}}};
  span.events = {{"parked", 2'000, {{"n", int64_t{1}}}}};
  span.failed = true;
  span.message = "no worker";
  return span;
}

pb::ExportTraceServiceRequest Decoded(const std::vector<Span>& spans) {
  pb::ExportTraceServiceRequest request;
  EXPECT_TRUE(request.ParseFromString(EncodeSpans({"1.2.3", "node/1"}, spans)));
  return request;
}

TEST(Otlp, SaysAllOfASpan) {
  const auto request = Decoded({FullSpan()});
  ASSERT_EQ(request.resource_spans_size(), 1);
  const auto& facts = request.resource_spans(0).resource().attributes();
  ASSERT_EQ(facts.size(), 3);
  EXPECT_EQ(facts[0].key(), "service.name");
  EXPECT_EQ(facts[0].value().string_value(), "bulkhead");
  EXPECT_EQ(facts[1].value().string_value(), "1.2.3");
  EXPECT_EQ(facts[2].value().string_value(), "node/1");
  ASSERT_EQ(request.resource_spans(0).scope_spans(0).spans_size(), 1);
  const pb::Span& span = request.resource_spans(0).scope_spans(0).spans(0);
  EXPECT_EQ(span.trace_id(), "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10");
  EXPECT_EQ(span.span_id(), "\x11\x12\x13\x14\x15\x16\x17\x18");
  EXPECT_EQ(span.parent_span_id(), "!\"#$%&'(");
  EXPECT_EQ(span.trace_state(), "a=1");
  EXPECT_EQ(span.flags(), 1u);
  EXPECT_EQ(span.kind(), pb::Span::SPAN_KIND_SERVER);
  EXPECT_EQ(span.start_time_unix_nano(), 1'000u);
  EXPECT_EQ(span.end_time_unix_nano(), 3'000u);
  ASSERT_EQ(span.attributes_size(), 2);
  EXPECT_EQ(span.attributes(0).value().string_value(), "/echo");
  EXPECT_EQ(span.attributes(1).value().int_value(), 503);
  ASSERT_EQ(span.events_size(), 1);
  EXPECT_EQ(span.events(0).name(), "parked");
  EXPECT_EQ(span.events(0).time_unix_nano(), 2'000u);
  EXPECT_EQ(span.events(0).attributes(0).value().int_value(), 1);
  EXPECT_EQ(span.status().code(), pb::Status::STATUS_CODE_ERROR);
  EXPECT_EQ(span.status().message(), "no worker");
}

TEST(Otlp, ARootHasNoParentAndASuccessNoStatus) {
  Span span = FullSpan();
  span.parent = 0;
  span.failed = false;
  const auto request = Decoded({span});
  EXPECT_EQ(request.resource_spans(0).scope_spans(0).spans(0).parent_span_id(), "");
  EXPECT_FALSE(request.resource_spans(0).scope_spans(0).spans(0).has_status());
}

TEST(Otlp, TextsOfStrangersAreUtf8AndShort) {
  Span span = FullSpan();
  span.attributes = {{"url.path", "/\xff" + std::string(10'000, 'a')}};
  span.end_ns = 1;  // the wall clock was set back
  const auto request = Decoded({span});
  const pb::Span& told = request.resource_spans(0).scope_spans(0).spans(0);
  EXPECT_LE(told.attributes(0).value().string_value().size(), limits::kMaxSpanText + 4);
  EXPECT_EQ(told.attributes(0).value().string_value().substr(0, 5), "/\xef\xbf\xbd" "a");
  EXPECT_EQ(told.end_time_unix_nano(), told.start_time_unix_nano());
}

TEST(Otlp, WhatACollectorDidNotTakeIsRead) {
  pb::ExportTraceServiceResponse answer;
  answer.mutable_partial_success()->set_rejected_spans(3);
  answer.mutable_partial_success()->set_error_message("too old");
  EXPECT_EQ(ReadAnswer(answer.SerializeAsString()).spans, 3);
  EXPECT_EQ(ReadAnswer(answer.SerializeAsString()).message, "too old");
  EXPECT_EQ(ReadAnswer("").spans, 0);
  EXPECT_EQ(ReadAnswer("{\"not\": \"protobuf\"}").spans, 0);
  answer.mutable_partial_success()->set_rejected_spans(-3);
  EXPECT_EQ(ReadAnswer(answer.SerializeAsString()).spans, 0);
}

TEST(Otlp, TriesAgainWhereTheSpecificationSaysSo) {
  for (int status : {0, 429, 502, 503, 504}) EXPECT_TRUE(WorthAnotherTry(status)) << status;
  for (int status : {200, 301, 400, 401, 403, 404, 413, 500, 501}) EXPECT_FALSE(WorthAnotherTry(status)) << status;
}

}  // namespace
}  // namespace bulkhead
