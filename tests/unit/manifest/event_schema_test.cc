// Schemas of the payloads that a module publishes: what may stand in one, and that nothing does which would not be checked.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "supervisor/manifest/manifest.h"
#include "tests/unit/manifest/brief.h"

namespace bulkhead {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> EventErrors(const json& events) {
  return Brief(ParseManifestJson({{"name", "a"}, {"version", "1.0.0"}, {"capabilities", {{"events", events}}}}).errors);
}
std::vector<std::string> EventSchemaErrors(const std::string& schema) {
  return EventErrors({{"publishes", {"a.b"}}, {"schemas", {{"a.b", json::parse(schema)}}}});
}

TEST(EventSchema, WhatTheDatabaseChecksMayStandInIt) {
  EXPECT_THAT(EventSchemaErrors(R"({"type": "object", "required": ["n"], "additionalProperties": false, "description": "what it is",
    "properties": {"n": {"type": ["integer", "null"], "minimum": 1}, "t": {"enum": ["x", 2]}, "c": {"const": {"a": 1}},
                   "l": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 9}, "minItems": 0, "maxItems": 3}, "any": true}})"),
              IsEmpty());
}

TEST(EventSchema, WhatWouldNotBeCheckedIsRefusedWithItsPlace) {
  EXPECT_THAT(EventSchemaErrors(R"({"properties": {"n": {"pattern": "^a"}}})"),
              ElementsAre("/capabilities/events/schemas/a.b/properties/n/pattern INVALID_SCHEMA"));
  EXPECT_THAT(EventSchemaErrors(R"({"type": "float"})"), ElementsAre("/capabilities/events/schemas/a.b/type INVALID_SCHEMA"));
  EXPECT_THAT(EventSchemaErrors(R"({"items": {"minLength": -1}})"), ElementsAre("/capabilities/events/schemas/a.b/items/minLength INVALID_SCHEMA"));
  EXPECT_THAT(EventSchemaErrors("7"), ElementsAre("/capabilities/events/schemas/a.b INVALID_SCHEMA"));
}

TEST(EventSchema, OneOfAnEventThatIsNotPublishedIsRefused) {
  EXPECT_THAT(EventErrors({{"publishes", {"a.b"}}, {"schemas", {{"a.c", json::object()}}}}),
              ElementsAre("/capabilities/events/schemas/a.c UNKNOWN_TOPIC"));
}

}  // namespace
}  // namespace bulkhead
