// The module that the tests of files let keep files: what is put, read and removed is said in each request, and each answer names its worker.
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>

#include "bulkhead/module.h"

namespace {

using namespace bulkhead::sdk;
using std::chrono::milliseconds;

Json ToJson(const FileInfo& file) {
  return {{"name", file.name}, {"bytes", file.bytes}, {"at", std::chrono::duration_cast<milliseconds>(file.modified.time_since_epoch()).count()}};
}

class Keeper : public Module {
 public:
  void Initialize(Context& context) override {
    context_ = &context;
    Router& router = context.router();
    router.Post("/do", [this](Request& request) { return Do(Json::parse(request.body())); });
    router.Put("/files/*", [this](Request& request) { return Upload(request); }).StreamBody();
    router.Get("/files/*", [this](Request& request) {
      const std::string name(request.param("*"));
      if (!context_->files().Stat(name)) throw HttpError(404, "NO_FILE", "there is no such file");
      return Stream("application/octet-stream", [this, name](ResponseWriter& out) {
        context_->files().Read(name, {}, [&](std::string_view part) { return out.Write(part); });
      });
    });
  }

 private:
  Response Answer(Json data) const {
    data["slot"] = context_->slot();
    data["pid"] = getpid();
    return Ok(std::move(data));
  }

  // As it comes from the client, in the time that he takes for it.
  Response Upload(Request& request) {
    const auto writer = context_->files().Create(request.param("*"));
    std::string part(64 * 1024, ' ');
    while (const size_t n = request.Read(part.data(), part.size())) writer->Write(std::string_view(part).substr(0, n));
    return Answer({{"file", ToJson(writer->Commit())}});
  }

  // {"op", …}; what the SDK throws is in the answer, but what a handler lets pass with "pass".
  Response Do(const Json& body) {
    if (body.value("pass", false)) return Answer(Act(body));
    try {
      return Answer(Act(body));
    } catch (const NoRoom& error) {
      return Answer({{"error", "NoRoom"}, {"code", error.code()}, {"what", error.what()}});
    } catch (const std::invalid_argument& error) {
      return Answer({{"error", "invalid_argument"}, {"what", error.what()}});
    } catch (const HostError& error) {
      return Answer({{"error", "HostError"}, {"transient", error.transient()}, {"what", error.what()}});
    }
  }

  Json Act(const Json& body) {
    Files& files = context_->files();
    const std::string op = body.at("op").get<std::string>(), name = body.value("name", "");
    if (op == "put") return {{"file", ToJson(files.Put(name, Content(body)))}};
    if (op == "slow") return Slow(name, body);
    if (op == "get") {
      FileRange range{body.value("offset", int64_t{0}), std::nullopt};
      if (body.contains("length")) range.length = body["length"].get<int64_t>();
      const std::optional<std::string> bytes = files.Get(name, range);
      return {{"text", bytes ? Json(*bytes) : Json()}};
    }
    if (op == "whole") return Whole(name);
    if (op == "stat") {
      const std::optional<FileInfo> file = files.Stat(name);
      return {{"file", file ? ToJson(*file) : Json()}};
    }
    if (op == "list") {
      const FileList list = files.List(body.value("prefix", ""), body.value("after", ""), body.value("limit", 1'000));
      Json found = Json::array();
      for (const FileInfo& file : list.files) found.push_back(ToJson(file));
      return {{"files", std::move(found)}, {"more", list.more}};
    }
    if (op == "space") {
      const FileSpace space = files.Space();
      return {{"bytes", space.bytes}, {"files", space.files}, {"maxBytes", space.max_bytes}, {"maxFiles", space.max_files}};
    }
    if (op == "remove") return {{"removed", files.Remove(name)}};
    if (op == "rename") return {{"renamed", files.Rename(name, body.at("to").get<std::string>())}};
    if (op == "dir") return {{"dataDir", context_->data_dir()}};
    throw HttpError(400, "UNKNOWN", "unknown operation " + op);
  }

  // "text", or "size" times the character "of".
  static std::string Content(const Json& body) {
    if (body.contains("text")) return body["text"].get<std::string>();
    return std::string(body.value("size", size_t{0}), body.value("of", "x")[0]);
  }

  // "parts" of "size" bytes each, with "ms" between them; "abandon": without a Commit.
  Json Slow(const std::string& name, const Json& body) {
    const auto writer = context_->files().Create(name, body.value("reserve", int64_t{0}));
    for (int part = body.at("parts").get<int>(); part > 0; --part) {
      writer->Write(Content(body));
      std::this_thread::sleep_for(milliseconds(body.value("ms", 0)));
    }
    if (body.value("abandon", false)) return Json::object();
    return {{"file", ToJson(writer->Commit())}};
  }

  // Whether all bytes of the file are the same: it is one content and no mixture.
  Json Whole(const std::string& name) {
    int64_t bytes = 0;
    char of = 0;
    bool whole = true;
    const auto file = context_->files().Read(name, {}, [&](std::string_view part) {
      if (of == 0) of = part[0];
      bytes += static_cast<int64_t>(part.size());
      whole = whole && part.find_first_not_of(of) == std::string_view::npos;
      return true;
    });
    if (!file) return {{"there", false}};
    return {{"there", true}, {"whole", whole && bytes == file->bytes}, {"bytes", bytes}, {"of", of == 0 ? "" : std::string(1, of)}};
  }

  Context* context_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) { return Run<Keeper>(argc, argv); }
