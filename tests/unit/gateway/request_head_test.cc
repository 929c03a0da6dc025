#include "supervisor/gateway/request_head.h"

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "supervisor/base/status.h"
#include "supervisor/gateway/local_service.h"

namespace bulkhead {
namespace {

TEST(RequestId, IsKeptOnlyWhenItIsHarmless) {
  EXPECT_TRUE(ValidRequestId("a.B_9-"));
  EXPECT_TRUE(ValidRequestId(std::string(128, 'a')));
  for (const std::string& id : {std::string(), std::string(129, 'a'), std::string("a b"), std::string("a\"b"), std::string("\xc3\xa4")}) {
    EXPECT_FALSE(ValidRequestId(id)) << id;
  }
}

TEST(ErrorBody, IsOneShapeAndAlwaysJson) {
  std::string body = ErrorBody(Error("INVALID_ARGUMENT", "Say \"why\"\n\x01 \xff", {{"/a", "REQUIRED", "is needed", 7}, {"/b", "", "x"}}), "id\"1");
  auto json = nlohmann::json::parse(body);
  EXPECT_EQ(json["success"], false);
  EXPECT_EQ(json["error"]["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(json["error"]["message"], "Say \"why\"\n\x01 \xef\xbf\xbd");
  EXPECT_EQ(json["error"]["requestId"], "id\"1");
  EXPECT_EQ(json["error"]["details"][0], (nlohmann::json{{"path", "/a"}, {"code", "REQUIRED"}, {"message", "is needed"}, {"line", 7}}));
  EXPECT_FALSE(json["error"]["details"][1].contains("line"));
}

}  // namespace
}  // namespace bulkhead
