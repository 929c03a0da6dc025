// A migration file cut into statements the way PostgreSQL's own lexer sees it, so that a `;` or COMMIT inside a string, a
// function or a comment is not one. Assumes standard_conforming_strings. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bulkhead {

struct SqlStatement {
  std::string_view text;           // from its first token, without the closing ';' and what follows it
  int line = 1, column = 1;        // of its first token; columns count characters
  std::vector<std::string> words;  // its leading bare words in capitals, at most kMaxWords
  static constexpr size_t kMaxWords = 8;
};

// Views into `script`. A quote or comment that never ends is DATABASE_ERROR 42601 with the place where it opens. What only psql
// understands (\i, \c, …) and COPY from STDIN or to STDOUT, which have nobody to talk to, are MIGRATION_FAILED with their place.
absl::StatusOr<std::vector<SqlStatement>> SplitSql(std::string_view script);

// BEGIN, START TRANSACTION, COMMIT, END, ROLLBACK (not to a savepoint), ABORT, PREPARE TRANSACTION, and their PREPARED forms.
bool IsTransactionControl(const SqlStatement& statement);

// The index that a CREATE [UNIQUE] INDEX CONCURRENTLY names, as an identifier for the server ("i", "\"My index\""); empty for
// every other statement and for an index without a name.
std::string ConcurrentIndex(const SqlStatement& statement);

struct TextPlace {
  int line = 0, column = 0;  // from 1; 0: not known
};
// Of a byte, and of a position that the server counts in characters from 1.
TextPlace PlaceOfByte(std::string_view script, size_t byte);
TextPlace PlaceOfCharacter(std::string_view script, int64_t position);

}  // namespace bulkhead
