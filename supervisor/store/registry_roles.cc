// Role and schema of a module, made so that the module can do what it likes in there and nothing anywhere else. Works for a
// superuser (the private cluster) and for an owner of the database with CREATEROLE (an operator's).
#include <libpq-fe.h>

#include <algorithm>

#include "supervisor/base/digest.h"
#include "supervisor/base/limits.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"
#include "supervisor/store/registry.h"

namespace bulkhead {
namespace {

constexpr size_t kMaxIdentifier = 63;  // bytes; PostgreSQL cuts what is longer
constexpr size_t kHashDigits = 8;
constexpr char kStatementTimeout[] = "5min";
constexpr char kIdleInTransactionTimeout[] = "60s";
// One at a time per database: GRANTs on one schema by two sessions end in "tuple concurrently updated". On a table that no module can
// reach: an advisory lock could be taken by any of them, to keep all others from being prepared.
constexpr char kLockRoles[] = "LOCK TABLE bulkhead_internal.module_roles IN SHARE ROW EXCLUSIVE MODE";
constexpr char kInsufficientPrivilege[] = "42501";
constexpr char kFingerprintLabel[] = "bulkhead master key fingerprint";

// prefix + name, or a cut name with the beginning of its hash when that is too long or would not be unique.
std::string Identifier(const std::string& prefix, const std::string& name, std::string shown, bool ambiguous) {
  if (!ambiguous && prefix.size() + shown.size() <= kMaxIdentifier) return prefix + shown;
  const size_t room = kMaxIdentifier - prefix.size() - 1 - kHashDigits;
  return prefix + shown.substr(0, room) + "_" + DigestHex(name).substr(0, kHashDigits);
}

std::string RoleName(const std::string& prefix, const std::string& module) { return Identifier(prefix, module, module, false); }

std::string SchemaName(const std::string& module) {
  std::string shown = module;
  bool ambiguous = false;  // "a-b" and "a_b" must not share a schema
  for (char& c : shown) {
    if (c == '-') c = '_';
    else if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))) ambiguous = true;
  }
  return Identifier("mod_", module, shown, ambiguous);
}

