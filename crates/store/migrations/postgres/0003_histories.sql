-- Statuses name both ends of their message too, so that a number finds everything that was said with it. What came before
-- this migration is found by message and by time only.

-- The window is about inbound messages, as before.
DROP INDEX events_pair;
CREATE INDEX events_pair ON events (theirs, ours, account_sid, channel, received_at_ms)
    WHERE class = 'inbound' AND theirs IS NOT NULL;
-- What happened lately: in an account, to a person, on one of our numbers.
CREATE INDEX events_account ON events (account_sid, received_at_ms) WHERE received_at_ms IS NOT NULL;
CREATE INDEX events_theirs ON events (theirs, received_at_ms) WHERE theirs IS NOT NULL;
CREATE INDEX events_ours ON events (ours, received_at_ms) WHERE ours IS NOT NULL;
