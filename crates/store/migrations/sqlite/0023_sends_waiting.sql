-- What waits of an account, the latest first: it is listed before what Twilio has.
CREATE INDEX sends_waiting ON sends (account_sid, created_at_ms, id) WHERE state = 'queued';
