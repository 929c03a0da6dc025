#include "supervisor/auth/account_table.h"

#include <algorithm>

namespace bulkhead {

const std::vector<RoleRow>& BuiltInRoles() {
  static const std::vector<RoleRow> roles = {
      {"admin", "Everything.", {"*"}, {}, {}},
      {"operator",
       "Runs modules, jobs, events, flags and migrations, and may everything of every module. Gives no rights away.",
       {"modules:*", "jobs:*", "events:*", "system:*", "flags:*", "migrations:*", "logs:read", "audit:read", "metrics:read", "module:*"},
       {},
       {}},
      {"viewer", "Looks at modules and what they print, jobs, events, flags, migrations and the node.",
       {"modules:read", "jobs:read", "events:read", "system:read", "flags:read", "migrations:read", "logs:read", "metrics:read"}, {}, {}},
  };
  return roles;
}

bool IsBuiltInRole(std::string_view name) {
  const auto& roles = BuiltInRoles();
  return std::any_of(roles.begin(), roles.end(), [&](const RoleRow& role) { return role.name == name; });
}

std::vector<std::string> AccountTable::Permissions(const std::vector<std::string>& role_names, std::vector<std::string> direct) const {
  std::vector<std::string> all = std::move(direct);
  for (const std::string& name : role_names) {
    const auto role = roles.find(name);
    if (role == roles.end()) continue;
    for (const std::string& permission : role->second) {
      if (std::find(all.begin(), all.end(), permission) == all.end()) all.push_back(permission);
    }
  }
  return all;
}

AccountTable MakeAccountTable(const std::vector<RoleRow>& roles, const std::vector<UserRow>& users, const std::vector<std::string>& ended_sessions) {
  AccountTable table;
  for (const RoleRow& role : roles) table.roles[role.name] = role.permissions;
  for (const RoleRow& role : BuiltInRoles()) table.roles[role.name] = role.permissions;
  for (const UserRow& user : users) table.users[user.id] = {user.name, user.roles, user.epoch, user.enabled};
  table.ended_sessions.insert(ended_sessions.begin(), ended_sessions.end());
  return table;
}

}  // namespace bulkhead
