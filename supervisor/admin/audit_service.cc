// The service Audit: who changed what.
#include "bulkhead/admin/v1/audit.grpc.pb.h"
#include "supervisor/admin/call.h"
#include "supervisor/admin/json.h"
#include "supervisor/admin/parameters.h"
#include "supervisor/admin/services.h"
#include "supervisor/admin/views.h"

namespace bulkhead {
namespace {

using admin::v1::ListAuditRequest;
using admin::v1::ListAuditResponse;

// An RFC 3339 time of a query; absent when empty.
absl::StatusOr<std::optional<WallTime>> ParseTime(const std::string& text, const std::string& parameter) {
  if (text.empty()) return std::nullopt;
  const auto time = ParseWall(text);
  if (!time) return BadParameter(parameter, "must be a time such as 2026-01-31T09:30:00Z");
  return std::optional(*time);
}

absl::StatusOr<AuditQuery> ParseQuery(const ListAuditRequest& request) {
  AuditQuery query;
  ASSIGN_OR_RETURN(query.since, ParseTime(request.since(), "since"));
  ASSIGN_OR_RETURN(query.until, ParseTime(request.until(), "until"));
  query.subject = request.actor();
  query.module = request.module();
  query.action = request.action();
  query.outcome = request.outcome();
  query.request_id = request.request_id();
  ASSIGN_OR_RETURN(const Page page, PageOf(request));
  query.page = page.number;
  query.page_size = page.size;
  return query;
}

class AuditService : public admin::v1::Audit::CallbackService {
 public:
  explicit AuditService(const Guard& guard) : guard_(guard) {}

  grpc::ServerUnaryReactor* ListAudit(grpc::CallbackServerContext* context, const ListAuditRequest* request,
                                      ListAuditResponse* response) override {
    return Serve(guard_, context, "bulkhead.admin.v1.Audit.ListAudit", request, response,
                 [this](CallPtr<ListAuditResponse> call, const ListAuditRequest* request) {
      auto query = ParseQuery(*request);
      if (!query.ok()) return call->Fail(query.status());
      Records& records = guard_.records();
      OnPool(records.pool(), call, [call, query = *query, &records] {
        auto page = records.audit().Find(query);
        if (!page.ok()) return call->Fail(page.status());
        ListAuditResponse answer;
        for (const AuditRow& row : page->rows) *answer.add_entries() = ToMessage(row);
        answer.mutable_meta()->set_total(page->total);
        answer.mutable_meta()->set_page(query.page);
        answer.mutable_meta()->set_page_size(query.page_size);
        call->Answer(std::move(answer));
      });
    });
  }

 private:
  const Guard& guard_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeAuditService(const Guard& guard) { return std::make_unique<AuditService>(guard); }

}  // namespace bulkhead
