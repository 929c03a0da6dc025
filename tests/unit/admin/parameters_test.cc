#include "supervisor/admin/parameters.h"

#include "gtest/gtest.h"
#include "supervisor/admin/module_list.h"

namespace bulkhead {
namespace {

TEST(Wait, ReadsDurationsUpToTenMinutes) {
  const Millis otherwise(60'000);
  EXPECT_EQ(*ParseWait("", otherwise), otherwise);
  EXPECT_EQ(*ParseWait("false", otherwise), Millis(0));
  EXPECT_EQ(*ParseWait("1500ms", otherwise), Millis(1500));
  EXPECT_EQ(*ParseWait("30s", otherwise), Millis(30'000));
  EXPECT_EQ(*ParseWait("2m", otherwise), Millis(120'000));
  EXPECT_EQ(*ParseWait("600s", otherwise), Millis(600'000));
  EXPECT_EQ(*ParseWait("0s", otherwise), Millis(0));
}

TEST(Wait, RefusesWhatIsNoDurationOrTooLong) {
  for (const char* bad : {"soon", "5", "-1s", "1.5s", "s", "30 s", "30S", "1h", "true", "601s", "11m", "99999999999999999999s",
                          "9223372036854775807m", " 1s", "1s "}) {
    const auto parsed = ParseWait(bad, Millis(0));
    EXPECT_EQ(ErrorCode(parsed.status()), "INVALID_ARGUMENT") << bad;
    if (!parsed.ok()) {
      EXPECT_EQ(ErrorDetails(parsed.status())[0].path, "wait");
    }
  }
}

TEST(Paging, HasDefaultsAndBounds) {
  EXPECT_EQ(ParsePage({}, {})->number, 1);
  EXPECT_EQ(ParsePage({}, {})->size, 50);
  EXPECT_EQ(ParsePage(7, 500)->size, 500);
  for (const int page : {0, -1}) EXPECT_FALSE(ParsePage(page, {}).ok());
  for (const int size : {0, -5, 501}) EXPECT_FALSE(ParsePage({}, size).ok());
}

std::vector<ModuleView> ThreeModules() {
  std::vector<ModuleView> views(3);
  const char* names[] = {"beta", "alpha", "gamma"};
  const char* versions[] = {"1.10.0", "1.9.0", "2.0.0-rc.1"};
  for (int i = 0; i < 3; ++i) {
    views[i].row.name = names[i];
    views[i].row.version = versions[i];
    views[i].row.created_at = WallTime(Millis(1000 * (3 - i)));
    Manifest manifest;
    manifest.display_name = std::string("Display ") + names[i];
    manifest.description = i == 0 ? "Reads METERS" : "";
    if (i == 2) manifest.tags = {"Metering"};
    views[i].manifest = std::make_shared<const Manifest>(manifest);
  }
  views[0].row.status = RegistryStatus::kEnabled;
  views[0].observed = ObservedState::kRunning;
  return views;
}

std::string Names(const admin::v1::ListModulesRequest& request) {
  auto query = ModuleQuery::Parse(request);
  if (!query.ok()) return ErrorCode(query.status()) + " " + ErrorDetails(query.status())[0].path;
  std::string names;
  auto result = query->Apply(ThreeModules());
  for (const ModuleView& view : result.modules) names += view.row.name + " ";
  return names + std::to_string(result.total);
}

TEST(ModuleList, SortsByEachKeyBothWays) {
  const auto sorted = [](const char* by) {
    admin::v1::ListModulesRequest request;
    request.set_sort(by);
    return Names(request);
  };
  EXPECT_EQ(sorted(""), "alpha beta gamma 3");
  EXPECT_EQ(sorted("-name"), "gamma beta alpha 3");
  EXPECT_EQ(sorted("version"), "alpha beta gamma 3") << "1.9.0 comes before 1.10.0";
  EXPECT_EQ(sorted("status"), "beta alpha gamma 3");
  EXPECT_EQ(sorted("createdAt"), "gamma alpha beta 3");
  for (const char* bad : {"shoe-size", "-", "--name", "Name"}) EXPECT_EQ(sorted(bad), "INVALID_ARGUMENT sort");
}

TEST(ModuleList, FiltersByStateAndSearchesNamesTextsAndTags) {
  admin::v1::ListModulesRequest request;
  request.set_status("ENABLED");
  EXPECT_EQ(Names(request), "beta 1");
  request.set_status("enabled");
  EXPECT_EQ(Names(request), "INVALID_ARGUMENT status");
  request.Clear();
  request.set_observed("STOPPED");
  EXPECT_EQ(Names(request), "alpha gamma 2");
  request.set_observed("UNSPECIFIED");
  EXPECT_EQ(Names(request), "INVALID_ARGUMENT observed");
  request.Clear();
  request.set_search("meter");
  EXPECT_EQ(Names(request), "beta gamma 2");
  request.set_search("ALPHA");
  EXPECT_EQ(Names(request), "alpha 1");
}

TEST(ModuleList, PagesWithoutLosingTheTotal) {
  admin::v1::ListModulesRequest request;
  request.set_page_size(2);
  EXPECT_EQ(Names(request), "alpha beta 3");
  request.set_page(2);
  EXPECT_EQ(Names(request), "gamma 3");
  request.set_page(2147483647);
  EXPECT_EQ(Names(request), "3");
  request.set_page(0);
  EXPECT_EQ(Names(request), "INVALID_ARGUMENT page");
}

}  // namespace
}  // namespace bulkhead
