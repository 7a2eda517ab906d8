-- The sidecars that keep leases in Redis. While one of them does not reach it, all of them decide here; times are of the
-- database's clock, the only one they share.
CREATE TABLE sidecars (
    id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- of one run
    alive_until_ms BIGINT NOT NULL,                        -- after that it is not waited for
    apart_until_ms BIGINT NOT NULL,                        -- until then nobody hands out by Redis alone; 0: it reaches Redis
    written_ms     BIGINT NOT NULL                         -- what it handed out before is in the ledger
);
-- Every claim looks whether there is one: there is none, usually, and no row is looked at.
CREATE INDEX sidecars_apart ON sidecars (apart_until_ms);

-- The sum of revisions counts the changes of all accounts, and is read from here alone.
CREATE INDEX tenants_revision ON tenants (revision);
