-- What is sent instead of a message that its channel does not take: kept until the message has arrived, and sent once.
ALTER TABLE sends ADD COLUMN fallback TEXT NOT NULL DEFAULT '';
ALTER TABLE sends ADD COLUMN fallback_to TEXT NOT NULL DEFAULT '';   -- the number; kept as long
ALTER TABLE sends ADD COLUMN fallback_of TEXT NOT NULL DEFAULT '';   -- instead of which message this one is
CREATE UNIQUE INDEX sends_instead ON sends (fallback_of) WHERE fallback_of <> '';
CREATE INDEX sends_with_fallback ON sends (changed_at_ms) WHERE fallback <> '';
