"""What has to happen in one step, as Lua (Redis 7.0 or Valkey 7.2 and newer).

Sent as text with each call (EVAL), not by digest: the server caches it all the same, and there is no
"NOSCRIPT" to handle after a restart or a failover.

The id of a change is ``epoch-n``. The epoch is the server's time when the stream began, ``n`` grows by one: so
a reader sees a gap as a gap, and a stream that was begun anew as another one.

A publisher adds to a stream only while that is the one it knows: the same epoch, and as long as it was at least. A
heartbeat asks more, that it is on the server on which it was begun (by its replication id, which changes with a
failover and a restart). So a replica that was promoted without having heard the latest gets no heartbeat, even when
the client library has changed over to it without a word. Keys that hold something else entirely are replaced.
"""

from __future__ import annotations

LOST = b"lost"
"""What `PUBLISH` and `BEAT` say instead of an id, where the stream is not the one that is known."""

_LAST = """
local function last(stream)
  local found = redis.pcall('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  if found.err or not found[1] then return nil end
  return found[1][1], string.match(found[1][1], '^(%d+)-(%d+)$')
end
local function here()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or ''
end
local function stands(stream, epoch, number)
  local id, e, n = last(stream)
  return id and e == epoch and tonumber(n) >= tonumber(number)
end
"""

BEGIN = (
    _LAST
    + """
local id, e, n = last(KEYS[1])
if id and (tonumber(e) >= 9e15 or tonumber(n) >= 9e15) then id = nil end
local server, epoch = redis.pcall('GET', KEYS[2]), tonumber(ARGV[1])
if id and epoch > 0 and server == here() then
  if tonumber(e) > epoch or (tonumber(e) == epoch and tonumber(n) >= tonumber(ARGV[2])) then return id end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
epoch = math.max(epoch + 1, now, id and tonumber(e) + 1 or 0)
if epoch >= 9e15 then epoch = now end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], here())
return redis.call('XADD', KEYS[1], string.format('%d-0', epoch), 'n', '')
"""
)
"""KEYS: changes, server. ARGV: epoch and number of the newest entry that is known (0, 0 for none).

The id of the stream's newest entry. Where something may have been lost, and for a publisher that knows of none, that
stream is a new one; where nothing was, and where another publisher has begun it anew since, it is the one that is there.
A new epoch is later than all before, unless those are of times that no clock shows."""

PUBLISH = (
    _LAST
    + """
local function order(held, version)
  if not held or not (held == '0' or string.match(held, '^[1-9]%d*$')) then return -1 end
  if #held ~= #version then return #held - #version end
  return held == version and 0 or held > version and 1 or -1
end
if not stands(KEYS[2], ARGV[6], ARGV[7]) then return 'lost' end
local held = redis.pcall('HGET', KEYS[1], 'v')
if type(held) == 'table' then redis.call('DEL', KEYS[1]) held = false end
local found, said, disputed = order(held, ARGV[2]), redis.call('HGET', KEYS[1], 'e'), 'disputed in ' .. ARGV[6]
if found > 0 and (said == ARGV[6] or said == disputed) then
  redis.call('HSET', KEYS[1], 'e', disputed)
else
  redis.call('HSET', KEYS[1], 'v', ARGV[2], 'r', ARGV[3], 'e', ARGV[6])
  if found == 0 then return false end
  if tonumber(ARGV[4]) > 0 then redis.call('PEXPIRE', KEYS[1], ARGV[4]) else redis.call('PERSIST', KEYS[1]) end
end
return redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], ARGV[6] .. '-*', 'k', ARGV[1], 'r', ARGV[3])
"""
)
"""KEYS: record, changes. ARGV: kind, version, record, lifetime in ms (0: for ever), changes to keep, epoch and number
of the newest entry that is known.

The id of the change; nil where this version is held already; ``lost`` when the stream is not the one that is known.

Versions count within an epoch: what is held of an earlier one is replaced, whatever its version, for whoever publishes
in an epoch has looked up what there is after its beginning. A higher version of this epoch is another publisher's, which
was faster, or somebody else's nonsense. Nothing here can tell which. So it is kept, the change goes out all the same
(edges go by versions themselves), and nobody reads the record any more until a publisher says one that high, or another
epoch begins. Versions are compared as text: Lua's numbers are exact up to 2**53 only."""

BEAT = (
    _LAST
    + """
if not stands(KEYS[1], ARGV[2], ARGV[3]) or redis.pcall('GET', KEYS[2]) ~= here() then return 'lost' end
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], ARGV[2] .. '-*', 'b', '')
"""
)
"""KEYS: changes, server. ARGV: changes to keep, epoch and number of the newest entry that is known.

The id of the heartbeat; ``lost`` when the stream is not the one that is known, or on another server."""

READ = (
    _LAST
    + """
local id, epoch = last(KEYS[2])
if not id or redis.call('HSTRLEN', KEYS[1], 'r') > tonumber(ARGV[1]) or redis.call('HGET', KEYS[1], 'e') ~= epoch then
  return {id or false, false}
end
return {id, redis.call('HGET', KEYS[1], 'r')}
"""
)
"""KEYS: record, changes. ARGV: most bytes. The id of the newest change, and the record; nil for none, one too long, or
one that no publisher has said since the stream began: the control plane may know nothing of it any more.

Why the id: this may be another server than the one whose changes are followed."""

TAKE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return ARGV[1] end
local left = redis.call('PTTL', KEYS[1])
local held = left >= 0 and left <= tonumber(ARGV[3]) and redis.pcall('GET', KEYS[1])
if type(held) == 'string' and #held <= 64 then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
"""
"""KEYS: lease. ARGV: own token, lifetime in ms, the longest one. Whose it is now.

What does not end, or later than anything of an edge's, or is no text or a long one, is nobody's: it would hold up every
wake of this incarnation."""

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
if redis.call('TYPE', KEYS[1]).ok ~= 'zset' then redis.call('DEL', KEYS[1]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ms - 60000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. string.format('%d', ms + 60000), '+inf')
redis.call('ZADD', KEYS[1], ms + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[3])
return 1
"""
"""KEYS: members. ARGV: the edge's name, for how many ms it is one, how many are kept.

By the server's clock, the only one in common."""

MEMBERS = """
local now = redis.call('TIME')
if redis.call('TYPE', KEYS[1]).ok ~= 'zset' then return {} end
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local names = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], ms, ms + 60000, 'LIMIT', 0, ARGV[1])) do
  if #name <= tonumber(ARGV[2]) then names[#names + 1] = name end
end
return names
"""
"""KEYS: members. ARGV: how many at most, most bytes of each. Their names; what is longer is none.

No edge joins for a minute: such a name is of a clock that has been set back (or another server's), or
nonsense, and would be waited for before each pause until then."""

LEFT = """
local found = redis.pcall('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[1])
if found.err then
  local kind = redis.call('TYPE', KEYS[1]).ok
  return (kind == 'stream' or kind == 'none') and found or kind
end
for place, entry in ipairs(found) do
  local batch = false
  for at = 1, #entry[2], 2 do
    if entry[2][at] == 'u' and #entry[2][at + 1] <= tonumber(ARGV[2]) then batch = entry[2][at + 1] end
  end
  found[place] = {entry[1], batch}
end
return found
"""
"""KEYS: batches. ARGV: how many at most, most bytes of each. The oldest ones: id, and the batch; nil where there is none,
or one too long. Instead of them the key's type where it is no stream."""
