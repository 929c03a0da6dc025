// Filtering, sorting and paging of modules, as ListModules has them. Pure.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "bulkhead/admin/v1/modules.pb.h"
#include "supervisor/lifecycle/modules.h"

namespace bulkhead {

// What ListModules asks for, checked. INVALID_ARGUMENT names the parameter.
class ModuleQuery {
 public:
  static absl::StatusOr<ModuleQuery> Parse(const admin::v1::ListModulesRequest& request);
  struct Result {
    std::vector<ModuleView> modules;  // of the page
    int total = 0;                    // that match
  };
  Result Apply(std::vector<ModuleView> modules) const;
  int page() const { return page_; }
  int page_size() const { return page_size_; }

 private:
  bool Matches(const ModuleView& view) const;
  bool Before(const ModuleView& a, const ModuleView& b) const;

  enum class Key { kName, kVersion, kStatus, kCreatedAt, kUpdatedAt };
  std::optional<RegistryStatus> status_;
  std::string observed_;  // a name; empty: all
  std::string search_;    // lower case
  Key key_ = Key::kName;
  bool descending_ = false;
  int page_ = 1;
  int page_size_ = 0;
};

}  // namespace bulkhead
