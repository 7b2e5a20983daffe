"""What Redis runs as one step: the changes of a label set, and taking from a bucket, in Lua.

Knows nothing of connections. A definition is a hash (version, body, deleted); `names` and `recent`
are sorted sets of the names that are not deleted, and each change repairs them for its name.
`tombstones` is a sorted set of the deleted names by time, `forgotten` the newest version of a
tombstone that is no longer kept.
"""

from typing import Final

# an error where a key holds what another program wrote
_FOREIGN: Final = """
local function foreign(key, wanted)
    local kind = redis.call('TYPE', key).ok
    if kind ~= wanted and kind ~= 'none' then
        return redis.error_reply('FOREIGN ' .. key .. ' is a ' .. kind .. '; delete it')
    end
end
"""

# nothing is changed where that is a list of names; KEYS from 2: the lists
_LISTS: Final = (
    _FOREIGN
    + """
local wrong = foreign(KEYS[2], 'zset') or foreign(KEYS[3], 'zset')
if wrong then
    return wrong
end
"""
)

# KEYS of all: the definition, names, recent, tombstones, forgotten. What is under the first one and
# was not written here is at version 0
_COMMON: Final = (
    _LISTS
    + """
local known = redis.pcall('HMGET', KEYS[1], 'version', 'deleted')
local damaged = known.err ~= nil
if not damaged and known[1] then
    damaged = not string.match(known[1], '^%d+$')
        or (known[2] ~= '1' and redis.call('HEXISTS', KEYS[1], 'body') == 0)
end
if damaged then
    known = {'0', '0'}
end
local alive = known[1] and known[2] ~= '1'
local function forgotten()
    return tonumber(redis.pcall('GET', KEYS[5])) or 0
end
local function keep(version, body)
    if damaged then
        redis.call('DEL', KEYS[1])
    end
    redis.call('HSET', KEYS[1], 'version', version, 'body', body, 'deleted', '0')
end
local function list(name, when)
    redis.call('ZADD', KEYS[2], 0, name)
    local last = redis.call('ZSCORE', KEYS[3], name)
    if not last or tonumber(last) < tonumber(when) then
        redis.call('ZADD', KEYS[3], when, name)
    end
end
local function conflict()
    return {'conflict', alive and known[1] or ''}
end
"""
)

# ARGV: name, body, expected version or '', most, now, least version, and of a quota: how many names
# at most ('': no quota), and the bounds that they lie strictly between
WRITE: Final = (
    _COMMON
    + """
if (alive and known[1] or '') ~= ARGV[3] then
    return conflict()
end
local quota = tonumber(ARGV[7])
if not alive and quota then
    if redis.call('ZLEXCOUNT', KEYS[2], '(' .. ARGV[8], '(' .. ARGV[9]) >= quota then
        return {'own', ''}
    end
end
if not alive and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[4]) then
    return {'full', ''}
end
local newest = tonumber(known[1] or forgotten())
local version = string.format('%d', math.max(newest + 1, tonumber(ARGV[6])))
keep(version, ARGV[2])
list(ARGV[1], ARGV[5])
redis.pcall('ZREM', KEYS[4], ARGV[1])
return {'done', version}
"""
)

# ARGV: version, body
AMEND: Final = (
    _COMMON
    + """
if not alive or damaged or known[1] ~= ARGV[1] then
    return conflict()
end
keep(known[1], ARGV[2])
return {'done', known[1]}
"""
)

# ARGV: name, expected version, now, tombstones to keep, what the keys of definitions begin with,
# least version
DELETE: Final = (
    _COMMON
    + """
if not alive or known[1] ~= ARGV[2] then
    return conflict()
end
local version = string.format('%d', math.max(tonumber(known[1]) + 1, tonumber(ARGV[6])))
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'version', version, 'deleted', '1')
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
if type(redis.pcall('ZADD', KEYS[4], ARGV[3], ARGV[1])) == 'table' then
    redis.call('DEL', KEYS[4])
    redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
end
local over = redis.call('ZCARD', KEYS[4]) - tonumber(ARGV[4])
if over > 0 then
    local newest = forgotten()
    for _, name in ipairs(redis.call('ZRANGE', KEYS[4], 0, over - 1)) do
        local row = redis.pcall('HMGET', ARGV[5] .. name, 'version', 'deleted')
        if row[2] == '1' then
            newest = math.max(newest, tonumber(row[1]) or 0)
            redis.call('DEL', ARGV[5] .. name)
        end
        redis.call('ZREM', KEYS[4], name)
    end
    redis.call('SET', KEYS[5], string.format('%.0f', newest))
end
return {'done', version}
"""
)

# ARGV: name, body, version, now
RESTORE: Final = (
    _COMMON
    + """
if known[1] or tonumber(ARGV[3]) <= forgotten() then
    return conflict()
end
keep(ARGV[3], ARGV[2])
list(ARGV[1], ARGV[4])
return {'done', ARGV[3]}
"""
)

# ARGV: name, when
TOUCH: Final = (
    _COMMON
    + """
if alive then
    list(ARGV[1], ARGV[2])
end
return {'done', known[1] or ''}
"""
)

