// The module's log: one JSON line per event on stdout, which the supervisor reads, tags with the module's name and bounds
// (1,000 lines a second, 16 KiB a line; longer messages are cut here). Thread-safe. What a module prints to stdout or
// stderr by other means is logged as raw text.
#pragma once

#include <string_view>

#include "bulkhead/errors.h"

namespace bulkhead::sdk {

class Logger {
 public:
  // `fields` is an object: log.Info("reading stored", {{"endpoint", id}, {"bytes", n}}). Never pass a secret. Invalid UTF-8 is
  // replaced.
  void Debug(std::string_view message, const Json& fields = Json::object()) const { Write("debug", message, fields); }
  void Info(std::string_view message, const Json& fields = Json::object()) const { Write("info", message, fields); }
  void Warn(std::string_view message, const Json& fields = Json::object()) const { Write("warn", message, fields); }
  void Error(std::string_view message, const Json& fields = Json::object()) const { Write("error", message, fields); }

 private:
  void Write(std::string_view level, std::string_view message, const Json& fields) const;
};

}  // namespace bulkhead::sdk
