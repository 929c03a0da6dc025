// Which of the routes that came before claims the same requests as a new one. Time and memory grow with the number of routes
// times the number of different shapes among them (where the parameters stand), which stays small whatever the number of routes;
// comparing each pair would grow with its square. Pure; one thread.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace bulkhead {

class RouteConflicts {
 public:
  enum class Kind {
    kNone,
    kSame,       // the same path but for the names of its parameters
    kAmbiguous,  // some request fits both, and neither is the more specific: the same length, the same number of literals
  };
  struct Conflict {
    Kind kind = Kind::kNone;
    size_t earlier = 0;  // the first route that is in the way, counted in the order of Add
  };
  // Compares with what was added before, then adds it, whatever the answer. `path` is well formed: "/a/:b", "/files/*".
  Conflict Add(std::string_view method, std::string_view path);

 private:
  // Routes of one shape, found again by their literals at those places where another shape has literals too.
  struct Bucket {
    std::vector<std::pair<size_t, std::vector<std::string>>>
        routes;  // their number, their literals by place ("" for a parameter)
    std::map<std::vector<bool>, std::unordered_map<std::string, size_t>> by_places;  // places → literals there → the first route
  };
  // What can be in each other's way: the same method, number of segments, number of literals and wildcard. By shape: where a path
  // has literals.
  using Group = std::map<std::vector<bool>, Bucket>;

  static std::string Key(const std::vector<std::string>& literals, const std::vector<bool>& places);
  static std::unordered_map<std::string, size_t>& TableOf(Bucket& bucket, const std::vector<bool>& places);
  std::map<std::string, Group> groups_;
  size_t count_ = 0;
};

}  // namespace bulkhead