# ARGV: name; for a name whose definition was lost, which must not count against the limit
FORGET: Final = (
    _COMMON
    + """
if not known[1] then
    redis.call('ZREM', KEYS[2], ARGV[1])
    redis.call('ZREM', KEYS[3], ARGV[1])
end
return {'done', ''}
"""
)

# KEYS: names, recent. Each gets what only the other one has: no change leaves a name on one alone
RELIST: Final = """
for place = 1, 2 do
    for _, name in ipairs(redis.call('ZRANGE', KEYS[3 - place], 0, -1)) do
        redis.call('ZADD', KEYS[place], 'NX', 0, name)
    end
end
return {'done', ''}
"""

# KEYS: the pictures' sizes by name and key, their sum. One that is not a number is added up anew
_SUM: Final = (
    _FOREIGN
    + """
local wrong = foreign(KEYS[1], 'hash')
if wrong then
    return wrong
end
local function sum()
    local kept = tonumber(redis.pcall('GET', KEYS[2]))
    if kept and kept == kept then
        return kept
    end
    kept = 0
    for _, size in ipairs(redis.call('HVALS', KEYS[1])) do
        kept = kept + (tonumber(size) or 0)
    end
    return kept
end
"""
)

# ARGV: name and key, size, most bytes
HOLD_PICTURE: Final = (
    _SUM
    + """
local before = tonumber(redis.call('HGET', KEYS[1], ARGV[1])) or 0
local total = sum() - before + tonumber(ARGV[2])
if total > tonumber(ARGV[3]) then
    return {'full', string.format('%.0f', total)}
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('SET', KEYS[2], string.format('%.0f', total))
return {'done', ''}
"""
)

# and KEYS: the picture; ARGV: name and key
DROP_PICTURE: Final = (
    _SUM
    + """
local size = tonumber(redis.call('HGET', KEYS[1], ARGV[1])) or 0
local total = sum() - size
redis.call('UNLINK', KEYS[3])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], string.format('%.0f', math.max(0, total)))
return {'done', ''}
"""
)

# KEYS: the probe, names, recent, the pictures' sizes; ARGV: its life in milliseconds. A script, as
# every change is
PROBE: Final = (
    _LISTS
    + """
wrong = foreign(KEYS[4], 'hash')
if wrong then
    return wrong
end
redis.call('SET', KEYS[1], 1, 'PX', ARGV[1])
return 'done'
"""
)

# KEYS: an expendable key. The commands that the user of the server lacks the right to
LACKING: Final = """
local commands = {
    {'DEL', KEYS[1]}, {'HSET', KEYS[1], 'a', '1'}, {'HGET', KEYS[1], 'a'},
    {'HMGET', KEYS[1], 'a'}, {'HEXISTS', KEYS[1], 'a'}, {'HVALS', KEYS[1]},
    {'HSTRLEN', KEYS[1], 'a'}, {'HSCAN', KEYS[1], '0'}, {'HDEL', KEYS[1], 'a'},
    {'TYPE', KEYS[1]}, {'UNLINK', KEYS[1]},
    {'ZADD', KEYS[1], '0', 'a'}, {'ZSCORE', KEYS[1], 'a'}, {'ZCARD', KEYS[1]},
    {'ZRANGE', KEYS[1], '0', '-1'}, {'ZLEXCOUNT', KEYS[1], '-', '+'}, {'ZREM', KEYS[1], 'a'},
    {'SET', KEYS[1], '1', 'PX', ARGV[1]}, {'SETRANGE', KEYS[1], '0', '1'},
    {'GET', KEYS[1]}, {'GETRANGE', KEYS[1], '0', '1'}, {'MGET', KEYS[1]}, {'TIME'},
}
local lacking = {}
for _, command in ipairs(commands) do
    local answer = redis.pcall(unpack(command))
    local text = type(answer) == 'table' and answer.err or ''
    if string.find(text, 'permission') or string.find(text, 'user executing') then
        table.insert(lacking, command[1])
    end
end
return lacking
"""

SERVER_TIME: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
"""

# KEYS: the bucket; ARGV: rate, burst, wanted, slack. The arithmetic is that of gcra.py, on the time
# `now`; a bucket vanishes when it is full again, and a refusal changes nothing
GCRA: Final = """
local rate, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local known = tonumber(redis.pcall('GET', KEYS[1]))
local room = burst / rate
local start = now
if known and known == known then
    start = math.min(math.max(known, now), now + room)
end
local there = math.floor((room - (start - now) + tonumber(ARGV[4])) * rate)
local granted = math.max(0, math.min(wanted, burst, there))
local after = start + granted / rate
local wait = 0
if granted < wanted then
    wait = math.max(0, after - now - room + 1 / rate)
end
if after ~= known then
    local life = math.max(1, math.ceil((after - now) * 1000))
    redis.call('SET', KEYS[1], string.format('%.17g', after), 'PX', string.format('%.0f', life))
end
return {granted, string.format('%.17g', wait)}
"""

TAKE: Final = SERVER_TIME + GCRA