std::string Quoted(const std::string& identifier) {
  std::string quoted = "\"";
  for (const char c : identifier) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

// Of a value without backslashes: a SCRAM verifier, hex, a name.
std::string Literal(const std::string& value) {
  std::string quoted = "'";
  for (const char c : value) quoted += c == '\'' ? "''" : std::string(1, c);
  return quoted + "'";
}

std::string ConninfoValue(const std::string& value) {
  std::string quoted = "'";
  for (const char c : value) {
    if (c == '\'' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "'";
}

// Where the supervisor is connected to, as another role. The supervisor's own key and certificate stay its own.
std::string ConninfoFor(Connection& connection, const std::string& module, const std::string& role, const std::string& password) {
  constexpr std::string_view kKept[] = {"host", "hostaddr", "port", "dbname", "sslmode", "sslrootcert", "sslcrl", "target_session_attrs"};
  std::string conninfo;
  PQconninfoOption* options = PQconninfo(connection.raw());
  for (const PQconninfoOption* option = options; option && option->keyword; ++option) {
    if (!option->val || !*option->val || std::find(std::begin(kKept), std::end(kKept), option->keyword) == std::end(kKept)) continue;
    conninfo += std::string(option->keyword) + "=" + ConninfoValue(option->val) + " ";
  }
  PQconninfoFree(options);
  return conninfo + "user=" + ConninfoValue(role) + " password=" + ConninfoValue(password) +
         " application_name=" + ConninfoValue(("bulkhead/" + module).substr(0, kMaxIdentifier));
}

// The password as the server keeps it, made here: neither the server's log nor pg_stat_activity ever sees the password.
absl::StatusOr<std::string> Verifier(Connection& connection, const std::string& role, const std::string& password) {
  char* verifier = PQencryptPasswordConn(connection.raw(), password.c_str(), role.c_str(), "scram-sha-256");
  if (!verifier) return Error("DATABASE_ERROR", std::string("a SCRAM verifier could not be made: ") + PQerrorMessage(connection.raw()));
  std::string text = verifier;
  PQfreemem(verifier);
  return text;
}

absl::Status ExtensionUnavailable(const std::string& extension, std::string sentence) {
  return Error("EXTENSION_UNAVAILABLE", std::move(sentence), {{.path = "/database/extensions", .code = "EXTENSION_UNAVAILABLE", .message = extension}});
}

absl::Status MakeExtension(Connection& c, const std::string& extension) {
  ASSIGN_OR_RETURN(const Rows known, c.Run("SELECT FROM pg_available_extensions WHERE name = $1", {extension}));
  if (known.size() == 0) return ExtensionUnavailable(extension, "the PostgreSQL server has no extension \"" + extension + "\". Install its package there");
  const std::string create = "CREATE EXTENSION IF NOT EXISTS " + Quoted(extension) + " SCHEMA bulkhead_extensions";
  const absl::Status made = c.Run(create).status();
  if (SqlState(made) == kInsufficientPrivilege) {
    return ExtensionUnavailable(extension, std::string("the supervisor's database role ") + PQuser(c.raw()) + " may not make the PostgreSQL extension \"" +
                                               extension + "\". Let a superuser do it: " + create);
  }
  // Such as another one that it wants, and that the module has to name before it.
  if (SqlState(made).empty()) return made;
  return ExtensionUnavailable(extension, "the PostgreSQL extension \"" + extension + "\" can't be made: " + std::string(made.message()));
}

// The schemas in which the extensions are (an operator may have put one elsewhere), made available to `role`.
absl::StatusOr<std::vector<std::string>> EnsureExtensions(Connection& c, const std::string& role, const std::vector<std::string>& extensions) {
  std::vector<std::string> schemas;
  for (const std::string& extension : extensions) {
    constexpr char kWhere[] = "SELECT n.nspname AS schema FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = $1";
    ASSIGN_OR_RETURN(Rows rows, c.Run(kWhere, {extension}));
    if (rows.size() == 0) {
      RETURN_IF_ERROR(MakeExtension(c, extension));
      ASSIGN_OR_RETURN(rows, c.Run(kWhere, {extension}));
    }
    const std::string schema = rows.Text(0, "schema");
    if (std::find(schemas.begin(), schemas.end(), schema) != schemas.end()) continue;
    ASSIGN_OR_RETURN(const Rows usable, c.Run("SELECT has_schema_privilege($1, $2, 'USAGE') AS yes", {role, schema}));
    if (!usable.Bool(0, "yes")) RETURN_IF_ERROR(c.Run("GRANT USAGE ON SCHEMA " + Quoted(schema) + " TO " + Quoted(role)).status());
    schemas.push_back(schema);
  }
  return schemas;
}

// A role without any right; an existing one of that name that has more is not ours.
absl::Status EnsureRole(Connection& c, const std::string& role) {
  ASSIGN_OR_RETURN(const Rows rows, c.Run("SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls AS mighty "
                                          "FROM pg_roles WHERE rolname = $1", {role}));
  if (rows.size() == 0) {
    RETURN_IF_ERROR(c.Run("CREATE ROLE " + Quoted(role) + " NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS").status());
  } else if (rows.Bool(0, "mighty")) {
    return Error("DATABASE_ERROR", "the database role " + role + " exists with more rights than a module may have: drop it");
  }
  // Who is no superuser gives things only to roles it is a member of.
  ASSIGN_OR_RETURN(const Rows member, c.Run("SELECT pg_has_role(current_user, $1, 'MEMBER') AS yes", {role}));
  if (member.Bool(0, "yes")) return absl::OkStatus();
  return c.Run("GRANT " + Quoted(role) + " TO current_user").status();
}

absl::Status EnsureOwnedSchema(Connection& c, const std::string& role, const std::string& schema) {
  ASSIGN_OR_RETURN(const Rows rows, c.Run("SELECT pg_get_userbyid(nspowner) AS owner FROM pg_namespace WHERE nspname = $1", {schema}));
  if (rows.size() == 0) return c.Run("CREATE SCHEMA " + Quoted(schema) + " AUTHORIZATION " + Quoted(role)).status();
  if (rows.Text(0, "owner") == role) return absl::OkStatus();
  return Error("DATABASE_ERROR", "the database schema " + schema + " exists and belongs to " + rows.Text(0, "owner") + ", not to " + role);
}

}  // namespace

absl::Status Registry::CheckExtensions(const std::string& module, const std::vector<std::string>& extensions) const {
  const std::vector<std::string> allowed = allowed_extensions_.With([](const auto& now) { return now; });
  std::vector<ErrorDetail> refused;
  std::string names;
  for (size_t i = 0; i < extensions.size(); ++i) {
    if (std::find(allowed.begin(), allowed.end(), extensions[i]) != allowed.end()) continue;
    refused.push_back({.path = "/database/extensions/" + std::to_string(i), .code = "EXTENSION_NOT_ALLOWED", .message = extensions[i]});
    names += (names.empty() ? "\"" : ", \"") + extensions[i] + "\"";
  }
  if (refused.empty()) return absl::OkStatus();
  std::string listed;
  for (const std::string& name : allowed) listed += (listed.empty() ? "" : ", ") + name;
  return Error("EXTENSION_NOT_ALLOWED", "module \"" + module + "\" asks for the PostgreSQL extension " + names + "; allowed are " +
                                            (listed.empty() ? "none" : listed) + ". An operator who trusts it adds it to store.extensions",
               std::move(refused));
}

absl::Status Registry::Open() {
  const std::string fingerprint = HmacHex(master_key_, kFingerprintLabel);
  RETURN_IF_ERROR(database_.Run("UPDATE bulkhead_internal.instance SET master_key_fingerprint = $1 WHERE master_key_fingerprint IS NULL",
                                {fingerprint}).status());
  ASSIGN_OR_RETURN(const Rows rows, database_.Run("SELECT id, master_key_fingerprint AS fingerprint FROM bulkhead_internal.instance"));
  if (rows.size() != 1) return Error("DATABASE_ERROR", "bulkhead_internal.instance must have one row: this database was tampered with");
  if (rows.Text(0, "fingerprint") != fingerprint) {
    return Error("MASTER_KEY_MISMATCH", "this database has been used with another master key: every supervisor on it needs the same "
                 "secrets folder, because the modules' database passwords are made from it");
  }
  role_prefix_ = "bh_" + rows.Text(0, "id").substr(0, 8) + "_";
  return absl::OkStatus();
}

absl::StatusOr<ModuleSchema> Registry::EnsureSchema(const std::string& module, int connections, const std::vector<std::string>& extensions) {
  BULKHEAD_CHECK(!role_prefix_.empty());  // Open() comes first
  RETURN_IF_ERROR(CheckExtensions(module, extensions));
  if (module == "bulkhead") return Error("INVALID_ARGUMENT", "\"bulkhead\" is the supervisor's own name and can't be a module's");
  ModuleSchema made{.role = RoleName(role_prefix_, module), .schema = SchemaName(module), .conninfo = ""};
  const std::string password = HmacHex(master_key_, made.role);
  const std::string role = Quoted(made.role);

  absl::Status status = database_.Transaction([&](Connection& c) -> absl::Status {
    RETURN_IF_ERROR(c.Run(kLockRoles).status());
    RETURN_IF_ERROR(EnsureRole(c, made.role));
    RETURN_IF_ERROR(EnsureOwnedSchema(c, made.role, made.schema));
    RETURN_IF_ERROR(c.Run("INSERT INTO bulkhead_internal.module_roles (role, module, schema) VALUES ($1, $2, $3) "
                          "ON CONFLICT (module) DO UPDATE SET role = excluded.role, schema = excluded.schema",
                          {made.role, module, made.schema}).status());
    ASSIGN_OR_RETURN(const std::vector<std::string> extra, EnsureExtensions(c, made.role, extensions));
    std::string search_path = Quoted(made.schema);
    for (const std::string& schema : extra) search_path += ", " + Quoted(schema);
    ASSIGN_OR_RETURN(const std::string verifier, Verifier(c, made.role, password));
    ASSIGN_OR_RETURN(const Rows can, c.Run("SELECT has_database_privilege($1, current_database(), 'CONNECT') AS connect, "
                                           "quote_ident(current_database()) AS database", {made.role}));
    if (!can.Bool(0, "connect")) {
      RETURN_IF_ERROR(c.Run("GRANT CONNECT, TEMPORARY ON DATABASE " + can.Text(0, "database") + " TO " + role).status());
    }
    return c.RunScript("ALTER ROLE " + role + " LOGIN CONNECTION LIMIT " + std::to_string(connections) + " PASSWORD " + Literal(verifier) +
                       ";ALTER ROLE " + role + " SET search_path = " + search_path +
                       ";ALTER ROLE " + role + " SET statement_timeout = '" + kStatementTimeout + "'" +
                       ";ALTER ROLE " + role + " SET idle_in_transaction_session_timeout = '" + kIdleInTransactionTimeout + "'" +
                       ";GRANT USAGE ON SCHEMA bulkhead TO " + role +
                       ";GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA bulkhead TO " + role);
  });
  if (!status.ok()) return status;
  status = database_.With([&](Connection& c) {
    made.conninfo = ConninfoFor(c, module, made.role, password);
    made.password = password;
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  return made;
}

absl::Status Registry::SetConnectionLimit(const std::string& module, int connections) {
  return database_.Transaction([&](Connection& c) -> absl::Status {
    RETURN_IF_ERROR(c.Run(kLockRoles).status());
    ASSIGN_OR_RETURN(const Rows rows, c.Run("SELECT r.role FROM bulkhead_internal.module_roles r JOIN pg_roles p ON p.rolname = r.role "
                                            "WHERE r.module = $1", {module}));
    if (rows.size() == 0) return absl::OkStatus();
    return c.Run("ALTER ROLE " + Quoted(rows.Text(0, "role")) + " CONNECTION LIMIT " + std::to_string(connections)).status();
  });
}

absl::Status Registry::DropSchema(Connection& c, const std::string& module) {
  RETURN_IF_ERROR(c.Run(kLockRoles).status());
  ASSIGN_OR_RETURN(const Rows rows, c.Run("DELETE FROM bulkhead_internal.module_roles WHERE module = $1 RETURNING role, schema", {module}));
  RETURN_IF_ERROR(c.Run("DELETE FROM bulkhead_internal.migrations WHERE owner = $1", {module}).status());
  RETURN_IF_ERROR(c.Run("DELETE FROM bulkhead_internal.migration_log WHERE owner = $1", {module}).status());
  RETURN_IF_ERROR(c.Run("DELETE FROM bulkhead_internal.migration_runs WHERE owner = $1", {module}).status());
  RETURN_IF_ERROR(c.Run("DELETE FROM bulkhead_internal.runs WHERE module = $1 OR id IN (SELECT run_id FROM bulkhead_internal.notifications WHERE module = $1)",
                        {module}).status());
  RETURN_IF_ERROR(c.Run("DELETE FROM bulkhead_internal.event_subscriptions WHERE module = $1", {module}).status());
  RETURN_IF_ERROR(c.Run("DELETE FROM bulkhead_internal.event_dead_letters WHERE module = $1", {module}).status());
  RETURN_IF_ERROR(c.Run("DELETE FROM bulkhead_internal.event_inbox WHERE module = $1", {module}).status());
  if (rows.size() == 0) return absl::OkStatus();
  const std::string role = rows.Text(0, "role");
  ASSIGN_OR_RETURN(const Rows known, c.Run("SELECT FROM pg_roles WHERE rolname = $1", {role}));
  if (known.size() == 0) return c.Run("DROP SCHEMA IF EXISTS " + Quoted(rows.Text(0, "schema")) + " CASCADE").status();
  // A session that lingers would hold locks on what is to be dropped.
  RETURN_IF_ERROR(c.Run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", {role}).status());
  // What it owns, the schema among it, and what it was granted.
  return c.RunScript("DROP OWNED BY " + Quoted(role) + " CASCADE; DROP ROLE " + Quoted(role));
}

}  // namespace bulkhead
