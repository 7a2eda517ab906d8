-- The sidecars that keep leases in Redis: one, because a file has one. While it does not reach Redis it decides here; times
-- are of the database's clock.
CREATE TABLE sidecars (
    id             TEXT    NOT NULL PRIMARY KEY,  -- of one run
    alive_until_ms INTEGER NOT NULL,              -- after that it is not waited for
    apart_until_ms INTEGER NOT NULL,              -- until then nobody hands out by Redis alone; 0: it reaches Redis
    written_ms     INTEGER NOT NULL               -- what it handed out before is in the ledger
) WITHOUT ROWID;
-- Every claim looks whether there is one: there is none, usually, and no row is looked at.
CREATE INDEX sidecars_apart ON sidecars (apart_until_ms);

-- The sum of revisions counts the changes of all accounts, and is read from here alone.
CREATE INDEX tenants_revision ON tenants (revision);
