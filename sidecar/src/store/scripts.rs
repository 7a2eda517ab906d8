//! Every Lua script of the Redis front. Lua rather than MULTI, because each answer depends on what is there, and Redis
//! lets no key expire in the middle of a script.
//!
//! All scripts take one key, `twilio-edge:{<dedupe key>}`: its hash tag keeps a webhook in one slot of a Redis
//! Cluster. It is a hash of
//!
//! ```text
//! state   held | done           absent: nobody has it, or nobody told Redis
//! claim   owner of the lease    held
//! until   end of the lease      held; milliseconds since 1970, by the sidecars' clocks
//! answer  JSON                  done, if one was kept
//! x:<claim id>   1              that claim was released
//! ```

/// Asks for the lease.
///
/// KEYS[1] the webhook; ARGV[1] claim id, ARGV[2] now, ARGV[3] end of the lease, ARGV[4] milliseconds to keep it.
///
/// Returns `released`, `duplicate` and its answer, `in_flight`, or `ask`: the lease is taken here, so that no other
/// claim asks meanwhile, but only SQL can say that this webhook may proceed.
pub(super) const CLAIM: &str = r"
local known = redis.call('HMGET', KEYS[1], 'state', 'claim', 'until', 'answer', 'x:' .. ARGV[1])
if known[1] == 'done' then return {'duplicate', known[4]} end
if known[5] then return {'released'} end
if known[1] == 'held' and known[2] ~= ARGV[1] and tonumber(known[3]) > tonumber(ARGV[2]) then
  return {'in_flight'}
end
redis.call('HSET', KEYS[1], 'state', 'held', 'claim', ARGV[1], 'until', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {'ask'}
";

/// Gives back a lease that SQL did not confirm, if it is still this claim's.
///
/// KEYS[1] the webhook; ARGV[1] claim id.
pub(super) const CONCEDE: &str = r"
local known = redis.call('HMGET', KEYS[1], 'state', 'claim')
if known[1] == 'held' and known[2] == ARGV[1] then
  redis.call('HDEL', KEYS[1], 'state', 'claim', 'until')
end
return {'ok'}
";

/// The webhook is done, whoever holds it; the first answer stays.
///
/// KEYS[1] the webhook; ARGV[1] milliseconds to keep it, ARGV[2] the answer or ''.
pub(super) const COMMIT: &str = r"
if redis.call('HGET', KEYS[1], 'state') == 'done' then return {'ok'} end
redis.call('HSET', KEYS[1], 'state', 'done')
redis.call('HDEL', KEYS[1], 'claim', 'until')
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'answer', ARGV[2]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return {'ok'}
";

/// Frees the lease if it is this claim's, and remembers that the claim is over.
///
/// KEYS[1] the webhook; ARGV[1] claim id, ARGV[2] milliseconds to keep it.
pub(super) const RELEASE: &str = r"
local known = redis.call('HMGET', KEYS[1], 'state', 'claim')
if known[1] == 'held' and known[2] == ARGV[1] then
  redis.call('HDEL', KEYS[1], 'state', 'claim', 'until')
end
redis.call('HSET', KEYS[1], 'x:' .. ARGV[1], '1')
if known[1] ~= 'done' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return {'ok'}
";
