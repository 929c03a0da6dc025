// The service Tokens: API tokens.
#include "bulkhead/admin/v1/tokens.grpc.pb.h"
#include "supervisor/admin/call.h"
#include "supervisor/admin/json.h"
#include "supervisor/admin/services.h"
#include "supervisor/admin/views.h"

namespace bulkhead {
namespace {

using admin::v1::CreateTokenRequest;
using admin::v1::CreateTokenResponse;
using admin::v1::DeleteTokenRequest;
using admin::v1::DeleteTokenResponse;
using admin::v1::ListTokensRequest;
using admin::v1::ListTokensResponse;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

#define METHOD(name) "bulkhead.admin.v1.Tokens." name

class TokensService : public admin::v1::Tokens::CallbackService {
 public:
  TokensService(const Guard& guard, Authenticator& authenticator, BlockingPool& pool)
      : guard_(guard), authenticator_(authenticator), pool_(pool) {}

  ServerUnaryReactor* CreateToken(CallbackServerContext* context, const CreateTokenRequest* request,
                                  CreateTokenResponse* response) override {
    return Serve(guard_, context, METHOD("CreateToken"), request, response,
                 [this](CallPtr<CreateTokenResponse> call, const CreateTokenRequest* request) {
      OnPool(pool_, call, [call, wanted = *request, &authenticator = authenticator_] {
        std::optional<WallTime> expires_at;
        if (wanted.has_expires_at()) expires_at = FromTimestamp(wanted.expires_at());
        auto made = authenticator.Create(*call->caller().identity, wanted.name(), wanted.subject(),
                                         {wanted.permissions().begin(), wanted.permissions().end()}, expires_at,
                                         {wanted.roles().begin(), wanted.roles().end()}, call->actor());
        if (!made.ok()) return call->Fail(made.status());
        CreateTokenResponse answer;
        *answer.mutable_token() = ToMessage(made->row);
        answer.mutable_token()->set_secret(made->secret);
        call->Answer(std::move(answer));
      });
    });
  }

  ServerUnaryReactor* ListTokens(CallbackServerContext* context, const ListTokensRequest* request,
                                 ListTokensResponse* response) override {
    return Serve(guard_, context, METHOD("ListTokens"), request, response,
                 [this](CallPtr<ListTokensResponse> call, const ListTokensRequest* request) {
      OnPool(pool_, call, [call, &authenticator = authenticator_] {
        auto rows = authenticator.List();
        if (!rows.ok()) return call->Fail(rows.status());
        ListTokensResponse answer;
        for (const TokenRow& row : *rows) *answer.add_tokens() = ToMessage(row);
        const int count = static_cast<int>(rows->size());
        answer.mutable_meta()->set_total(count);
        answer.mutable_meta()->set_page(1);
        answer.mutable_meta()->set_page_size(count);
        call->Answer(std::move(answer));
      });
    });
  }

  ServerUnaryReactor* DeleteToken(CallbackServerContext* context, const DeleteTokenRequest* request,
                                  DeleteTokenResponse* response) override {
    return Serve(guard_, context, METHOD("DeleteToken"), request, response,
                 [this](CallPtr<DeleteTokenResponse> call, const DeleteTokenRequest* request) {
      OnPool(pool_, call, [call, name = request->name(), &authenticator = authenticator_] {
        if (absl::Status deleted = authenticator.Delete(name, call->actor()); !deleted.ok()) return call->Fail(deleted);
        DeleteTokenResponse answer;
        answer.set_name(name);
        call->Answer(std::move(answer));
      });
    });
  }

 private:
  const Guard& guard_;
  Authenticator& authenticator_;
  BlockingPool& pool_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeTokensService(const Guard& guard, Authenticator& authenticator, BlockingPool& pool) {
  return std::make_unique<TokensService>(guard, authenticator, pool);
}

#undef METHOD

}  // namespace bulkhead
