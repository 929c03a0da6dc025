// The authorisation of the admin API: called first in each handler, because neither an interceptor nor a metadata processor
// can stop one (decision 6). Knows what each method asks for from its descriptor. Thread-safe after Add().
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "bulkhead/admin/v1/options.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/string_ref.h"
#include "supervisor/admin/records.h"
#include "supervisor/auth/authenticator.h"

namespace bulkhead {

// Who is behind a call, as proven.
struct Caller {
  std::shared_ptr<const Identity> identity;  // null for a method that anybody may call
  std::string address;  // "127.0.0.1:51234"
  std::string request_id;
  bool in_process = false;  // came through the REST transcoder
};

class Guard {
 public:
  using Metadata = std::multimap<grpc::string_ref, grpc::string_ref>;

  Guard(const Authenticator& authenticator, Records& records);

  // Learns a service's methods. FAILED_PRECONDITION names a method that has neither `permission` nor `access`, or both,
  // and one that writes without an `action`.
  absl::Status Add(const google::protobuf::ServiceDescriptor& service);

  // A verdict on a call: `status`, or `pending`, a token that Await() decides about. The identity is there where the token is somebody's:
  // a refusal is answered and written down, too.
  struct Decision {
    absl::Status status;
    std::shared_ptr<const Identity> identity;
    std::string pending;
  };
  // `method` is a full name, "bulkhead.admin.v1.Modules.GetModule"; one that was not added is a bug. `module` is ModuleOf() its request.
  // UNAUTHENTICATED, TOO_MANY_ATTEMPTS, FORBIDDEN (also for metadata that only this supervisor may send). Address and request id of
  // `caller` are filled in any case; the identity is the decision's to give.
  Decision Check(const Metadata& metadata, const std::string& peer, std::string_view method, std::string_view module, Caller& caller) const;
  // The rest of it for a pending token: verifies, authorises, and calls `done` from any thread. The guard must stay until then.
  void Await(const std::string& pending, std::string method, std::string module, std::string address, std::function<void(Decision)> done) const;

  // The parts of it, for REST, which must answer 401 before it says that a path does not exist.
  Decision Authenticate(std::string_view authorization, std::string_view address) const;
  void AwaitIdentity(const std::string& pending, std::string address, std::function<void(Decision)> done) const;
  absl::Status Authorize(const Identity& identity, std::string_view method, std::string_view module) const;
  bool ForAnybody(std::string_view method) const;
  // The name of the module that a request is about, "" when there is none: its field `module`, or `name` in the services Modules and Migrations.
  std::string ModuleOf(std::string_view method, const google::protobuf::Message& request) const;
  std::string_view ModuleField(std::string_view method) const;  // JSON name, "" without one
  // What a request is about, as its audit row names it, "" when it doesn't say: its field `name`, `job` or `module`, or the
  // name in its `manifest`. Whatever bytes it holds.
  static std::string TargetOf(const google::protobuf::Message& request);
  // Whether its target is who calls: whoever is logged in may.
  bool AboutCaller(std::string_view method) const { return Of(method).access == admin::v1::Access::AUTHENTICATED; }
  // Whether calls of it belong into the audit: whatever does more than read; and what they are called there.
  bool Writes(std::string_view method) const { return Of(method).writes; }
  const std::string& Action(std::string_view method) const { return Of(method).action; }
  Records& records() const { return records_; }

  // Metadata with which the transcoder tells address and request id across the in-process channel, signed with a secret of
  // this boot and bound to the method.
  std::vector<std::pair<std::string, std::string>> SignOrigin(std::string_view address, std::string_view request_id,
                                                              std::string_view method) const;

 private:
  struct Requirement {
    std::string permission;  // "" where `access` says who may
    admin::v1::Access::Enum access = admin::v1::Access::UNSPECIFIED;
    const google::protobuf::FieldDescriptor* module = nullptr;
    bool writes = false;
    std::string action;  // of what writes
  };
  const Requirement& Of(std::string_view method) const;

  const Authenticator& authenticator_;
  Records& records_;
  const std::string secret_;
  std::map<std::string, Requirement, std::less<>> methods_;  // by full name
};

}  // namespace bulkhead
