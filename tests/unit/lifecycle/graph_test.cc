#include "supervisor/lifecycle/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bulkhead {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

GraphNode Node(std::string version, bool enabled, std::vector<DependencySpec> dependencies = {}) {
  return {std::move(version), enabled, std::move(dependencies)};
}

TEST(GraphTest, NamesEachDependencyThatIsMissingDisabledOrOfTheWrongVersion) {
  Graph graph = {{"orders", Node("1.0.0", false, {{"pricing", "^2.0.0"}, {"stock", "*"}, {"users", "1.x"}, {"mail", "*"}})},
                 {"pricing", Node("1.9.0", true)},
                 {"stock", Node("1.0.0", false)},
                 {"users", Node("1.4.0", true)}};
  auto details = UnsatisfiedDependencies(graph, "orders");
  ASSERT_EQ(details.size(), 3u);
  EXPECT_EQ(details[0].code, "WRONG_VERSION");
  EXPECT_EQ(details[0].message, "pricing is 1.9.0, needed is ^2.0.0");
  EXPECT_EQ(details[1].code, "DISABLED");
  EXPECT_EQ(details[2].code, "MISSING");
}

TEST(GraphTest, FindsDependentsAndTellsEnabledOnesApart) {
  Graph graph = {{"a", Node("1.0.0", true)}, {"b", Node("1.0.0", true, {{"a", "*"}})}, {"c", Node("1.0.0", false, {{"a", "*"}})}};
  EXPECT_THAT(Dependents(graph, "a", false), ElementsAre("b", "c"));
  EXPECT_THAT(Dependents(graph, "a", true), ElementsAre("b"));
  EXPECT_THAT(Dependents(graph, "b", false), IsEmpty());
}

TEST(GraphTest, ShowsACycleAsItsPath) {
  Graph graph = {{"a", Node("1.0.0", true, {{"b", "*"}})},
                 {"b", Node("1.0.0", true, {{"c", "*"}})},
                 {"c", Node("1.0.0", true, {{"a", "*"}})},
                 {"d", Node("1.0.0", true, {{"a", "*"}})}};
  EXPECT_THAT(*FindCycle(graph, "a"), ElementsAre("a", "b", "c", "a"));
  EXPECT_FALSE(FindCycle(graph, "d").has_value());
}

}  // namespace
}  // namespace bulkhead
