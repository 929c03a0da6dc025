// Query parameters, checked: every wrong one is collected, and Check() refuses the request with all of them at once
// (400 INVALID_ARGUMENT, details [{path, code, message}]). One object per request.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "bulkhead/http.h"
#include "domain/timestamp.h"

namespace consumption {

class Parameters {
 public:
  // Refuses parameters that are not in `known`, and those given twice. The request must outlive this object.
  Parameters(const bulkhead::sdk::Request& request, std::initializer_list<std::string_view> known);

  // Absent parameters give nullopt or `fallback`; wrong ones too, and Check() throws.
  int64_t Integer(std::string_view name, int64_t fallback, int64_t min, int64_t max);
  std::optional<Timestamp> Time(std::string_view name);
  // A name as endpoints and metrics have: 1 to kMaxName of letters, digits, '.', '_' and '-'.
  std::optional<std::string> Name(std::string_view name);
  std::string OneOf(std::string_view name, std::string_view fallback, std::initializer_list<std::string_view> allowed);

  // For rules between parameters.
  void Refuse(std::string_view name, std::string_view code, const std::string& message);
  // Throws HttpError when anything was refused.
  void Check() const;

  static constexpr size_t kMaxName = 64;
  static bool IsName(std::string_view text);

 private:
  const bulkhead::sdk::Request& request_;
  bulkhead::sdk::Json problems_ = bulkhead::sdk::Json::array();
};

}  // namespace consumption
