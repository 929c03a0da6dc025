// The service Users.
#include "bulkhead/admin/v1/auth.grpc.pb.h"
#include "supervisor/admin/call.h"
#include "supervisor/admin/services.h"
#include "supervisor/admin/views.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

using admin::v1::CreateUserRequest;
using admin::v1::DeleteUserRequest;
using admin::v1::DeleteUserResponse;
using admin::v1::GetUserRequest;
using admin::v1::ListUsersRequest;
using admin::v1::ListUsersResponse;
using admin::v1::UpdateUserRequest;
using admin::v1::User;
using admin::v1::UserResponse;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

#define METHOD(name) "bulkhead.admin.v1.Users." name

void AnswerUser(const CallPtr<UserResponse>& call, const absl::StatusOr<UserRow>& row) {
  if (!row.ok()) return call->Fail(row.status());
  UserResponse answer;
  *answer.mutable_user() = ToMessage(*row);
  call->Answer(std::move(answer));
}

// Work that hashes a password.
template <typename Response>
void OnHashing(Accounts& accounts, const CallPtr<Response>& call, std::function<void()> work) {
  const bool queued = accounts.Submit([call, work = std::move(work)] {
    if (call->GoesOn()) work();
  });
  if (!queued) call->Fail(Error("OVERLOADED", "Too many passwords wait to be hashed. Try again in a moment."));
}

class UsersService : public admin::v1::Users::CallbackService {
 public:
  UsersService(const Guard& guard, Accounts& accounts, BlockingPool& pool) : guard_(guard), accounts_(accounts), pool_(pool) {}

  ServerUnaryReactor* ListUsers(CallbackServerContext* context, const ListUsersRequest* request, ListUsersResponse* response) override {
    return Serve(guard_, context, METHOD("ListUsers"), request, response, [this](CallPtr<ListUsersResponse> call, const ListUsersRequest*) {
      OnPool(pool_, call, [call, &accounts = accounts_] {
        auto rows = accounts.Users();
        if (!rows.ok()) return call->Fail(rows.status());
        ListUsersResponse answer;
        for (const UserRow& row : *rows) *answer.add_users() = ToMessage(row);
        answer.mutable_meta()->set_total(static_cast<int>(rows->size()));
        answer.mutable_meta()->set_page(1);
        answer.mutable_meta()->set_page_size(static_cast<int>(rows->size()));
        call->Answer(std::move(answer));
      });
    });
  }

  ServerUnaryReactor* GetUser(CallbackServerContext* context, const GetUserRequest* request, UserResponse* response) override {
    return Serve(guard_, context, METHOD("GetUser"), request, response, [this](CallPtr<UserResponse> call, const GetUserRequest* request) {
      OnPool(pool_, call, [call, name = request->name(), &accounts = accounts_] {
        AnswerUser(call, accounts.User(name));
      });
    });
  }

  ServerUnaryReactor* CreateUser(CallbackServerContext* context, const CreateUserRequest* request, UserResponse* response) override {
    return Serve(guard_, context, METHOD("CreateUser"), request, response, [this](CallPtr<UserResponse> call, const CreateUserRequest* request) {
      OnHashing(accounts_, call, [call, wanted = *request, &accounts = accounts_] {
        AnswerUser(call, accounts.CreateUser(*call->caller().identity, wanted.name(), wanted.password(),
                                             {wanted.roles().begin(), wanted.roles().end()}, !wanted.has_enabled() || wanted.enabled(), call->actor()));
      });
    });
  }

  ServerUnaryReactor* UpdateUser(CallbackServerContext* context, const UpdateUserRequest* request, UserResponse* response) override {
    return Serve(guard_, context, METHOD("UpdateUser"), request, response, [this](CallPtr<UserResponse> call, const UpdateUserRequest* request) {
      if (request->clear_roles() && request->roles_size() > 0) {
        return call->Fail(Error("INVALID_ARGUMENT", "Send roles or clearRoles, not both.", {{"/clearRoles", "INVALID_ARGUMENT", "There are roles, too."}}));
      }
      Accounts::UserChange change;
      if (request->clear_roles() || request->roles_size() > 0) change.roles.emplace(request->roles().begin(), request->roles().end());
      if (request->has_enabled()) change.enabled = request->enabled();
      if (request->has_password()) change.password = request->password();
      OnHashing(accounts_, call, [call, name = request->name(), change = std::move(change), &accounts = accounts_] {
        AnswerUser(call, accounts.UpdateUser(*call->caller().identity, name, change, call->actor()));
      });
    });
  }

  ServerUnaryReactor* DeleteUser(CallbackServerContext* context, const DeleteUserRequest* request, DeleteUserResponse* response) override {
    return Serve(guard_, context, METHOD("DeleteUser"), request, response,
                 [this](CallPtr<DeleteUserResponse> call, const DeleteUserRequest* request) {
      OnPool(pool_, call, [call, name = request->name(), &accounts = accounts_] {
        if (absl::Status deleted = accounts.DeleteUser(*call->caller().identity, name, call->actor()); !deleted.ok()) return call->Fail(deleted);
        DeleteUserResponse answer;
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

std::unique_ptr<grpc::Service> MakeUsersService(const Guard& guard, Accounts& accounts, BlockingPool& pool) {
  return std::make_unique<UsersService>(guard, accounts, pool);
}

#undef METHOD

}  // namespace bulkhead
