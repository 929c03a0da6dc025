#include "supervisor/admin/rest_request.h"

#include "bulkhead/admin/v1/files.pb.h"
#include "bulkhead/admin/v1/jobs.pb.h"
#include "bulkhead/admin/v1/modules.pb.h"
#include "bulkhead/admin/v1/system.pb.h"
#include "bulkhead/admin/v1/tokens.pb.h"
#include "gtest/gtest.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

const RestRoutes& Routes() {
  static const RestRoutes routes = [] {
    RestRoutes all;
    for (const auto* file :
         {admin::v1::ListModulesRequest::descriptor()->file(), admin::v1::ListJobsRequest::descriptor()->file(),
          admin::v1::ListFilesRequest::descriptor()->file(), admin::v1::GetSystemHealthRequest::descriptor()->file(),
          admin::v1::ListTokensRequest::descriptor()->file()}) {
      for (int i = 0; i < file->service_count(); ++i) all.Add(*file->service(i));
    }
    return all;
  }();
  return routes;
}

std::string Found(const char* method, const char* path) {
  const auto match = Routes().Find(method, path);
  return match.route ? match.route->method->name() : match.allow.empty() ? "404" : "405 " + match.allow;
}

// The request message as text, or the error.
std::string Read(LocalRequest request) {
  const auto match = Routes().Find(request.method, request.path);
  if (!match.route) return "no route";
  auto message = ReadRequest(*match.route, match.values, request);
  if (!message.ok()) return ErrorCode(message.status()) + ": " + std::string(message.status().message());
  return (*message)->ShortDebugString();
}

LocalRequest Get(const char* path, const char* query = "") {
  LocalRequest request;
  request.method = "GET";
  request.path = path;
  request.query = query;
  return request;
}

LocalRequest Post(const char* path, const char* body, const char* query = "", const char* type = "application/json") {
  LocalRequest request = Get(path, query);
  request.method = "POST";
  request.body = body;
  request.content_type = type;
  return request;
}

TEST(Routes, ALastStarTakesTheRestOfThePath) {
  EXPECT_EQ(Found("GET", "/api/v1/modules/m/files"), "ListFiles");
  EXPECT_EQ(Found("GET", "/api/v1/modules/m/files/a"), "GetFile");
  EXPECT_EQ(Found("POST", "/api/v1/modules/m/files/a/b"), "405 GET, HEAD");
  EXPECT_EQ(Found("GET", "/api/v1/modules/m/files/"), "404");
  EXPECT_EQ(Read(Get("/api/v1/modules/m/files/a")), "module: \"m\" name: \"a\"");
  EXPECT_EQ(Read(Get("/api/v1/modules/m/files/a/b c/d.txt")), "module: \"m\" name: \"a/b c/d.txt\"");
  EXPECT_EQ(Read(Get("/api/v1/modules/m/files//a")), "module: \"m\" name: \"/a\"") << "whether that is a name others say";
}

TEST(Routes, AreThoseOfTheInterface) {
  EXPECT_EQ(Found("GET", "/api/v1/modules"), "ListModules");
  EXPECT_EQ(Found("POST", "/api/v1/modules"), "RegisterModule");
  EXPECT_EQ(Found("GET", "/api/v1/modules/x"), "GetModule");
  EXPECT_EQ(Found("DELETE", "/api/v1/modules/x"), "DeleteModule");
  for (const auto& [action, rpc] :
       {std::pair{"install", "InstallModule"}, {"enable", "EnableModule"}, {"disable", "DisableModule"}}) {
    EXPECT_EQ(Found("POST", (std::string("/api/v1/modules/x/") + action).c_str()), rpc);
  }
  EXPECT_EQ(Found("PUT", "/api/v1/modules/x/status"), "SetModuleStatus");
  EXPECT_EQ(Found("POST", "/api/v1/modules/x/jobs/y/run"), "RunJob");
  EXPECT_EQ(Found("GET", "/api/v1/modules/x/jobs"), "ListJobs");
  EXPECT_EQ(Found("GET", "/api/v1/modules/x/jobs/y/runs"), "ListRuns");
  EXPECT_EQ(Found("GET", "/api/v1/runs/z"), "GetRun");
  EXPECT_EQ(Found("GET", "/api/v1/system/modules"), "GetSystemHealth");
  EXPECT_EQ(Found("DELETE", "/api/v1/tokens/t"), "DeleteToken");
}

TEST(Routes, PreferTheLiteralPathAndTellWhichMethodsThereAre) {
  EXPECT_EQ(Found("POST", "/api/v1/modules/validate"), "ValidateManifest");
  EXPECT_EQ(Found("GET", "/api/v1/modules/validate"), "405 POST");
  EXPECT_EQ(Found("PATCH", "/api/v1/modules"), "405 GET, HEAD, POST");
  EXPECT_EQ(Found("POST", "/api/v1/modules/x"), "405 DELETE, GET, HEAD");
  for (const char* path : {"/", "/api/v1", "/api/v1/modules/", "/api/v1/modules//enable", "/api/v1/modules/x/y",
                           "/api/v1/Modules", "//api/v1/modules"}) {
    EXPECT_EQ(Found("GET", path), "404") << path;
  }
}

TEST(Request, TakesPathAndQuery) {
  EXPECT_EQ(Read(Get("/api/v1/modules", "page=2&pageSize=10&sort=-name&search=a%20b+c&status=")),
            R"(search: "a b c" sort: "-name" page: 2 page_size: 10)");
  EXPECT_EQ(Read(Get("/api/v1/modules/x")), R"(name: "x")");
  LocalRequest del = Get("/api/v1/modules/x", "purge=true");
  del.method = "DELETE";
  EXPECT_EQ(Read(del), R"(name: "x" purge: true)");
}

