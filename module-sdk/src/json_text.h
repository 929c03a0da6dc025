// JSON as bytes that may leave the process, and the shape of every error body.
#pragma once

#include <string>
#include <string_view>

#include "bulkhead/errors.h"

namespace bulkhead::sdk {

// Never throws for invalid UTF-8: such bytes are replaced.
inline std::string Dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

// proto3 strings must be UTF-8, an author's text need not be.
inline std::string Utf8(std::string_view text) { return Json::parse(Dump(Json(text))).get<std::string>(); }

std::string ErrorBody(std::string_view code, std::string_view message, const Json& details, std::string_view request_id);

// The readable name of what was thrown, "std::out_of_range".
std::string TypeName(const std::exception& error);

}  // namespace bulkhead::sdk
