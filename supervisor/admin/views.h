// The supervisor's own values as the messages of the admin API. Pure.
#pragma once

#include "bulkhead/admin/v1/auth.pb.h"
#include "bulkhead/admin/v1/audit.pb.h"
#include "bulkhead/admin/v1/flags.pb.h"
#include "bulkhead/admin/v1/jobs.pb.h"
#include "bulkhead/admin/v1/modules.pb.h"
#include "bulkhead/admin/v1/system.pb.h"
#include "bulkhead/admin/v1/tokens.pb.h"
#include "supervisor/auth/account_table.h"
#include "supervisor/flags/flags.h"
#include "supervisor/jobs/jobs.h"
#include "supervisor/lifecycle/modules.h"

namespace bulkhead {

admin::v1::Module ToMessage(const ModuleView& view);
admin::v1::Run ToMessage(const RunView& view);
admin::v1::Artifact ToMessage(const Artifact& artifact);
admin::v1::Job ToMessage(const JobView& view);
admin::v1::Token ToMessage(const TokenRow& row);
admin::v1::User ToMessage(const UserRow& row);  // without its password
admin::v1::Role ToMessage(const RoleRow& row);
admin::v1::Finding ToMessage(const Finding& finding);
admin::v1::Finding ToMessage(const ErrorDetail& detail);
admin::v1::Plan ToMessage(const Plan& plan);
admin::v1::ScannedFolder ToMessage(const RescanResult::Folder& folder);
admin::v1::AuditEntry ToMessage(const AuditRow& row);
// `modules` are those that are started only when it is on.
admin::v1::Flag ToMessage(const Flag& flag, const std::vector<std::string>& modules);
// Health of an enabled module: what its checks say, and no better than what its state allows.
admin::v1::ModuleHealth ToHealth(const ModuleView& view);

}  // namespace bulkhead
