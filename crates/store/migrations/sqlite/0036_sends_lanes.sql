-- What waits is gone through by category, account and sender, so that none of them has to wait for all of another; and the
-- oldest that is due is told from the index.
DROP INDEX sends_due;
CREATE INDEX sends_lanes ON sends (priority, account_sid, sender, due_at_ms) WHERE state = 'queued';
CREATE INDEX sends_due ON sends (due_at_ms) WHERE state = 'queued';
