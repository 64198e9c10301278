"""What has to happen in one step, as Lua (Redis 7.0 or Valkey 7.2 and newer).

Sent as text with each call (EVAL), not by digest: the server caches it all the same, and there is no
"NOSCRIPT" to handle after a restart or a failover.

The id of a change is ``epoch-n``. The epoch is the server's time when the stream began, ``n`` grows by one: so
a reader sees a gap as a gap, and a stream that was flushed and begun anew as another one.
"""

from __future__ import annotations

_NEXT = """
local function epoch(stream, least)
  if redis.call('EXISTS', stream) == 0 then
    local now = redis.call('TIME')
    return string.format('%d', math.max(least, now[1] * 1000 + math.floor(now[2] / 1000)))
  end
  local info = redis.call('XINFO', 'STREAM', stream)
  for at = 1, #info, 2 do
    if info[at] == 'last-generated-id' then return string.match(info[at + 1], '^%d+') end
  end
end
"""

PUBLISH = (
    _NEXT
    + """
local now = epoch(KEYS[2], tonumber(ARGV[6]))
local held = redis.call('HGET', KEYS[1], 'v')
if held and tonumber(held) >= tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'e', now)
  return false
end
redis.call('HSET', KEYS[1], 'v', ARGV[2], 'r', ARGV[3], 'e', now)
if tonumber(ARGV[4]) > 0 then redis.call('PEXPIRE', KEYS[1], ARGV[4]) else redis.call('PERSIST', KEYS[1]) end
return redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], now .. '-*', 'k', ARGV[1], 'r', ARGV[3])
"""
)
"""KEYS: record, changes. ARGV: kind, version, record, lifetime in ms (0: for ever), changes to keep, least epoch.

The id of the change; nil when what is held is as new. Either way the record is one of this epoch from now on."""

BEAT = (
    _NEXT
    + """
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], epoch(KEYS[1], tonumber(ARGV[2])) .. '-*', 'b', '')
"""
)
"""KEYS: changes. ARGV: changes to keep, least epoch of a stream that begins. The id of the heartbeat."""

RESET = (
    _NEXT
    + """
local least = tonumber(ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 1 then least = math.max(least, epoch(KEYS[1], least) + 1) end
redis.call('DEL', KEYS[1])
return redis.call('XADD', KEYS[1], epoch(KEYS[1], least) .. '-*', 'n', '')
"""
)
"""KEYS: changes. ARGV: least epoch. Begins another epoch, of which no record is yet; the id of its first entry."""

READ = (
    _NEXT
    + """
if redis.call('HSTRLEN', KEYS[1], 'r') > tonumber(ARGV[1]) or redis.call('EXISTS', KEYS[2]) == 0 then return false end
if redis.call('HGET', KEYS[1], 'e') ~= epoch(KEYS[2], 0) then return false end
return redis.call('HGET', KEYS[1], 'r')
"""
)
"""KEYS: record, changes. ARGV: most bytes. The record; nil for none, one too long, or one that the publisher has not
said anew since the stream began: its control plane may know nothing of it any more."""

TAKE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return ARGV[1] end
return redis.call('GET', KEYS[1])
"""
"""KEYS: lease. ARGV: own token, lifetime in ms. Whose it is now."""

KEEP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
"""KEYS: lease. ARGV: own token, lifetime in ms. Whether it still is our own."""

LEAVE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
"""KEYS: lease. ARGV: own token, what is left in its place (or nothing), for how many ms."""

JOIN = """
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZADD', KEYS[1], ms + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ms - 60000)
return 1
"""
"""KEYS: alive. ARGV: the edge's name, for how many ms it counts. By the server's clock, the only one in common."""

MEMBERS = """
local now = redis.call('TIME')
return redis.call('ZRANGEBYSCORE', KEYS[1], now[1] * 1000 + math.floor(now[2] / 1000), '+inf')
"""
"""KEYS: alive. The names of the edges that are."""
