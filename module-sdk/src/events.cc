#include "bulkhead/events.h"

#include <stdexcept>

#include "json_text.h"

namespace bulkhead::sdk {

void Events::Subscribe(std::string topic, EventHandler handler) {
  if (frozen_) throw std::logic_error("event " + topic + ": events are subscribed to in Initialize only");
  if (topic.empty() || !handler) throw std::invalid_argument("event " + topic + ": no topic or no handler");
  if (!handlers_.emplace(topic, std::move(handler)).second) throw std::invalid_argument("event " + topic + " has a handler already");
}

const EventHandler* Events::Find(std::string_view topic) const {
  if (auto exact = handlers_.find(topic); exact != handlers_.end()) return &exact->second;
  for (size_t dot = topic.rfind('.'); dot != std::string_view::npos && dot > 0; dot = topic.rfind('.', dot - 1)) {
    auto wild = handlers_.find(std::string(topic.substr(0, dot)) + ".*");
    if (wild != handlers_.end()) return &wild->second;
  }
  return nullptr;
}

std::string Events::Publish(Transaction& transaction, std::string_view topic, std::string_view key, const Json& payload) {
  Rows rows = transaction.Query("SELECT bulkhead.publish($1, $2, $3::jsonb)::text", {topic, key, Dump(payload)});
  published_.fetch_add(1, std::memory_order_relaxed);
  return rows.front().Get<std::string>(0);
}

std::vector<std::string> Events::PublishMany(Transaction& transaction, const std::vector<Publication>& events) {
  std::vector<std::string> topics, keys, payloads, ids;
  for (const Publication& event : events) {
    topics.push_back(event.topic);
    keys.push_back(event.key);
    payloads.push_back(Dump(event.payload));
  }
  const Rows rows = transaction.Query("SELECT unnest(bulkhead.publish_many($1, $2, $3))::text", {topics, keys, payloads});
  for (const Row& row : rows) ids.push_back(row.Get<std::string>(0));
  published_.fetch_add(int64_t(ids.size()), std::memory_order_relaxed);
  return ids;
}

std::string Events::Publish(std::string_view topic, std::string_view key, const Json& payload) {
  if (!publish_) throw HostError("there is no supervisor to publish to", false);
  std::string id = publish_(topic, key, Dump(payload));
  published_.fetch_add(1, std::memory_order_relaxed);
  return id;
}

}  // namespace bulkhead::sdk
