// What a module may reach, and how much it insists on its isolation.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "supervisor/manifest/reader.h"

namespace bulkhead {
namespace {

using nlohmann::json;

constexpr size_t kMaxAccessFiles = 256;
constexpr size_t kMaxAccessPath = 4096;  // PATH_MAX
constexpr size_t kMaxAccessPorts = 64;
constexpr int kMaxPort = 65'535;

bool IsNormalPath(std::string_view path) {
  if (path.size() < 2 || path.front() != '/') return false;
  if (std::any_of(path.begin(), path.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; })) return false;
  for (absl::string_view part : absl::StrSplit(View(path.substr(1)), '/')) {
    if (part.empty() || part == "." || part == "..") return false;
  }
  return true;
}

void AddFile(const std::string& path, bool write, const std::string& pointer, Manifest& manifest, Findings& out) {
  if (Characters(path) > kMaxAccessPath)
    return out.Error(pointer, "TOO_LONG", absl::StrCat("A path may have at most ", kMaxAccessPath, " characters."));
  if (!IsNormalPath(path)) {
    return out.Error(pointer, "INVALID_PATH",
                     "What a module may reach is named from the root on, such as \"/opt/prices\": without \".\", \"..\", empty parts, "
                     "control characters and a slash at the end, and not the root itself.");
  }
  auto twin = std::find_if(manifest.access_files.begin(), manifest.access_files.end(), [&](const FileAccess& f) { return f.path == path; });
  if (twin == manifest.access_files.end()) return manifest.access_files.push_back({path, write});
  twin->write |= write;
  out.Warn(pointer, "DUPLICATE", absl::StrCat("\"", path.substr(0, 256), "\" is named twice; what either allows is allowed."));
}

void ReadFiles(const json& files, const std::string& path, Manifest& manifest, Findings& out) {
  for (size_t i = 0; i < files.size(); ++i) {
    const std::string pointer = PointerTo(path, i);
    if (files[i].is_string()) {
      AddFile(files[i].get<std::string>(), false, pointer, manifest, out);
      continue;
    }
    if (!files[i].is_object()) {
      out.Error(pointer, "WRONG_TYPE", absl::StrCat("What it may reach is a path or an object, not ", TypeName(files[i]), "."));
      continue;
    }
    ObjectReader file(files[i], pointer, out);
    file.Require("path");
    const auto place = file.String("path", kMaxAccessPath);
    const auto mode = file.String("mode");
    if (mode && *mode != "read" && *mode != "write")
      out.Error(file.PathOf("mode"), "INVALID_VALUE", "\"mode\" is \"read\" or \"write\".");
    if (place) AddFile(*place, mode == "write", file.PathOf("path"), manifest, out);
    file.WarnUnknown();
  }
}

void ReadPorts(const json& ports, const std::string& path, Manifest& manifest, Findings& out) {
  for (size_t i = 0; i < ports.size(); ++i) {
    const std::string pointer = PointerTo(path, i);
    if (!ports[i].is_number()) {
      out.Error(pointer, "WRONG_TYPE", absl::StrCat("A port is a number, not ", TypeName(ports[i]), "."));
      continue;
    }
    const auto port = ports[i].get<double>();
    if (port != std::floor(port) || port < 1 || port > kMaxPort) {
      out.Error(pointer, "OUT_OF_RANGE", absl::StrCat("A port must be a whole number from 1 to ", kMaxPort, "."));
      continue;
    }
    const auto number = static_cast<uint16_t>(port);
    if (std::find(manifest.network_ports.begin(), manifest.network_ports.end(), number) == manifest.network_ports.end()) {
      manifest.network_ports.push_back(number);
    } else {
      out.Warn(pointer, "DUPLICATE", absl::StrCat("The port ", number, " is named twice."));
    }
  }
}

std::optional<NetworkAccess> ModeNamed(std::string_view name) {
  for (NetworkAccess mode : {NetworkAccess::kNone, NetworkAccess::kLoopback, NetworkAccess::kPorts, NetworkAccess::kOutbound}) {
    if (name == NetworkAccessName(mode)) return mode;
  }
  return std::nullopt;
}

// "ports" beside `"network": "ports"`, or {"ports": [5432]} in its place.
void ReadNetwork(ObjectReader& access, Manifest& manifest, Findings& out) {
  const json* network = access.Get("network");
  const json* ports = access.Array("ports", kMaxAccessPorts);
  std::string mode_path = access.PathOf("network"), ports_path = access.PathOf("ports");
  std::optional<std::string> mode;
  std::optional<ObjectReader> object;
  if (network != nullptr && network->is_object()) {
    object.emplace(*network, mode_path, out);
    if (ports != nullptr) out.Error(ports_path, "INVALID_VALUE", "The ports are named twice: keep those in \"network\".");
    ports = object->Array("ports", kMaxAccessPorts);
    mode = object->String("mode");
    if (!mode) mode = "ports";
    mode_path = object->PathOf("mode");
    ports_path = object->PathOf("ports");
    object->WarnUnknown();
  } else if (network != nullptr && network->is_string()) {
    mode = network->get<std::string>();
  } else if (network != nullptr) {
    out.Error(mode_path, "WRONG_TYPE", "\"network\" is \"none\", \"loopback\", \"ports\", \"outbound\" or an object such as {\"ports\": [443]}.");
  }
  if (mode) manifest.network = ModeNamed(*mode);
  if (mode && !manifest.network) out.Error(mode_path, "INVALID_VALUE", "\"network\" is \"none\", \"loopback\", \"ports\" or \"outbound\".");
  const bool by_ports = manifest.network == NetworkAccess::kPorts;
  if (ports != nullptr && !by_ports && (manifest.network || network == nullptr))
    out.Error(ports_path, "INVALID_VALUE", "\"ports\" goes with \"network\": \"ports\" alone.");
  if (by_ports && ports == nullptr)
    out.Error(ports_path, "REQUIRED", "\"ports\" is missing: the list of TCP ports that it may connect to, which may be empty.");
  if (ports != nullptr) ReadPorts(*ports, ports_path, manifest, out);
}

}  // namespace

void ReadAccess(const json& value, const std::string& path, Manifest& manifest, Findings& out) {
  ObjectReader access(value, path, out);
  if (const json* files = access.Array("files", kMaxAccessFiles)) ReadFiles(*files, access.PathOf("files"), manifest, out);
  ReadNetwork(access, manifest, out);
  access.WarnUnknown();
}

void ReadIsolation(ObjectReader& top, Manifest& manifest, Findings& out) {
  const json* value = top.Get("isolation");
  if (value == nullptr) return;
  std::string path = top.PathOf("isolation");
  std::optional<std::string> mode;
  if (value->is_string()) {
    mode = value->get<std::string>();
  } else if (value->is_object()) {
    ObjectReader isolation(*value, path, out);
    mode = isolation.String("mode");
    isolation.WarnUnknown();
    path = isolation.PathOf("mode");
  } else {
    out.Error(path, "WRONG_TYPE", absl::StrCat("\"isolation\" is \"available\", \"strict\" or an object with that as \"mode\", not ", TypeName(*value), "."));
  }
  manifest.strict_isolation = mode == "strict";
  if (mode && *mode != "strict" && *mode != "available") out.Error(path, "INVALID_VALUE", "\"isolation\" is \"available\" or \"strict\".");
}

}  // namespace bulkhead
