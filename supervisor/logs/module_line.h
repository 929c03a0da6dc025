// One line that a module has printed, read: a JSON object with `level` and `message` (or `msg`) is structured, anything else is raw. Pure, but
// for LogModuleLine().
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "supervisor/base/log.h"

namespace bulkhead {

struct ModuleLine {
  struct Field {
    std::string name;
    std::string json;     // its value as JSON text, valid UTF-8
    bool scalar = true;   // no object and no array
  };
  LogLevel level = LogLevel::kInfo;  // of a raw line info
  std::string message;               // valid UTF-8
  bool structured = false;
  std::vector<Field> fields;  // of a structured line, but for level and message; at most 32 and one that counts the others
};

// Levels are known by the names of common loggers and by the numbers of pino and bunyan; others count as info. JSON that is nested deeper
// than 16 levels is a raw line.
ModuleLine ReadModuleLine(std::string_view text);

// Into the supervisor's log, as component "module/<name>": a structured line with its scalar fields, a raw one with its stream.
void LogModuleLine(std::string_view module, std::string_view stream, const ModuleLine& line);

}  // namespace bulkhead
