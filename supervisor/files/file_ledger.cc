#include "supervisor/files/file_ledger.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "supervisor/base/log.h"
#include "supervisor/base/status.h"

namespace bulkhead {

int64_t FileLedger::Counted(const Name& name) { return std::max(name.stored ? name.stored->bytes : 0, name.coming); }

template <typename F>
void FileLedger::Change(const std::string& name, F change) {
  const auto found = names_.try_emplace(name).first;
  Name& entry = found->second;
  counted_bytes_ -= Counted(entry);
  if (entry.stored) stored_ = {stored_.bytes - entry.stored->bytes, stored_.files - 1};
  change(entry);
  counted_bytes_ += Counted(entry);
  if (entry.stored) stored_ = {stored_.bytes + entry.stored->bytes, stored_.files + 1};
  BULKHEAD_CHECK(entry.coming >= 0 && entry.puts >= 0 && counted_bytes_ >= stored_.bytes);
  if (!entry.stored && entry.puts == 0) names_.erase(found);
}

absl::Status FileLedger::Admit(int64_t bytes, int64_t files) const {
  if (counted_bytes_ > bytes && counted_bytes_ > quota_.bytes) {
    return Error("QUOTA_EXCEEDED", absl::StrCat("The module's files would take ", counted_bytes_, " bytes with this, and may take ", quota_.bytes,
                                                "; remove some, or raise `limits.storage` of its manifest."));
  }
  if (counted_files() > files && counted_files() > quota_.files) {
    return Error("QUOTA_EXCEEDED", absl::StrCat("The module has ", files, " files and may have ", quota_.files,
                                                "; remove some, or raise `limits.files` of its manifest."));
  }
  return absl::OkStatus();
}

void FileLedger::Restore(const std::string& name, int64_t bytes, WallTime modified) {
  Change(name, [&](Name& entry) { entry.stored = Stored{bytes, modified}; });
}

absl::Status FileLedger::Begin(Put put, const std::string& name) {
  const int64_t bytes = counted_bytes_, files = counted_files();
  puts_[put] = {name, 0};
  Change(name, [](Name& entry) { ++entry.puts; });
  const absl::Status admitted = Admit(bytes, files);
  if (!admitted.ok()) Abort(put);
  return admitted;
}

absl::Status FileLedger::Grow(Put put, int64_t by) {
  Coming& coming = puts_.at(put);
  const int64_t bytes = counted_bytes_, files = counted_files();
  coming.bytes += by;
  Change(coming.name, [&](Name& entry) { entry.coming += by; });
  const absl::Status admitted = Admit(bytes, files);
  if (!admitted.ok()) Abort(put);
  return admitted;
}

void FileLedger::Commit(Put put, int64_t bytes, WallTime modified) {
  const auto found = puts_.find(put);
  BULKHEAD_CHECK(found != puts_.end() && bytes <= found->second.bytes);
  const Coming coming = std::move(found->second);
  puts_.erase(found);
  Change(coming.name, [&](Name& entry) {
    --entry.puts;
    entry.coming -= coming.bytes;
    entry.stored = Stored{bytes, modified};
  });
}

void FileLedger::Abort(Put put) {
  const auto found = puts_.find(put);
  if (found == puts_.end()) return;
  const Coming coming = std::move(found->second);
  puts_.erase(found);
  Change(coming.name, [&](Name& entry) {
    --entry.puts;
    entry.coming -= coming.bytes;
  });
}

void FileLedger::Remove(const std::string& name) {
  Change(name, [](Name& entry) { entry.stored.reset(); });
}

absl::Status FileLedger::Rename(const std::string& from, const std::string& to) {
  if (from == to) return absl::OkStatus();
  const int64_t bytes = counted_bytes_, files = counted_files();
  const std::optional<StoredFile> moved = Find(from), replaced = Find(to);
  BULKHEAD_CHECK(moved.has_value());
  Remove(from);
  Restore(to, moved->bytes, moved->modified);
  const absl::Status admitted = Admit(bytes, files);
  if (!admitted.ok()) TakeBack(from, to, replaced);
  return admitted;
}

void FileLedger::TakeBack(const std::string& from, const std::string& to, const std::optional<StoredFile>& replaced) {
  const std::optional<StoredFile> moved = Find(to);
  if (from == to || !moved) return;
  Restore(from, moved->bytes, moved->modified);
  if (replaced) {
    Restore(to, replaced->bytes, replaced->modified);
  } else {
    Remove(to);
  }
}

std::optional<StoredFile> FileLedger::Find(const std::string& name) const {
  const auto found = names_.find(name);
  if (found == names_.end() || !found->second.stored) return std::nullopt;
  return StoredFile{name, found->second.stored->bytes, found->second.stored->modified};
}

HostFiles::Page FileLedger::List(std::string_view prefix, std::string_view after, size_t limit) const {
  HostFiles::Page page;
  auto entry = after < prefix ? names_.lower_bound(prefix) : names_.upper_bound(after);
  for (; entry != names_.end() && entry->first.starts_with(prefix); ++entry) {
    if (!entry->second.stored) continue;
    page.more = page.files.size() == limit;
    if (page.more) break;
    page.files.push_back({entry->first, entry->second.stored->bytes, entry->second.stored->modified});
  }
  return page;
}

size_t FileLedger::Count(std::string_view prefix) const {
  if (prefix.empty()) return static_cast<size_t>(stored_.files);
  size_t count = 0;
  for (auto entry = names_.lower_bound(prefix); entry != names_.end() && entry->first.starts_with(prefix); ++entry) count += entry->second.stored ? 1 : 0;
  return count;
}

}  // namespace bulkhead
