#include "supervisor/admin/module_list.h"

#include <algorithm>
#include <utility>

#include "supervisor/admin/parameters.h"
#include "supervisor/manifest/semver.h"

namespace bulkhead {
namespace {

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c += 'a' - 'A';
  }
  return lower;
}

// Versions that are none come first, by their text.
int CompareVersions(const std::string& a, const std::string& b) {
  const auto left = ParseSemVer(a), right = ParseSemVer(b);
  if (left && right && *left != *right) return *left < *right ? -1 : 1;
  if (left.has_value() != right.has_value()) return left ? 1 : -1;
  return a.compare(b);
}

template <typename T>
int Compare(const T& a, const T& b) {
  return a < b ? -1 : b < a ? 1 : 0;
}

}  // namespace

absl::StatusOr<ModuleQuery> ModuleQuery::Parse(const admin::v1::ListModulesRequest& request) {
  ModuleQuery query;
  if (!request.status().empty()) {
    query.status_ = ParseRegistryStatus(request.status());
    if (!query.status_) return BadParameter("status", "must be one of " + EnumNames(*admin::v1::RegistryState::Enum_descriptor()));
  }
  if (!request.observed().empty()) {
    admin::v1::ObservedState::Enum observed;
    if (!admin::v1::ObservedState::Enum_Parse(request.observed(), &observed) ||
        observed == admin::v1::ObservedState::UNSPECIFIED) {
      return BadParameter("observed", "must be one of " + EnumNames(*admin::v1::ObservedState::Enum_descriptor()));
    }
    query.observed_ = request.observed();
  }
  query.search_ = Lower(request.search());
  std::string_view sort = request.sort();
  if (sort.starts_with('-')) {
    query.descending_ = true;
    sort.remove_prefix(1);
  }
  constexpr std::pair<std::string_view, Key> kKeys[] = {
      {"", Key::kName},         {"name", Key::kName},           {"version", Key::kVersion},
      {"status", Key::kStatus}, {"createdAt", Key::kCreatedAt}, {"updatedAt", Key::kUpdatedAt}};
  const auto* key = std::find_if(std::begin(kKeys), std::end(kKeys), [&](const auto& k) { return k.first == sort; });
  if (key == std::end(kKeys) || request.sort() == "-") {
    return BadParameter("sort",
                        "must be one of name, version, status, createdAt, updatedAt, with a \"-\" in front for descending");
  }
  query.key_ = key->second;
  ASSIGN_OR_RETURN(const Page page, PageOf(request));
  query.page_ = page.number;
  query.page_size_ = page.size;
  return query;
}

bool ModuleQuery::Matches(const ModuleView& view) const {
  if (status_ && view.row.status != *status_) return false;
  if (!observed_.empty() && ObservedStateName(view.observed) != observed_) return false;
  if (search_.empty()) return true;
  const auto contains = [&](const std::string& text) { return Lower(text).find(search_) != std::string::npos; };
  if (contains(view.row.name)) return true;
  if (!view.manifest) return false;
  return contains(view.manifest->display_name) || contains(view.manifest->description) ||
         std::any_of(view.manifest->tags.begin(), view.manifest->tags.end(), contains);
}

bool ModuleQuery::Before(const ModuleView& a, const ModuleView& b) const {
  int order = 0;
  switch (key_) {
    case Key::kName: break;
    case Key::kVersion: order = CompareVersions(a.row.version, b.row.version); break;
    case Key::kStatus: order = Compare(RegistryStatusName(a.row.status), RegistryStatusName(b.row.status)); break;
    case Key::kCreatedAt: order = Compare(a.row.created_at, b.row.created_at); break;
    case Key::kUpdatedAt: order = Compare(a.row.updated_at, b.row.updated_at); break;
  }
  if (order == 0) order = a.row.name.compare(b.row.name);  // names are unique, so pages never overlap
  return descending_ ? order > 0 : order < 0;
}

ModuleQuery::Result ModuleQuery::Apply(std::vector<ModuleView> modules) const {
  Result result;
  std::erase_if(modules, [&](const ModuleView& view) { return !Matches(view); });
  result.total = static_cast<int>(modules.size());
  std::sort(modules.begin(), modules.end(), [&](const ModuleView& a, const ModuleView& b) { return Before(a, b); });
  const size_t first = std::min(modules.size(), (static_cast<size_t>(page_) - 1) * static_cast<size_t>(page_size_));
  const size_t last = std::min(modules.size(), first + static_cast<size_t>(page_size_));
  result.modules.assign(std::make_move_iterator(modules.begin() + static_cast<std::ptrdiff_t>(first)),
                        std::make_move_iterator(modules.begin() + static_cast<std::ptrdiff_t>(last)));
  return result;
}

}  // namespace bulkhead
