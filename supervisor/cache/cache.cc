#include "supervisor/cache/cache.h"

#include <utility>

#include "supervisor/base/digest.h"
#include "supervisor/base/status.h"

namespace bulkhead {

Cache::Cache(Loop& loop, const Clock& clock, const Options& options)
    : shared_(clock, {options.max_bytes, options.max_bytes_per_module,
                      [&loop](Millis in, std::function<void()> then) { loop.Post([&loop, in, then = std::move(then)] { loop.After(in, then); }); },
                      [this](const std::string& module, const cache::Names& names) {
                        if (peers_) peers_->Tell(module, names);
                      }}) {}

absl::StatusOr<std::unique_ptr<Cache>> Cache::Make(Loop& loop, const Clock& clock, Options options) {
  auto made = std::unique_ptr<Cache>(new Cache(loop, clock, options));
  if (options.conninfo.empty()) return made;
  // A key of its own from the one that never changes: those for secrets may be changed on one node before the others.
  ASSIGN_OR_RETURN(made->box_, SecretBox::Load("", HmacHex(options.master_key, "cache invalidations")));
  SharedCache& shared = made->shared_;
  made->peers_ = std::make_unique<CachePeers>(options.conninfo, *made->box_,
                                              CachePeers::Heard{[&shared](const std::string& module, const cache::Names& names) { shared.Heed(module, names); },
                                                                [&shared] { shared.ForgetAll(); }});
  return made;
}

}  // namespace bulkhead
