#include "supervisor/store/postgres_cluster.h"

#include <grp.h>
#include <locale.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>

#include "supervisor/base/fd.h"
#include "supervisor/base/random.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

constexpr char kServerUser[] = "postgres";
constexpr char kVersions[] = "/usr/lib/postgresql";  // Debian's layout: <version>/bin
constexpr char kSocketName[] = "/.s.PGSQL.5432";
constexpr size_t kPasswordBytes = 32;

// Settings of the server. On the command line, so that they follow the supervisor's version and not the day of initdb.
constexpr const char* kSettings[] = {
    "listen_addresses=",           // no network, ever
    "port=5432",                   // only the name of the socket; its folder is its own
    "unix_socket_permissions=0777",  // who may log in is hba.conf's business: modules have uids of their own
    "max_connections=300",
    "superuser_reserved_connections=10",  // modules can't lock the supervisor out
    "shared_buffers=16MB",
    "timezone=UTC",
    "log_timezone=UTC",
    "datestyle=ISO",
    "password_encryption=scram-sha-256",
    "jit=off",                     // short statements; compiling them costs more than it saves
    "log_destination=stderr",
    "logging_collector=off",
    "log_line_prefix=",
    "log_checkpoints=off",
    "log_min_error_statement=panic",  // statements hold the modules' data, which has no place in a log
};

absl::Status Failed(const std::string& why) { return Error("POSTGRES_FAILED", "the private PostgreSQL can't be started: " + why); }

bool HasPrograms(const std::string& folder) {
  return access((folder + "/postgres").c_str(), X_OK) == 0 && access((folder + "/initdb").c_str(), X_OK) == 0;
}

// The newest of Debian's versions, else what is on PATH; empty when there is none.
std::string NewestBinDir() {
  std::string newest;
  int version = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(kVersions, error)) {
    const int found = std::atoi(entry.path().filename().c_str());
    const std::string bin = (entry.path() / "bin").string();
    if (found > version && HasPrograms(bin)) {
      version = found;
      newest = bin;
    }
  }
  if (!newest.empty()) return newest;
  const char* path = std::getenv("PATH");
  std::string rest = path ? path : "";
  while (!rest.empty()) {
    const size_t colon = std::min(rest.find(':'), rest.size());
    const std::string folder = rest.substr(0, colon);
    if (folder.starts_with('/') && HasPrograms(folder)) return folder;
    rest.erase(0, colon + 1);
  }
  return "";
}

// A cluster is of one major version: it is served by the programs that made it while they are there.
absl::StatusOr<std::string> BinDir(const std::string& wanted, const std::string& remembered) {
  if (!wanted.empty()) {
    if (HasPrograms(wanted)) return wanted;
    return Failed(wanted + " does not hold the programs initdb and postgres");
  }
  if (auto known = ReadFile(remembered); known.ok()) {
    std::string folder = known->substr(0, known->find('\n'));
    if (HasPrograms(folder)) return folder;
  }
  std::string found = NewestBinDir();
  if (!found.empty()) return found;
  return Failed(std::string("no server is installed below ") + kVersions + " or on PATH: run sh deploy/packages.sh, or set store.url to a database of yours");
}

absl::Status WriteIfChanged(const std::string& path, const std::string& content, int mode) {
  if (auto now = ReadFile(path); now.ok() && *now == content) return absl::OkStatus();
  absl::Status written = WriteFileAtomically(path, content, mode);
  return written.ok() ? written : Failed(std::string(written.message()));
}

// Lines of pg_hba.conf. There is none for the network and none for replication.
std::string HbaText(bool privileged) {
  std::string text = "# Written by bulkhead at every start.\n";
  if (privileged) text += "local all bulkhead peer map=bulkhead\n";
  return text + "local all all scram-sha-256\n";
}

// pg_ident.conf: the OS users who are the role bulkhead.
std::string IdentText() {
  std::set<std::string> users = {"root", "bulkhead", kServerUser};
  if (const passwd* self = getpwuid(geteuid())) users.insert(self->pw_name);
  std::string text = "# Written by bulkhead at every start.\n";
  for (const std::string& user : users) text += "bulkhead \"" + user + "\" bulkhead\n";
  return text;
}

absl::Status WriteAccessFiles(const PostgresCluster& cluster) {
  // As root the server is another user, and may read but not change these.
  const bool shared = cluster.change_user;
  const std::string& folder = cluster.access_dir;
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) return Failed("mkdir " + folder + ": " + strerror(errno));
  if (chmod(folder.c_str(), shared ? 0755 : 0700) != 0) return Failed("chmod " + folder + ": " + strerror(errno));
  const int mode = shared ? 0644 : 0600;
  RETURN_IF_ERROR(WriteIfChanged(folder + "/hba.conf", HbaText(cluster.options.privileged), mode));
  return WriteIfChanged(folder + "/ident.conf", IdentText(), mode);
}

