-- From where a replay takes its webhooks.
ALTER TABLE replays ADD COLUMN origin TEXT COLLATE "C" NOT NULL DEFAULT 'ledger' CHECK (origin IN ('ledger', 'archive'));
