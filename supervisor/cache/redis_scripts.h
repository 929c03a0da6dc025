// What Redis does for the cache in one step each. Private to this room; redis_level.h says what it means.
//
// Keys: <prefix>l the life, <prefix>f<node> the fence of a node, <prefix>m<space> the module, <prefix>k<space><key> a value, <prefix>t<space><tag> a tag's
// token; a space begins with its length. A module is a hash: l the life that it belongs to, e its epoch, s how many invalidations there were, f up to
// which of them they are not remembered one by one, k<key> and t<tag> the last one of each. A value is a hash: h what says whether it is valid, v its bytes.
// Whatever of it is missing (evicted, expired, flushed) makes more invalid, never less.
#pragma once

#include <string_view>

namespace bulkhead::cache_scripts {

// KEYS 1 life, 2 module. ARGV 1 a text that nobody else has, 2 time to live of what is no value. Leaves m: life, epoch, invalidations, floor.
inline constexpr std::string_view kBegin = R"lua(
local life = redis.call('GET', KEYS[1])
if not life then
  life = ARGV[1]
  redis.call('SET', KEYS[1], life, 'PX', ARGV[2])
end
local m = redis.call('HMGET', KEYS[2], 'l', 'e', 's', 'f')
local function anew(epoch, at)
  redis.call('UNLINK', KEYS[2])
  m = {life, epoch, at, at}
  redis.call('HSET', KEYS[2], 'l', life, 'e', epoch, 's', at, 'f', at)
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
if m[1] ~= life then anew(ARGV[1], '0') end
local function keep()
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
local function remember(names, most)
  local at = tostring(redis.call('HINCRBY', KEYS[2], 's', 1))
  if redis.call('HLEN', KEYS[2]) + #names > tonumber(most) then return anew(m[2], at) end
  for _, name in ipairs(names) do redis.call('HSET', KEYS[2], name, at) end
end
)lua";

// KEYS 3 value. ARGV 3 prefix of tags. Answers epoch and invalidations; when it is found also nothing, for ever (1 or 0), what is left of its time,
// bytes, tags.
inline constexpr std::string_view kGet = R"lua(
local h = redis.call('HGET', KEYS[3], 'h')
if not h then return {m[2], m[3]} end
local head = cmsgpack.unpack(h)
if head[1] ~= m[2] then return {m[2], m[3]} end
local found = {m[2], m[3], head[2], head[3], redis.call('PTTL', KEYS[3]), redis.call('HGET', KEYS[3], 'v') or ''}
for i = 4, #head, 2 do
  if redis.call('GET', ARGV[3] .. head[i]) ~= head[i + 1] then return {m[2], m[3]} end
  found[#found + 1] = head[i]
end
return found
)lua";

// KEYS 3 fence, 4 value. ARGV 3 our fence, 4 prefix of tags, 5 time to live, 6 for ever, 7 nothing, 8 key, 9 bytes, 10 and 11 epoch and invalidations when
// it was read, or empty for the new value, 12 how many names are remembered, 13… tags. Answers what became of it.
inline constexpr std::string_view kStore = R"lua(
if redis.call('GET', KEYS[3]) ~= ARGV[3] then return 'fenced' end
local names = {'k' .. ARGV[8]}
if ARGV[10] == '' then
  remember(names, ARGV[12])
else
  if m[2] ~= ARGV[10] or tonumber(ARGV[11]) < tonumber(m[4]) then return 'overtaken' end
  for i = 13, #ARGV do names[#names + 1] = 't' .. ARGV[i] end
  for _, at in ipairs(redis.call('HMGET', KEYS[2], unpack(names))) do
    if at and tonumber(at) > tonumber(ARGV[11]) then return 'overtaken' end
  end
end
local head = {m[2], ARGV[7], ARGV[6]}
for i = 13, #ARGV do
  local key = ARGV[4] .. ARGV[i]
  local token = redis.call('GET', key)
  if not token then
    token = ARGV[1] .. ' ' .. i
    redis.call('SET', key, token, 'PX', ARGV[5])
  elseif redis.call('PTTL', key) < tonumber(ARGV[5]) then
    redis.call('PEXPIRE', key, ARGV[5])
  end
  head[#head + 1] = ARGV[i]
  head[#head + 1] = token
end
redis.call('UNLINK', KEYS[4])
redis.call('HSET', KEYS[4], 'h', cmsgpack.pack(head))
if ARGV[7] == '0' then redis.call('HSET', KEYS[4], 'v', ARGV[9]) end
redis.call('PEXPIRE', KEYS[4], ARGV[5])
keep()
return 'stored'
)lua";

// ARGV 3 prefix of keys, 4 of tags, 5 everything (1 or 0), 6 how many names are remembered, 7 how many keys, 8… keys, then tags.
inline constexpr std::string_view kInvalidate = R"lua(
if ARGV[5] == '1' then
  anew(ARGV[1], '0')
else
  local names = {}
  for i = 8, #ARGV do
    local of_key = i < 8 + tonumber(ARGV[7])
    redis.call('UNLINK', (of_key and ARGV[3] or ARGV[4]) .. ARGV[i])
    names[#names + 1] = (of_key and 'k' or 't') .. ARGV[i]
  end
  remember(names, ARGV[6])
end
keep()
return 'dropped'
)lua";

}  // namespace bulkhead::cache_scripts
