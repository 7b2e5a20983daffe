"""What Redis runs as one step: the changes of a label set, and taking from a bucket, in Lua.

Knows nothing of connections. A definition is a hash (version, body, deleted); `names` and `recent`
are sorted sets of the names that are not deleted, and each change repairs them for its name.
"""

from typing import Final

# KEYS of all: the definition, names, recent
_COMMON: Final = """
local known = redis.call('HMGET', KEYS[1], 'version', 'deleted')
local alive = known[1] and known[2] ~= '1'
local function keep(version, body)
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
local version = string.format('%d', math.max(tonumber(known[1] or '0') + 1, tonumber(ARGV[6])))
keep(version, ARGV[2])
list(ARGV[1], ARGV[5])
return {'done', version}
"""
)

# ARGV: version, body
AMEND: Final = (
    _COMMON
    + """
if not alive or known[1] ~= ARGV[1] then
    return conflict()
end
keep(known[1], ARGV[2])
return {'done', known[1]}
"""
)

# ARGV: name, expected version
DELETE: Final = (
    _COMMON
    + """
if not alive or known[1] ~= ARGV[2] then
    return conflict()
end
local version = string.format('%d', tonumber(known[1]) + 1)
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'version', version, 'deleted', '1')
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return {'done', version}
"""
)

# ARGV: name, body, version, now
RESTORE: Final = (
    _COMMON
    + """
if known[1] then
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

# KEYS: the pictures' sizes by name and key, their sum; ARGV: name and key, size, most bytes
HOLD_PICTURE: Final = """
local before = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
local total = tonumber(redis.call('GET', KEYS[2]) or '0') - before + tonumber(ARGV[2])
if total > tonumber(ARGV[3]) then
    return {'full', string.format('%.0f', total)}
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('SET', KEYS[2], string.format('%.0f', total))
return {'done', ''}
"""

# KEYS: sizes, sum, the picture; ARGV: name and key
DROP_PICTURE: Final = """
local size = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
redis.call('UNLINK', KEYS[3])
redis.call('HDEL', KEYS[1], ARGV[1])
if size > 0 then
    redis.call('DECRBY', KEYS[2], string.format('%.0f', size))
end
return {'done', ''}
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
