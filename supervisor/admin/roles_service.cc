// The service Roles.
#include "bulkhead/admin/v1/auth.grpc.pb.h"
#include "supervisor/admin/call.h"
#include "supervisor/admin/services.h"
#include "supervisor/admin/views.h"

namespace bulkhead {
namespace {

using admin::v1::CreateRoleRequest;
using admin::v1::DeleteRoleRequest;
using admin::v1::DeleteRoleResponse;
using admin::v1::GetRoleRequest;
using admin::v1::ListRolesRequest;
using admin::v1::ListRolesResponse;
using admin::v1::Role;
using admin::v1::RoleResponse;
using admin::v1::UpdateRoleRequest;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

#define METHOD(name) "bulkhead.admin.v1.Roles." name

void AnswerRole(const CallPtr<RoleResponse>& call, const absl::StatusOr<RoleRow>& row) {
  if (!row.ok()) return call->Fail(row.status());
  RoleResponse answer;
  *answer.mutable_role() = ToMessage(*row);
  call->Answer(std::move(answer));
}

template <typename Request>
RoleRow Wanted(const Request& request) {
  return {request.name(), request.description(), {request.permissions().begin(), request.permissions().end()}, {}, {}};
}

class RolesService : public admin::v1::Roles::CallbackService {
 public:
  RolesService(const Guard& guard, Accounts& accounts, BlockingPool& pool) : guard_(guard), accounts_(accounts), pool_(pool) {}

  ServerUnaryReactor* ListRoles(CallbackServerContext* context, const ListRolesRequest* request, ListRolesResponse* response) override {
    return Serve(guard_, context, METHOD("ListRoles"), request, response, [this](CallPtr<ListRolesResponse> call, const ListRolesRequest*) {
      OnPool(pool_, call, [call, &accounts = accounts_] {
        auto rows = accounts.Roles();
        if (!rows.ok()) return call->Fail(rows.status());
        ListRolesResponse answer;
        for (const RoleRow& row : *rows) *answer.add_roles() = ToMessage(row);
        answer.mutable_meta()->set_total(static_cast<int>(rows->size()));
        answer.mutable_meta()->set_page(1);
        answer.mutable_meta()->set_page_size(static_cast<int>(rows->size()));
        call->Answer(std::move(answer));
      });
    });
  }

  ServerUnaryReactor* GetRole(CallbackServerContext* context, const GetRoleRequest* request, RoleResponse* response) override {
    return Serve(guard_, context, METHOD("GetRole"), request, response, [this](CallPtr<RoleResponse> call, const GetRoleRequest* request) {
      OnPool(pool_, call, [call, name = request->name(), &accounts = accounts_] {
        AnswerRole(call, accounts.Role(name));
      });
    });
  }

  ServerUnaryReactor* CreateRole(CallbackServerContext* context, const CreateRoleRequest* request, RoleResponse* response) override {
    return Serve(guard_, context, METHOD("CreateRole"), request, response, [this](CallPtr<RoleResponse> call, const CreateRoleRequest* request) {
      OnPool(pool_, call, [call, role = Wanted(*request), &accounts = accounts_] {
        AnswerRole(call, accounts.CreateRole(*call->caller().identity, role, call->actor()));
      });
    });
  }

  ServerUnaryReactor* UpdateRole(CallbackServerContext* context, const UpdateRoleRequest* request, RoleResponse* response) override {
    return Serve(guard_, context, METHOD("UpdateRole"), request, response, [this](CallPtr<RoleResponse> call, const UpdateRoleRequest* request) {
      OnPool(pool_, call, [call, role = Wanted(*request), &accounts = accounts_] {
        AnswerRole(call, accounts.UpdateRole(*call->caller().identity, role, call->actor()));
      });
    });
  }

  ServerUnaryReactor* DeleteRole(CallbackServerContext* context, const DeleteRoleRequest* request, DeleteRoleResponse* response) override {
    return Serve(guard_, context, METHOD("DeleteRole"), request, response,
                 [this](CallPtr<DeleteRoleResponse> call, const DeleteRoleRequest* request) {
      OnPool(pool_, call, [call, name = request->name(), &accounts = accounts_] {
        if (absl::Status deleted = accounts.DeleteRole(*call->caller().identity, name, call->actor()); !deleted.ok()) return call->Fail(deleted);
        DeleteRoleResponse answer;
        answer.set_name(name);
        call->Answer(std::move(answer));
      });
    });
  }

 private:
  const Guard& guard_;
  Accounts& accounts_;
  BlockingPool& pool_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeRolesService(const Guard& guard, Accounts& accounts, BlockingPool& pool) {
  return std::make_unique<RolesService>(guard, accounts, pool);
}

#undef METHOD

}  // namespace bulkhead
