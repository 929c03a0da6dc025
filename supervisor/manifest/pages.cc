// A module's part of the console: its pages and the entries of the menu.
#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "supervisor/base/text.h"
#include "supervisor/manifest/reader.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr size_t kMaxEntries = 100;   // of pages, of the menu, and below one entry of it
constexpr size_t kMaxPagePath = 512;  // characters

// "" when a page can be there, else a sentence.
std::string PagePathFault(const std::string& path) {
  if (path.empty() || path[0] != '/') return "The path of a page begins with \"/\".";
  std::string decoded;  // a browser does it
  if (!PercentDecode(path, decoded)) return "The path of a page has a broken percent-encoding.";
  for (unsigned char c : decoded) {
    if (c < 0x20 || c == 0x7f || c == '\\') return "The path of a page has no control character and no backslash.";
  }
  if (absl::StrContains(decoded, "//")) return "The path of a page has no \"//\" in it.";
  for (absl::string_view part : absl::StrSplit(decoded, '/')) {
    if (part == ".." || part == ".") return "The path of a page has no \".\" or \"..\" in it.";
  }
  return "";
}

// What the console loads lies below the module's ui/ and nowhere else.
void CheckFile(ObjectReader& item, const char* name, Findings& out) {
  const auto file = item.String(name, 255);
  if (!file || (IsInnerPath(*file) && !absl::StrContains(*file, ":"))) return;
  out.Error(
      item.PathOf(name), "INVALID_PATH",
      absl::StrCat("\"", name, "\" must be a file below the module's ui/: no URL, not absolute, without \"..\", empty parts, ",
                   "backslashes and percent-encoding."));
}

void ReadEntries(ObjectReader& parent, const char* list, bool pages, const Manifest& manifest, Findings& out) {
  const json* items = parent.Array(list, kMaxEntries);
  std::set<std::string> seen;
  for (size_t i = 0; items != nullptr && i < items->size(); ++i) {
    ObjectReader item((*items)[i], PointerTo(parent.PathOf(list), i), out);
    if (!(*items)[i].is_object()) continue;
    item.Require("path");
    if (auto path = item.String("path", kMaxPagePath)) {
      if (std::string fault = PagePathFault(*path); !fault.empty()) {
        out.Error(item.PathOf("path"), "INVALID_ROUTE_PATH", std::move(fault));
      } else if (pages && !seen.insert(*path).second) {
        out.Error(item.PathOf("path"), "DUPLICATE", absl::StrCat("There is a page \"", *path, "\" above already."));
      }
    }
    CheckPermissions(item.Strings("permissions", 64, 128), item.PathOf("permissions"), manifest, out);
    CheckFile(item, "component", out);
    CheckFile(item, "entry", out);
    item.Labels({"title", "label", "icon", "description", "parent", "group", "layout", "element"});
    item.Number("order");
    item.Bool("exact");
    ReadEntries(item, "children", pages, manifest, out);
    item.WarnUnknown();
  }
}

}  // namespace

void ReadUi(const json& ui, const std::string& path, Manifest& manifest, Findings& out) {
  ObjectReader reader(ui, path, out);
  ReadEntries(reader, "pages", true, manifest, out);
  ReadEntries(reader, "navigation", false, manifest, out);
  if (auto entry = reader.String("entry")) CheckInnerPath(*entry, reader.PathOf("entry"), "entry", out);
  out.Warn(path, "NOT_APPLIED", "\"ui\" has no effect in this version: pages of modules are not served.");
  reader.WarnUnknown();
}

}  // namespace bulkhead
