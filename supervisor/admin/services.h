// The gRPC services of the admin API, one file each. Each borrows what its constructor names; a handler runs on a gRPC
// thread and never waits there.
#pragma once

#include <memory>
#include <string>

#include "grpcpp/grpcpp.h"
#include "supervisor/admin/guard.h"
#include "supervisor/admin/metrics.h"
#include "supervisor/auth/accounts.h"
#include "supervisor/auth/authenticator.h"
#include "supervisor/base/blocking_pool.h"
#include "supervisor/events/event_queries.h"
#include "supervisor/flags/flags.h"
#include "supervisor/jobs/jobs.h"
#include "supervisor/lifecycle/modules.h"
#include "supervisor/logs/module_logs.h"
#include "supervisor/store/module_migrations.h"

namespace bulkhead {

class Streams;

std::unique_ptr<grpc::Service> MakeModulesService(const Guard& guard, Modules& modules, BlockingPool& pool);
std::unique_ptr<grpc::Service> MakeJobsService(const Guard& guard, Modules& modules, Jobs& jobs, Streams& streams, const Clock& clock);
std::unique_ptr<grpc::Service> MakeEventsService(const Guard& guard, EventQueries& events, BlockingPool& pool);
std::unique_ptr<grpc::Service> MakeFilesService(const Guard& guard, Modules& modules, HostFiles& files, Streams& streams, const Clock& clock);
std::unique_ptr<grpc::Service> MakeLogsService(const Guard& guard, Modules& modules, ModuleLogs& logs, Streams& streams, const Clock& clock);
std::unique_ptr<grpc::Service> MakeMigrationsService(const Guard& guard, Modules& modules, ModuleMigrations& migrations, BlockingPool& pool);
struct NodeStatus;
std::unique_ptr<grpc::Service> MakeSystemService(const Guard& guard, Modules& modules, const Clock& clock, const MetricsSources& metrics,
                                                 const BlockingPool& pool, const NodeStatus& node, const EventQueries& events);
std::unique_ptr<grpc::Service> MakeAuditService(const Guard& guard);
std::unique_ptr<grpc::Service> MakeFlagsService(const Guard& guard, Flags& flags, Modules& modules);
std::unique_ptr<grpc::Service> MakeTokensService(const Guard& guard, Authenticator& authenticator, BlockingPool& pool);

std::unique_ptr<grpc::Service> MakeAuthService(const Guard& guard, Accounts& accounts, BlockingPool& pool);
std::unique_ptr<grpc::Service> MakeUsersService(const Guard& guard, Accounts& accounts, BlockingPool& pool);
std::unique_ptr<grpc::Service> MakeRolesService(const Guard& guard, Accounts& accounts, BlockingPool& pool);

}  // namespace bulkhead
