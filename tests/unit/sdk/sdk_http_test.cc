// Requests, routes and response shapes, without a process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bulkhead/router.h"

namespace bulkhead::sdk {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

Response Nothing(Request&) { return NoContent(); }

std::string RouteOf(const Router& router, std::string_view method, std::string_view path) {
  Router::Match match = router.Find(method, path);
  return match.route ? match.route->pattern() : "none, allow " + match.allow;
}

TEST(Router, PrefersTextToParametersAndParametersToTheRest) {
  Router router;
  router.Get("/a/*", Nothing);
  router.Get("/a/:id", Nothing);
  router.Get("/a/new", Nothing);
  router.Get("/a/:id/parts", Nothing);
  EXPECT_EQ(RouteOf(router, "GET", "/a/new"), "/a/new");
  EXPECT_EQ(RouteOf(router, "GET", "/a/7"), "/a/:id");
  EXPECT_EQ(RouteOf(router, "GET", "/a/7/parts"), "/a/:id/parts");
  EXPECT_EQ(RouteOf(router, "GET", "/a/7/other"), "/a/*");
  EXPECT_EQ(RouteOf(router, "GET", "/a"), "none, allow ");
  EXPECT_EQ(RouteOf(router, "GET", "/a/"), "/a/*") << "as the gateway's table, where the rest may be empty";
  EXPECT_EQ(router.Find("GET", "/a/").params, (decltype(Router::Match::params){{"*", ""}}));
  EXPECT_EQ(RouteOf(router, "GET", "/a/new/"), "/a/*");
}

TEST(Router, TellsTheMethodsOfAPathItKnows) {
  Router router;
  router.Get("/a", Nothing);
  router.Post("/a", Nothing);
  router.Delete("/b", Nothing);
  EXPECT_EQ(RouteOf(router, "PUT", "/a"), "none, allow GET, HEAD, POST");
  EXPECT_EQ(RouteOf(router, "HEAD", "/a"), "/a");
  EXPECT_EQ(RouteOf(router, "PUT", "/c"), "none, allow ");
}

TEST(Router, RefusesPatternsThatCouldNotBeMeant) {
  Router router;
  EXPECT_THROW(router.Get("a", Nothing), std::invalid_argument);
  EXPECT_THROW(router.Get("/a/*/b", Nothing), std::invalid_argument);
  EXPECT_THROW(router.Get("/a*", Nothing), std::invalid_argument);
  EXPECT_THROW(router.Get("/:", Nothing), std::invalid_argument);
  EXPECT_THROW(router.Get("/a", nullptr), std::invalid_argument);
  router.Get("/:x", Nothing);
  EXPECT_THROW(router.Get("/:y", Nothing), std::invalid_argument);
  EXPECT_THROW(router.Get("/z", Nothing).StreamBody().Inline(), std::invalid_argument);
  router.Freeze();
  EXPECT_THROW(router.Get("/late", Nothing), std::logic_error);
}

TEST(Router, DispatchesAsInProduction) {
  Router router;
  router.Get("/hello/:name", [](Request& request) { return Ok({{"hello", request.param("name")}}); });
  router.Get("/fails", [](Request&) -> Response { throw std::runtime_error("private"); });
  Request hello("GET", "/hello/w%C3%B6rld?x=1", {});
  EXPECT_EQ(router.Dispatch(hello).body, "{\"success\":true,\"data\":{\"hello\":\"w\xC3\xB6rld\"}}");
  Request fails("GET", "/fails", {{"x-request-id", "r-1"}});
  Response failed = router.Dispatch(fails);
  EXPECT_EQ(failed.status, 500);
  EXPECT_EQ(failed.body.find("private"), std::string::npos);
  Json error = Json::parse(failed.body)["error"];
  EXPECT_EQ(error["code"], "INTERNAL");
  EXPECT_EQ(error["requestId"], "r-1");
  Request nowhere("GET", "/nowhere", {});
  EXPECT_EQ(router.Dispatch(nowhere).status, 404);
}

TEST(Request, DecodesPathAndQuery) {
  Request request("GET", "/a%20b/c%2Fd?x=1&x=two+words&empty=&flag&%C3%A4=%26", {});
  EXPECT_EQ(request.path(), "/a b/c/d");
  EXPECT_THAT(request.query(),
              ElementsAre(Pair("x", "1"), Pair("x", "two words"), Pair("empty", ""), Pair("flag", ""), Pair("\xC3\xA4", "&")));
  EXPECT_THAT(request.query_all("x"), ElementsAre("1", "two words"));
  EXPECT_EQ(request.query("missing"), std::nullopt);
}

TEST(Request, KeepsAnEncodedSlashInsideAParameter) {
  Router router;
  router.Get("/a/:x/:y", Nothing);
  EXPECT_THAT(router.Find("GET", "/a/1%2F2/3").params, ElementsAre(Pair("x", "1/2"), Pair("y", "3")));
}

TEST(Request, RefusesWhatDoesNotDecode) {
  for (const char* target : {"/%", "/%4", "/%zz", "/%00", "/a?x=%", "/a?%=1"})
    EXPECT_THROW(Request("GET", target, {}), HttpError) << target;
  std::string many = "/a?";
  for (int i = 0; i < 257; ++i) many += "x=1&";
  EXPECT_THROW(Request("GET", many, {}), HttpError);
}

TEST(Request, ReadsNumbersWithinBounds) {
  Request request("GET", "/a?limit=50&bad=5x&big=99999999999999999999", {});
  EXPECT_EQ(request.query_int("limit", 10, 1, 100), 50);
  EXPECT_EQ(request.query_int("absent", 10, 1, 100), 10);
  EXPECT_THROW(request.query_int("limit", 10, 1, 49), HttpError);
  EXPECT_THROW(request.query_int("bad", 10), HttpError);
  EXPECT_THROW(request.query_int("big", 10), HttpError);
}

TEST(Request, KnowsWhoCalls) {
  Request request(
      "GET", "/",
      {{"x-bulkhead-subject", "anna"}, {"x-bulkhead-roles", "admin, viewer"}, {"x-bulkhead-permissions", "readings:*,jobs:run"}});
  EXPECT_EQ(request.identity().subject, "anna");
  EXPECT_THAT(request.identity().roles, ElementsAre("admin", "viewer"));
  EXPECT_TRUE(request.identity().Allows("readings:read"));
  EXPECT_TRUE(request.identity().Allows("jobs:run"));
  EXPECT_FALSE(request.identity().Allows("jobs:runs"));
  EXPECT_FALSE(request.identity().Allows("readings"));
  EXPECT_FALSE(Request("GET", "/", {}).identity().authenticated());
}

TEST(Request, SaysThatABodyIsNoJson) {
  Request request("POST", "/", {}, "{\"a\":");
  try {
    request.json();
    FAIL();
  } catch (const HttpError& error) {
    EXPECT_EQ(error.status(), 400);
    EXPECT_EQ(error.code(), "INVALID_JSON");
  }
}

TEST(Response, ReplacesInvalidUtf8InsteadOfFailing) {
  EXPECT_EQ(Ok({{"x", "a\xff"}}).body, "{\"success\":true,\"data\":{\"x\":\"a\xEF\xBF\xBD\"}}");
}

TEST(Response, PutsMetaBesideData) {
  EXPECT_EQ(Ok(Json::array(), {{"total", 0}}).body, R"({"success":true,"data":[],"meta":{"total":0}})");
  EXPECT_EQ(Created(1).status, 201);
}

}  // namespace
}  // namespace bulkhead::sdk
