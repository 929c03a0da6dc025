// What the private PostgreSQL is made of: where its programs are, who may log in, its settings. No process is started here.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/store/postgres.h"

namespace bulkhead {

// Fixed for the life of a PrivatePostgres.
struct PostgresCluster {
  PrivatePostgresOptions options;
  std::string bin_dir;
  std::string access_dir;   // <data_dir>.access: hba.conf, ident.conf, written by the daemon and read by the server
  std::string staging_dir;  // <data_dir>.new: where initdb works, so that data_dir is whole or not there
  bool change_user = false;
  uid_t uid = 0;
  gid_t gid = 0;
  std::string password;     // of the role bulkhead; empty when it logs in by peer

  // Finds the programs and the OS user, makes or reads the password, writes the access files. POSTGRES_FAILED with a sentence.
  static absl::StatusOr<PostgresCluster> Prepare(const PrivatePostgresOptions& options);

  bool Exists() const;      // data_dir is there, which means: initdb has succeeded
  // staging_dir becomes data_dir, and the programs that made it are remembered for the next start.
  absl::Status Adopt() const;
  std::vector<std::string> InitdbArgs() const;
  std::vector<std::string> ServerArgs() const;
  std::string Conninfo(const std::string& database) const;
};

}  // namespace bulkhead