TEST(Request, NamesTheParameterThatIsWrong) {
  EXPECT_EQ(Read(Get("/api/v1/modules", "page=x")), "INVALID_ARGUMENT: The parameter page must be a whole number, not \"x\".");
  EXPECT_EQ(Read(Get("/api/v1/modules", "page=99999999999")),
            "INVALID_ARGUMENT: The parameter page is out of range, not \"99999999999\".");
  EXPECT_EQ(Read(Get("/api/v1/modules", "page=1&page=2")), "INVALID_ARGUMENT: The parameter page is given twice.");
  EXPECT_EQ(Read(Get("/api/v1/modules", "serach=x")),
            "INVALID_ARGUMENT: The parameter serach is not known; known are status, observed, search, sort, page, pageSize.");
  EXPECT_EQ(Read(Get("/api/v1/modules", "page_size=3")).substr(0, 49), "INVALID_ARGUMENT: The parameter page_size is not ");
  EXPECT_EQ(Read(Get("/api/v1/modules", "search=%zz")), "INVALID_ARGUMENT: The parameter search is not percent-encoded UTF-8.");
  EXPECT_EQ(Read(Get("/api/v1/modules/x", "name=y")),
            "INVALID_ARGUMENT: The parameter name is not known; this call takes none in the query.");
  EXPECT_EQ(Read(Get("/api/v1/modules/x", "deep=1")),
            "INVALID_ARGUMENT: The parameter deep is not known; this call takes none in the query.");
  EXPECT_EQ(Read(Get("/api/v1/modules/a\xff")), "INVALID_ARGUMENT: The parameter name in the path must be UTF-8.");
  LocalRequest del = Get("/api/v1/modules/x", "purge=yes");
  del.method = "DELETE";
  EXPECT_EQ(Read(del), "INVALID_ARGUMENT: The parameter purge must be true or false, not \"yes\".");
}

TEST(Request, TakesTheBodyBesideTheQuery) {
  EXPECT_EQ(Read(Post("/api/v1/modules/x/enable", "")), R"(name: "x")");
  EXPECT_EQ(Read(Post("/api/v1/modules/x/enable", "{}", "wait=30s")), R"(name: "x" wait: "30s")");
  EXPECT_EQ(Read(Post("/api/v1/modules/x/enable", R"({"wait":"5s"})")), R"(name: "x" wait: "5s")");
  EXPECT_EQ(Read(Post("/api/v1/modules/x/enable", R"({"wait":"5s"})", "wait=30s")),
            "INVALID_ARGUMENT: The parameter wait is given in the query and in the body.");
  EXPECT_EQ(Read(Post("/api/v1/modules/x/jobs/y/run", R"({"payload":{"a":1}})", "wait=1s")),
            R"(module: "x" job: "y" payload { struct_value { fields { key: "a" value { number_value: 1 } } } } wait: "1s")");
  EXPECT_EQ(Read(Post("/api/v1/modules/x/jobs/y/run", "", "payload=1")).substr(0, 48),
            "INVALID_ARGUMENT: The parameter payload is not k");
  EXPECT_EQ(Read(Post("/api/v1/modules/x/enable", R"({"name":"y"})")),
            "INVALID_ARGUMENT: The field /name is given by the path or a header and has no place in the body.");
}

TEST(Request, WantsJsonAsWhatItSaysItIs) {
  EXPECT_EQ(Read(Post("/api/v1/modules/x/enable", "{}", "", "application/x-www-form-urlencoded")).substr(0, 22),
            "UNSUPPORTED_MEDIA_TYPE");
  EXPECT_EQ(Read(Post("/api/v1/modules/x/enable", "{}", "", "")).substr(0, 22), "UNSUPPORTED_MEDIA_TYPE");
  EXPECT_EQ(Read(Post("/api/v1/modules/x/enable", "{}", "", "application/jsonp")).substr(0, 22), "UNSUPPORTED_MEDIA_TYPE");
  EXPECT_EQ(Read(Post("/api/v1/modules/x/enable", "{}", "", "Application/JSON ; charset=utf-8")), R"(name: "x")");
  EXPECT_EQ(Read(Post("/api/v1/modules/x/enable", "", "", "text/plain")), R"(name: "x")") << "no body, no type";
  EXPECT_EQ(Read(Post("/api/v1/modules/x/enable", "{")).substr(0, 12), "INVALID_JSON");
}

TEST(Request, ReadsTheGenerationFromIfMatch) {
  LocalRequest request = Post("/api/v1/modules/x/disable", "");
  for (const auto& [header, wanted] : {std::pair{"\"7\"", R"(name: "x" if_generation: 7)"},
                                       {"7", R"(name: "x" if_generation: 7)"},
                                       {"*", R"(name: "x")"},
                                       {"", R"(name: "x")"}}) {
    request.if_match = header;
    EXPECT_EQ(Read(request), wanted) << header;
  }
  for (const char* header : {"\"abc\"", "W/\"7\"", "\"7\", \"8\"", "\"\""}) {
    request.if_match = header;
    EXPECT_EQ(Read(request).substr(0, 19), "PRECONDITION_FAILED") << header;
  }
  request.if_match.clear();
  request.query = "ifGeneration=7";
  EXPECT_EQ(Read(request).substr(0, 16), "INVALID_ARGUMENT");
}

}  // namespace
}  // namespace bulkhead
