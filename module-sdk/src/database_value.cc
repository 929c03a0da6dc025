// SQL values as text, both ways: parameters into PostgreSQL's input syntax, columns out of it.
#include <charconv>
#include <cmath>
#include <cstdio>

#include "database_result.h"

namespace bulkhead::sdk {
namespace {

using std::chrono::microseconds;

// Type numbers of pg_type.dat that ToJson tells apart.
enum Oid : unsigned {
  kBool = 16,
  kInt8 = 20,
  kInt2 = 21,
  kInt4 = 23,
  kJson = 114,
  kFloat4 = 700,
  kFloat8 = 701,
  kTimestamp = 1114,
  kTimestamptz = 1184,
  kNumeric = 1700,
  kJsonb = 3802
};

DatabaseError WrongType(const QueryResult& result, int column, const char* type) {
  return DatabaseError(std::string("column ") + pq().PQfname(result.result, column) + " does not read as " + type, "", false);
}

template <typename T>
bool ParseNumber(std::string_view text, T& out) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

bool ParseDouble(std::string_view text, double& out) {
  if (text == "NaN") {
    out = NAN;
    return true;
  }
  if (text == "Infinity") {
    out = INFINITY;
    return true;
  }
  if (text == "-Infinity") {
    out = -INFINITY;
    return true;
  }
  return ParseNumber(text, out);
}

// "2026-01-10 15:17:56.967123+00" as the session's settings print it; a date alone is its midnight. Always UTC.
bool ParseTime(std::string_view text, WallTime& out) {
  auto digits = [&](size_t at, size_t n, int& value) { return at + n <= text.size() && ParseNumber(text.substr(at, n), value); };
  int year, month, day, hour = 0, minute = 0, second = 0;
  if (!digits(0, 4, year) || text.size() < 10 || text[4] != '-' || !digits(5, 2, month) || text[7] != '-' || !digits(8, 2, day))
    return false;
  int64_t micros = 0;
  if (text.size() > 10) {
    if (text.size() < 19 || !digits(11, 2, hour) || !digits(14, 2, minute) || !digits(17, 2, second)) return false;
    size_t at = 19;
    if (at < text.size() && text[at] == '.') {
      int64_t unit = 100'000;
      for (++at; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at, unit /= 10) micros += unit * (text[at] - '0');
    }
    if (at != text.size() && text.substr(at) != "+00") return false;
  }
  std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(unsigned(month)), std::chrono::day(unsigned(day))};
  if (!date.ok()) return false;
  out = std::chrono::sys_days(date) + std::chrono::hours(hour) + std::chrono::minutes(minute) + std::chrono::seconds(second) +
        microseconds(micros);
  return true;
}

struct Broken {
  int year;
  unsigned month, day;
  int hour, minute, second;
  int64_t micros;
};

Broken Break(WallTime time) {
  auto at = std::chrono::floor<microseconds>(time);
  auto day = std::chrono::floor<std::chrono::days>(at);
  std::chrono::year_month_day date(day);
  std::chrono::hh_mm_ss clock(at - day);
  return {int(date.year()),           unsigned(date.month()),       unsigned(date.day()),
          int(clock.hours().count()), int(clock.minutes().count()), int(clock.seconds().count()),
          clock.subseconds().count()};
}

std::string Rfc3339(WallTime time) {
  Broken b = Break(time);
  char out[40];
  snprintf(out, sizeof out, "%04d-%02u-%02uT%02d:%02d:%02d.%03dZ", b.year, b.month, b.day, b.hour, b.minute, b.second,
           int(b.micros / 1000));
  return out;
}

Json NumberJson(std::string_view text) {
  int64_t whole;
  if (ParseNumber(text, whole)) return whole;
  double number;
  if (ParseDouble(text, number) && std::isfinite(number)) return number;
  return text;
}

}  // namespace

Param::Param(double v) {
  if (std::isnan(v)) {
    text_ = "NaN";
    return;
  }
  if (std::isinf(v)) {
    text_ = v > 0 ? "Infinity" : "-Infinity";
    return;
  }
  char out[32];
  auto [end, error] = std::to_chars(out, out + sizeof out, v);
  text_.assign(out, end);
}

Param::Param(WallTime v) {
  Broken b = Break(v);
  char out[48];
  snprintf(out, sizeof out, "%04d-%02u-%02u %02d:%02d:%02d.%06d+00", b.year, b.month, b.day, b.hour, b.minute, b.second,
           int(b.micros));
  text_ = out;
}

