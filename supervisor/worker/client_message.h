// Service clients as a module is told of them: in Initialize.
#pragma once

#include "bulkhead/module/v1/module.pb.h"
#include "supervisor/base/service_client.h"

namespace bulkhead {

inline void FillClients(const ServiceClients& clients, google::protobuf::RepeatedPtrField<module::v1::ServiceClient>& told) {
  for (const auto& [name, client] : clients) {
    module::v1::ServiceClient& one = *told.Add();
    one.set_name(name);
    one.set_base_url(client.base_url);
    for (const auto& [field, value] : client.headers) (*one.mutable_headers())[field] = value;
    for (const auto& [field, value] : SecretHeaders(client)) (*one.mutable_secret_headers())[field] = value;
    for (const auto& [field, value] : SecretQuery(client)) (*one.mutable_secret_query())[field] = value;
    one.set_timeout_ms(client.timeout.count());
    one.set_attempt_timeout_ms(client.attempt_timeout.count());
    one.set_connect_timeout_ms(client.connect_timeout.count());
    one.set_retries(client.retries);
    if (client.breaker) {
      one.mutable_breaker()->set_failures(client.breaker_failures);
      one.mutable_breaker()->set_percent(client.breaker_percent);
      one.mutable_breaker()->set_window_ms(client.breaker_window.count());
      one.mutable_breaker()->set_open_ms(client.breaker_open.count());
    }
    one.set_max_connections(client.max_connections);
    one.set_max_body(client.max_body);
    one.set_ca_pem(client.ca_pem);
  }
}

}  // namespace bulkhead
