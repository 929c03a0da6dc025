// The service Auth: logins of users, and who a token is.
#include "bulkhead/admin/v1/auth.grpc.pb.h"
#include "supervisor/admin/call.h"
#include "supervisor/admin/services.h"
#include "supervisor/base/status.h"

namespace bulkhead {
namespace {

using admin::v1::ChangePasswordRequest;
using admin::v1::ChangePasswordResponse;
using admin::v1::GetMeRequest;
using admin::v1::GetMeResponse;
using admin::v1::LogInRequest;
using admin::v1::LogInResponse;
using admin::v1::LogOutRequest;
using admin::v1::LogOutResponse;
using admin::v1::RefreshLoginRequest;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

#define METHOD(name) "bulkhead.admin.v1.Auth." name

int32_t Seconds(Millis time) { return static_cast<int32_t>(std::chrono::duration_cast<std::chrono::seconds>(time).count()); }

void AnswerLogin(const CallPtr<LogInResponse>& call, const absl::StatusOr<Accounts::Login>& login) {
  if (!login.ok()) return call->Fail(login.status());
  LogInResponse answer;
  auto& made = *answer.mutable_login();
  made.set_access_token(login->access_token);
  made.set_token_type("Bearer");
  made.set_expires_in(Seconds(login->expires_in));
  made.set_refresh_token(login->refresh_token);
  made.set_refresh_expires_in(Seconds(login->refresh_expires_in));
  call->Answer(std::move(answer));
}

class AuthService : public admin::v1::Auth::CallbackService {
 public:
  AuthService(const Guard& guard, Accounts& accounts, BlockingPool& pool) : guard_(guard), accounts_(accounts), pool_(pool) {}

  ServerUnaryReactor* LogIn(CallbackServerContext* context, const LogInRequest* request, LogInResponse* response) override {
    return Serve(guard_, context, METHOD("LogIn"), request, response, [this](CallPtr<LogInResponse> call, const LogInRequest* request) {
      accounts_.LogIn(request->username(), request->password(), call->actor(),
                      [call](absl::StatusOr<Accounts::Login> login) { AnswerLogin(call, login); });
    });
  }

  ServerUnaryReactor* RefreshLogin(CallbackServerContext* context, const RefreshLoginRequest* request, LogInResponse* response) override {
    return Serve(guard_, context, METHOD("RefreshLogin"), request, response,
                 [this](CallPtr<LogInResponse> call, const RefreshLoginRequest* request) {
      // A client that has left keeps its token: only one that can be answered is used up.
      OnPool(pool_, call, [call, token = request->refresh_token(), &accounts = accounts_] {
        AnswerLogin(call, accounts.Refresh(token, call->actor()));
      });
    });
  }

  ServerUnaryReactor* LogOut(CallbackServerContext* context, const LogOutRequest* request, LogOutResponse* response) override {
    return Serve(guard_, context, METHOD("LogOut"), request, response, [this](CallPtr<LogOutResponse> call, const LogOutRequest* request) {
      // Also of a client that has left: that is what he wants, whoever waits for the answer.
      const bool queued = pool_.Submit([call, token = request->refresh_token(), &accounts = accounts_] {
        if (absl::Status ended = accounts.LogOut(token, call->actor()); !ended.ok()) return call->Fail(ended);
        call->Answer(LogOutResponse());
      });
      if (!queued) call->Fail(Error("OVERLOADED", "Too many calls wait for the database. Try again in a moment."));
    });
  }

  ServerUnaryReactor* GetMe(CallbackServerContext* context, const GetMeRequest* request, GetMeResponse* response) override {
    return Serve(guard_, context, METHOD("GetMe"), request, response, [](CallPtr<GetMeResponse> call, const GetMeRequest*) {
      const Identity& identity = *call->caller().identity;
      GetMeResponse answer;
      auto& me = *answer.mutable_me();
      me.set_subject(identity.subject);
      for (const std::string& role : identity.roles) me.add_roles(role);
      for (const std::string& permission : identity.permissions) me.add_permissions(permission);
      me.mutable_credential()->set_kind(std::string(CredentialKindName(identity.credential.kind)));
      me.mutable_credential()->set_id(identity.credential.id);
      call->Answer(std::move(answer));
    });
  }

  ServerUnaryReactor* ChangePassword(CallbackServerContext* context, const ChangePasswordRequest* request,
                                     ChangePasswordResponse* response) override {
    return Serve(guard_, context, METHOD("ChangePassword"), request, response,
                 [this](CallPtr<ChangePasswordResponse> call, const ChangePasswordRequest* request) {
      const bool queued = accounts_.Submit([call, wanted = *request, &accounts = accounts_] {
        if (!call->GoesOn()) return;
        const absl::Status changed =
            accounts.ChangePassword(*call->caller().identity, wanted.current_password(), wanted.new_password(), call->actor());
        if (!changed.ok()) return call->Fail(changed);
        call->Answer(ChangePasswordResponse());
      });
      if (!queued) call->Fail(Error("OVERLOADED", "Too many passwords wait to be checked. Try again in a moment."));
    });
  }

 private:
  const Guard& guard_;
  Accounts& accounts_;
  BlockingPool& pool_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeAuthService(const Guard& guard, Accounts& accounts, BlockingPool& pool) {
  return std::make_unique<AuthService>(guard, accounts, pool);
}

#undef METHOD

}  // namespace bulkhead
