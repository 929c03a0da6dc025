#include "supervisor/manifest/route_conflicts.h"

#include <algorithm>

namespace bulkhead {

// Literals have no "/", so that the key of two different lists is never the same.
std::string RouteConflicts::Key(const std::vector<std::string>& literals, const std::vector<bool>& places) {
  std::string key;
  for (size_t i = 0; i < places.size(); ++i) {
    if (places[i]) key += literals[i];
    key += '/';
  }
  return key;
}

// Made when it is first asked for, kept up by Add from then on.
std::unordered_map<std::string, size_t>& RouteConflicts::TableOf(Bucket& bucket, const std::vector<bool>& places) {
  auto [table, made] = bucket.by_places.try_emplace(places);
  if (made) {
    for (const auto& [number, literals] : bucket.routes) table->second.try_emplace(Key(literals, places), number);
  }
  return table->second;
}

RouteConflicts::Conflict RouteConflicts::Add(std::string_view method, std::string_view path) {
  std::vector<std::string> literals;
  std::vector<bool> shape;
  bool wild = false;
  for (path.remove_prefix(1); !path.empty();) {
    const size_t slash = std::min(path.find('/'), path.size());
    const std::string_view segment = path.substr(0, slash);
    path.remove_prefix(std::min(slash + 1, path.size()));
    if (segment == "*") {
      wild = true;
    } else {
      shape.push_back(segment[0] != ':');
      literals.emplace_back(shape.back() ? segment : std::string_view());
    }
  }
  const auto fixed = std::count(shape.begin(), shape.end(), true);
  Group& group = groups_[std::string(method) + (wild ? " * " : " ") + std::to_string(shape.size()) + " " + std::to_string(fixed)];

  Conflict conflict;
  for (auto& [other, bucket] : group) {
    std::vector<bool> both(shape.size());
    for (size_t i = 0; i < shape.size(); ++i) both[i] = shape[i] && other[i];
    const auto& table = TableOf(bucket, both);
    const auto found = table.find(Key(literals, both));
    if (found == table.end() || (conflict.kind != Kind::kNone && conflict.earlier < found->second)) continue;
    conflict = {other == shape ? Kind::kSame : Kind::kAmbiguous, found->second};
  }

  Bucket& own = group[shape];
  for (auto& [places, table] : own.by_places) table.try_emplace(Key(literals, places), count_);
  own.routes.emplace_back(count_, std::move(literals));
  ++count_;
  return conflict;
}

}  // namespace bulkhead
