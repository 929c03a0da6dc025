// The REST routes of the admin API, read from the `rest` option of each method. Immutable after Add(). Pure.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bulkhead/admin/v1/options.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace bulkhead {

struct RestRoute {
  const google::protobuf::MethodDescriptor* method = nullptr;
  admin::v1::Rest rest;
  std::string rpc_path;  // "/bulkhead.admin.v1.Modules/GetModule"
  const google::protobuf::Message* request_prototype = nullptr;
  const google::protobuf::Message* response_prototype = nullptr;
};

using PathValues = std::map<std::string, std::string>;  // JSON name of a field → its value in the path

class RestRoutes {
 public:
  // CHECKs what only a wrong .proto can get wrong: a `:name`, `*name` or `data` that is no field, two routes for one method and path.
  void Add(const google::protobuf::ServiceDescriptor& service);

  struct Match {
    const RestRoute* route = nullptr;  // null: no such path, or another method
    PathValues values;
    std::string allow;  // value of Allow; empty: no such path
  };
  // A static segment wins over a `:name`, the leftmost difference first; a last `*name` takes all the rest, which is not empty. `query` as it
  // came: it chooses where a route has a `when`.
  Match Find(std::string_view method, std::string_view path, std::string_view query = {}) const;

 private:
  struct Pattern {
    std::vector<std::string> segments;  // ":x" binds, "*x" the rest
    std::map<std::string, RestRoute, std::less<>> by_method;
    std::map<std::string, RestRoute, std::less<>> by_when;  // by method; of those with a `when`
  };
  std::vector<Pattern> patterns_;  // most specific first
};

std::vector<std::string> PathSegments(std::string_view path);

}  // namespace bulkhead
