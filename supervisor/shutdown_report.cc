#include "supervisor/shutdown_report.h"

#include <set>

namespace bulkhead {
namespace {

constexpr std::string_view kInitdb = "initdb.", kInitdbSync = "initdb-sync.";

std::string ModuleOf(const std::string& id) { return id.substr(0, id.find('.')); }

}  // namespace

void ShutdownReport::Add(const std::string& id, const std::vector<KilledProcess>& killed) {
  if (id.starts_with(kInitdb) || id.starts_with(kInitdbSync)) return;
  std::string text;
  for (const KilledProcess& process : killed) {
    const std::string why = !process.main ? "left behind by it" : why_.empty() ? "did not end when asked" : "because of " + why_;
    text += (text.empty() ? "" : ", ") + process.name + " (" + why + ")";
  }
  if (!text.empty()) lines_.push_back({ModuleOf(id), text});
}

void ShutdownReport::Stuck(const std::string& id) {
  stuck_ = true;
  lines_.push_back({ModuleOf(id), "a process that was killed and does not end: it is stuck in the kernel"});
}

void ShutdownReport::LeftBehind(const std::vector<std::string>& what) { left_.insert(left_.end(), what.begin(), what.end()); }

std::string ShutdownReport::modules() const {
  std::set<std::string> names;
  for (const Line& line : lines_) names.insert(line.module);
  for (const std::string& one : left_) {
    if (const size_t name_end = one.find(" ("); name_end != std::string::npos) names.insert(one.substr(0, name_end));
  }
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string ShutdownReport::processes() const {
  std::string text;
  for (const Line& line : lines_) text += (text.empty() ? "" : "; ") + line.module + ": " + line.text;
  return text;
}

std::string ShutdownReport::left() const {
  std::string text;
  for (const std::string& one : left_) text += (text.empty() ? "" : ", ") + one;
  return text;
}

}  // namespace bulkhead
