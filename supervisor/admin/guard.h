// The authorisation of the admin API: called first in each handler, because neither an interceptor nor a metadata processor
// can stop one (decision 6). Knows the permission of each method from its descriptor. Thread-safe after Add().
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "google/protobuf/descriptor.h"
#include "grpcpp/support/string_ref.h"
#include "supervisor/auth/authenticator.h"

namespace bulkhead {

// Who is behind a call, as proven.
struct Caller {
  std::shared_ptr<const Identity> identity;
  std::string address;  // "127.0.0.1:51234"
  std::string request_id;
  bool in_process = false;  // came through the REST transcoder
};

// The audit line of one call.
void Audit(std::string_view method, const Caller& caller, const absl::Status& result);

class Guard {
 public:
  using Metadata = std::multimap<grpc::string_ref, grpc::string_ref>;

  explicit Guard(const Authenticator& authenticator);

  // Learns a service's methods. FAILED_PRECONDITION names a method that has no `permission` option.
  absl::Status Add(const google::protobuf::ServiceDescriptor& service);

  // `method` is a full name, "bulkhead.admin.v1.Modules.GetModule"; one that was not added is a bug.
  // UNAUTHENTICATED, FORBIDDEN (also for metadata that only this supervisor may send). Of `caller` address and request id are filled
  // in any case, and the identity where the token is somebody's: a refusal is answered and written down, too.
  absl::Status Check(const Metadata& metadata, const std::string& peer, std::string_view method, Caller& caller) const;

  // The two halves of it, for REST, which must answer 401 before it says that a path does not exist.
  absl::StatusOr<std::shared_ptr<const Identity>> Authenticate(std::string_view authorization) const;
  absl::Status Authorize(const Identity& identity, std::string_view method) const;
  // Whether calls of it belong into the audit lines: whatever does more than read.
  bool Writes(std::string_view method) const;

  // Metadata with which the transcoder tells address and request id across the in-process channel, signed with a secret of
  // this boot and bound to the method.
  std::vector<std::pair<std::string, std::string>> SignOrigin(std::string_view address, std::string_view request_id,
                                                              std::string_view method) const;

 private:
  const std::string& Permission(std::string_view method) const;

  const Authenticator& authenticator_;
  const std::string secret_;
  std::map<std::string, std::string, std::less<>> permissions_;  // by full method name
};

}  // namespace bulkhead
