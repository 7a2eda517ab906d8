//! Lua script of the Redis lease store. There is exactly one, and it decides nothing. A key holds a record of a webhook or
//! of a sender's token bucket, which the domain encodes. The script ensures that the record it overwrites is the one that
//! was read. It takes one key, so any slot of a Redis Cluster works.

/// Replaces the expected record by a new one.
///
/// `KEYS[1]` key of the record; `ARGV[1]` the expected record, `ARGV[2]` the new one, '' for none, `ARGV[3]` milliseconds to keep
/// it.
///
/// Returns the record that is there instead; nothing if it was as expected, or already is the new one.
pub(super) const AMEND: &str = r"
local found = redis.call('GET', KEYS[1])
if (found or '') == ARGV[1] then
  if ARGV[2] == '' then redis.call('DEL', KEYS[1])
  else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
  return false
end
if found == ARGV[2] then return false end
return found or ''
";
