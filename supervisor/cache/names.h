// Names of what is invalidated, gathered while nobody can be told. Private to this room.
#pragma once

#include <cstddef>

#include "bulkhead/cache/memory.h"

namespace bulkhead {

// `into` names what both did; beyond `most` names it is everything.
inline void AddNames(cache::Names& into, const cache::Names& more, size_t most) {
  if (into.all) return;
  into.all = more.all || into.keys.size() + into.tags.size() + more.keys.size() + more.tags.size() > most;
  if (into.all) {
    into.keys.clear();
    into.tags.clear();
    return;
  }
  into.keys.insert(into.keys.end(), more.keys.begin(), more.keys.end());
  into.tags.insert(into.tags.end(), more.tags.begin(), more.tags.end());
}

}  // namespace bulkhead
