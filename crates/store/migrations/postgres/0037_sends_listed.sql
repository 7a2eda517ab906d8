-- What was taken on of an account, the latest first, by how far it is; also what waits, which had an index of its own.
DROP INDEX sends_waiting;
CREATE INDEX sends_listed ON sends (account_sid, state, created_at_ms, id);