absl::StatusOr<std::string> Password(const std::string& secrets_dir) {
  const std::string path = secrets_dir + "/postgres.password";
  auto known = ReadFile(path);
  if (known.ok()) {
    std::string password = known->substr(0, known->find('\n'));
    if (password.empty()) return Failed(path + " is empty; it must hold the password of the database role bulkhead");
    return password;
  }
  if (!absl::IsNotFound(known.status())) return Failed(std::string(known.status().message()));
  std::string password = RandomHex(kPasswordBytes);
  absl::Status written = WriteFileAtomically(path, password + "\n", 0600);
  if (!written.ok()) return Failed(std::string(written.message()));
  return password;
}

std::string Quoted(const std::string& value, char quote, const char* escaped) {
  std::string quoted(1, quote);
  for (const char c : value) {
    if (c == quote) quoted += escaped;
    else if (c == '\\' && quote == '\'') quoted += "\\\\";
    else quoted += c;
  }
  return quoted + quote;
}

const char* Locale() {
  const locale_t locale = newlocale(LC_ALL_MASK, "C.UTF-8", nullptr);
  if (!locale) return "C";
  freelocale(locale);
  return "C.UTF-8";
}

}  // namespace

absl::StatusOr<PostgresCluster> PostgresCluster::Prepare(const PrivatePostgresOptions& options) {
  PostgresCluster cluster;
  cluster.options = options;
  cluster.access_dir = options.data_dir + ".access";
  cluster.staging_dir = options.data_dir + ".new";
  cluster.uid = geteuid();
  cluster.gid = getegid();
  if (options.socket_dir.size() + strlen(kSocketName) > kMaxSocketPath) {
    return Failed("the socket folder's path is longer than " + std::to_string(kMaxSocketPath - strlen(kSocketName)) + " bytes: " + options.socket_dir);
  }
  if (options.privileged) {
    const passwd* user = getpwnam(kServerUser);
    if (!user) return Failed("there is no OS user postgres to run it as: run sh deploy/packages.sh");
    cluster.change_user = true;
    cluster.uid = user->pw_uid;
    cluster.gid = user->pw_gid;
  } else {
    ASSIGN_OR_RETURN(cluster.password, Password(options.secrets_dir));
  }
  ASSIGN_OR_RETURN(cluster.bin_dir, BinDir(options.bin_dir, cluster.access_dir + "/bin_dir"));
  RETURN_IF_ERROR(WriteAccessFiles(cluster));
  return cluster;
}

bool PostgresCluster::Exists() const { return access(options.data_dir.c_str(), F_OK) == 0; }

absl::Status PostgresCluster::Adopt() const {
  RETURN_IF_ERROR(WriteIfChanged(access_dir + "/bin_dir", bin_dir + "\n", 0600));
  if (rename(staging_dir.c_str(), options.data_dir.c_str()) == 0) return absl::OkStatus();
  return Failed("rename " + staging_dir + " to " + options.data_dir + ": " + strerror(errno));
}

std::vector<std::string> PostgresCluster::InitdbArgs() const {
  // reject: nobody gets in when somebody starts the cluster without the access files given on the command line.
  std::vector<std::string> args = {"--pgdata=" + staging_dir, "--username=bulkhead", "--auth=reject", "--encoding=UTF8",
                                   std::string("--locale=") + Locale(), "--no-sync", "--no-instructions"};
  if (!password.empty()) args.push_back("--pwfile=" + options.secrets_dir + "/postgres.password");
  return args;
}

std::vector<std::string> PostgresCluster::ServerArgs() const {
  std::vector<std::string> args = {"-D", options.data_dir};
  const auto set = [&args](const std::string& setting) {
    args.push_back("-c");
    args.push_back(setting);
  };
  for (const char* setting : kSettings) set(setting);
  set("unix_socket_directories=" + Quoted(options.socket_dir, '"', "\"\""));
  set("hba_file=" + access_dir + "/hba.conf");
  set("ident_file=" + access_dir + "/ident.conf");
  return args;
}

std::string PostgresCluster::Conninfo(const std::string& database) const {
  std::string conninfo = "host=" + Quoted(options.socket_dir, '\'', "\\'") + " port=5432 user=bulkhead dbname=" + database;
  if (!password.empty()) conninfo += " password=" + password;
  return conninfo;
}

}  // namespace bulkhead
