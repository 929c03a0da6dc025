// Roles, users and ended sessions at one moment, for whoever verifies a token. Immutable; no I/O.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "supervisor/auth/credential_store.h"

namespace bulkhead {

// admin: everything. operator: runs the node and its modules, and gives no rights away. viewer: looks at it.
const std::vector<RoleRow>& BuiltInRoles();
bool IsBuiltInRole(std::string_view name);

struct AccountTable {
  struct User {
    std::string name;
    std::vector<std::string> roles;
    int64_t epoch = 0;
    bool enabled = false;
  };
  std::map<std::string, std::vector<std::string>, std::less<>> roles;  // name → permissions, the built-in ones included
  std::map<std::string, User, std::less<>> users;                      // by id
  std::set<std::string, std::less<>> ended_sessions;

  // Those of the roles, of which unknown ones give nothing, and `direct`; each once.
  std::vector<std::string> Permissions(const std::vector<std::string>& role_names, std::vector<std::string> direct) const;
};

AccountTable MakeAccountTable(const std::vector<RoleRow>& roles, const std::vector<UserRow>& users, const std::vector<std::string>& ended_sessions);

}  // namespace bulkhead