Param::Param(const Bytes& v) {
  static constexpr char kHex[] = "0123456789abcdef";
  text_ = "\\x";
  for (unsigned char c : v.data) {
    text_ += kHex[c >> 4];
    text_ += kHex[c & 15];
  }
}

void Param::AppendElement(const Param& element) {
  if (text_.size() > 1) text_ += ',';
  if (element.null_) {
    text_ += "NULL";
    return;
  }
  text_ += '"';
  for (char c : element.text_) {
    if (c == '"' || c == '\\') text_ += '\\';
    text_ += c;
  }
  text_ += '"';
}

int Row::Index(std::string_view column) const {
  int count = pq().PQnfields(result_->result);
  for (int i = 0; i < count; ++i)
    if (pq().PQfname(result_->result, i) == column) return i;
  throw DatabaseError("the result has no column " + std::string(column), "", false);
}

bool Row::IsNull(int column) const {
  if (column < 0 || column >= pq().PQnfields(result_->result))
    throw DatabaseError("the result has no column " + std::to_string(column), "", false);
  if (row_ < 0 || row_ >= pq().PQntuples(result_->result))
    throw DatabaseError("the result has no row " + std::to_string(row_), "", false);
  return pq().PQgetisnull(result_->result, row_, column);
}

std::string_view Row::Text(int column) const {
  if (IsNull(column)) throw DatabaseError(std::string("column ") + pq().PQfname(result_->result, column) + " is NULL", "", false);
  return {pq().PQgetvalue(result_->result, row_, column), size_t(pq().PQgetlength(result_->result, row_, column))};
}

void Row::Read(int column, bool& out) const {
  std::string_view text = Text(column);
  if (text != "t" && text != "f") throw WrongType(*result_, column, "a boolean");
  out = text == "t";
}
void Row::Read(int column, int32_t& out) const {
  if (!ParseNumber(Text(column), out)) throw WrongType(*result_, column, "a 32-bit integer");
}
void Row::Read(int column, int64_t& out) const {
  if (!ParseNumber(Text(column), out)) throw WrongType(*result_, column, "a 64-bit integer");
}
void Row::Read(int column, double& out) const {
  if (!ParseDouble(Text(column), out)) throw WrongType(*result_, column, "a number");
}
void Row::Read(int column, Json& out) const {
  out = Json::parse(Text(column), nullptr, /*allow_exceptions=*/false);
  if (out.is_discarded()) throw WrongType(*result_, column, "JSON");
}
void Row::Read(int column, WallTime& out) const {
  if (!ParseTime(Text(column), out)) throw WrongType(*result_, column, "a time");
}
void Row::Read(int column, Bytes& out) const {
  std::string_view text = Text(column);
  if (!text.starts_with("\\x") || text.size() % 2) throw WrongType(*result_, column, "bytea");
  out.data.clear();
  for (size_t i = 2; i < text.size(); i += 2) {
    unsigned value = 0;
    std::from_chars(text.data() + i, text.data() + i + 2, value, 16);
    out.data += char(value);
  }
}

Json Row::ToJson() const {
  Json object = Json::object();
  for (int i = 0; i < pq().PQnfields(result_->result); ++i) {
    Json& value = object[pq().PQfname(result_->result, i)];
    if (IsNull(i)) continue;
    std::string_view text = Text(i);
    switch (pq().PQftype(result_->result, i)) {
      case kBool: value = text == "t"; break;
      case kInt2:
      case kInt4:
      case kInt8:
      case kFloat4:
      case kFloat8:
      case kNumeric: value = NumberJson(text); break;
      case kJson:
      case kJsonb: Read(i, value); break;
      case kTimestamp:
      case kTimestamptz: {
        WallTime time;
        if (ParseTime(text, time))
          value = Rfc3339(time);
        else
          value = text;  // "infinity" stays text
        break;
      }
      default: value = text;
    }
  }
  return object;
}

int Rows::size() const { return pq().PQntuples(result_->result); }
int Rows::columns() const { return pq().PQnfields(result_->result); }
std::string_view Rows::column_name(int column) const {
  const char* name = pq().PQfname(result_->result, column);
  return name ? name : "";
}
int64_t Rows::affected() const {
  int64_t n = 0;
  std::string_view text = pq().PQcmdTuples(result_->result);
  ParseNumber(text, n);
  return n;
}
std::string_view Rows::command() const { return pq().PQcmdStatus(result_->result); }

Json Rows::ToJson() const {
  Json out = Json::array();
  for (Row row : *this) out.push_back(row.ToJson());
  return out;
}

}  // namespace bulkhead::sdk
