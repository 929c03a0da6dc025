#include "supervisor/admin/request_text.h"

#include "bulkhead/admin/v1/modules.pb.h"
#include "bulkhead/admin/v1/tokens.pb.h"
#include "bulkhead/admin/v1/types.pb.h"
#include "gtest/gtest.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

using std::string_literals::operator""s;

// The pointers of what is wrong, or "ok".
std::string Wrong(const google::protobuf::Message& message) {
  const absl::Status status = CheckRequestText(message);
  if (status.ok()) return "ok";
  EXPECT_EQ(ErrorCode(status), "INVALID_ARGUMENT");
  std::string pointers;
  for (const ErrorDetail& detail : ErrorDetails(status)) pointers += (pointers.empty() ? "" : " ") + detail.path;
  return pointers;
}

TEST(RequestText, OrdinaryTextOfEveryLanguageIsFine) {
  admin::v1::CreateTokenRequest request;
  request.set_name("caf\u00e9 \u4e2d \U0001F600\x01\n");
  request.add_permissions("");
  EXPECT_EQ(Wrong(request), "ok");
  EXPECT_EQ(Wrong(admin::v1::CreateTokenRequest()), "ok");
}

TEST(RequestText, NulIsFoundInSingleAndRepeatedFieldsByTheirJsonNames) {
  admin::v1::CreateTokenRequest request;
  request.set_name("ci\0x"s);
  request.add_permissions("modules:read");
  request.add_permissions("\0"s);
  EXPECT_EQ(Wrong(request), "/name /permissions/1");
  admin::v1::ListModulesRequest list;
  list.set_sort("name\0"s);
  EXPECT_EQ(Wrong(list), "/sort");
}

TEST(RequestText, AStructIsLookedAtAsTheJsonThatItIsKeysIncluded) {
  admin::v1::SetModuleConfigRequest request;
  auto& fields = *request.mutable_config()->mutable_fields();
  fields["a"].set_string_value("x\0"s);
  auto& list = *fields["list"].mutable_list_value();
  list.add_values()->set_number_value(1);
  (*list.add_values()->mutable_struct_value()->mutable_fields())["k\0/"s].set_bool_value(true);
  const std::string wrong = Wrong(request);
  EXPECT_NE(wrong.find("/config/a"), std::string::npos) << wrong;
  EXPECT_NE(wrong.find("/config/list/1/k\uFFFD~1"), std::string::npos) << wrong;
}

TEST(RequestText, NestedMessagesAreLookedInto) {
  admin::v1::Module module;  // of no request, but of every kind of field
  module.mutable_observed()->mutable_reason()->set_message("\0"s);
  module.add_exits()->set_output("fine");
  module.add_exits()->set_output("\0"s);
  EXPECT_EQ(Wrong(module), "/observed/reason/message /exits/1/output");
}

TEST(RequestText, TheFindingsAreBounded) {
  admin::v1::CreateTokenRequest request;
  for (size_t i = 0; i < 10 * kMaxTextFindings; ++i) request.add_permissions("\0"s);
  EXPECT_EQ(ErrorDetails(CheckRequestText(request)).size(), kMaxTextFindings);
}

}  // namespace
}  // namespace bulkhead
