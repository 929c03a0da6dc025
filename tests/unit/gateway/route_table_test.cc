#include "supervisor/gateway/route_table.h"

#include "gtest/gtest.h"

namespace bulkhead {
namespace {

RouteTable Table(const std::vector<std::pair<std::string, std::string>>& routes) {
  auto manifest = std::make_shared<Manifest>();
  for (const auto& [method, path] : routes) {
    RouteSpec route;
    route.method = method;
    route.path = path;
    manifest->routes.push_back(route);
  }
  return RouteTable(manifest);
}

std::string Path(const RouteTable& table, std::string_view method, std::string_view path) {
  auto match = table.Find(method, path);
  return match.route ? match.route->method + " " + match.route->path : "";
}

TEST(RouteTable, PrefersLiteralsThenParametersThenTheWildcard) {
  auto table = Table({{"GET", "/a/*"}, {"GET", "/a/:id"}, {"GET", "/a/b"}, {"GET", "/a/:id/c"}, {"GET", "/"}});
  EXPECT_EQ(Path(table, "GET", "/a/b"), "GET /a/b");
  EXPECT_EQ(Path(table, "GET", "/a/x"), "GET /a/:id");
  EXPECT_EQ(Path(table, "GET", "/a/b/c"), "GET /a/:id/c");
  EXPECT_EQ(Path(table, "GET", "/a/b/d"), "GET /a/*");
  EXPECT_EQ(Path(table, "GET", "/a/"), "GET /a/*") << "a parameter is never empty";
  EXPECT_EQ(Path(table, "GET", "/a"), "");
  EXPECT_EQ(Path(table, "GET", "/"), "GET /");
  EXPECT_EQ(Path(table, "GET", "//"), "");
}

TEST(RouteTable, TakesTheMethodIntoTheMatch) {
  auto table = Table({{"POST", "/a/b"}, {"GET", "/a/:id"}, {"DELETE", "/a/*"}});
  EXPECT_EQ(Path(table, "POST", "/a/b"), "POST /a/b");
  EXPECT_EQ(Path(table, "GET", "/a/b"), "GET /a/:id");
  EXPECT_EQ(Path(table, "DELETE", "/a/b"), "DELETE /a/*");
}

TEST(RouteTable, NamesWhatIsAllowed) {
  auto table = Table({{"POST", "/a"}, {"GET", "/a"}, {"PUT", "/:x"}});
  auto match = table.Find("PATCH", "/a");
  EXPECT_EQ(match.route, nullptr);
  EXPECT_EQ(RouteTable::AllowHeader(match.allowed), "GET, HEAD, POST, PUT");
  EXPECT_NE(table.Find("BREW", "/a").allowed, 0u);
  EXPECT_EQ(table.Find("GET", "/a/b").allowed, 0u);
}

TEST(RouteTable, LetsGetAnswerHead) {
  auto table = Table({{"GET", "/a"}, {"HEAD", "/b"}, {"GET", "/b"}});
  EXPECT_TRUE(table.Find("HEAD", "/a").head_as_get);
  auto own = table.Find("HEAD", "/b");
  EXPECT_EQ(own.route->method, "HEAD");
  EXPECT_FALSE(own.head_as_get);
}

TEST(RouteTable, ComparesDecodedSegmentsAsTheModuleDoes) {
  auto table = Table({{"GET", "/admin"}, {"GET", "/:any"}, {"GET", "/x y"}});
  EXPECT_EQ(Path(table, "GET", "/adm%69n"), "GET /admin") << "else a public parameter route would authorise it";
  EXPECT_EQ(Path(table, "GET", "/a%2Fb"), "GET /:any") << "an escaped slash stays within its segment";
  EXPECT_EQ(Path(table, "GET", "/x%20y"), "GET /x y");
}

}  // namespace
}  // namespace bulkhead
