//! Every Lua script of the Redis front: one, and it decides nothing. A key holds a record, of a webhook or of a sender's pace, written by the domain; the
//! script only makes sure that the record written over is the one that was read. It takes one key, so any slot of a
//! Redis Cluster will do.

/// Puts a new record where the expected one is.
///
/// KEYS[1] what it is of; ARGV[1] the expected record, ARGV[2] the new one, '' for none, ARGV[3] milliseconds to keep it.
///
/// Returns what is there instead; nothing when it was as expected, or is as wanted already.
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
