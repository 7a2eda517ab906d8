-- The templates of an account: what Twilio's Content API lists, and what administrators say themselves.
CREATE TABLE templates (
    account_sid   TEXT NOT NULL,
    source        TEXT NOT NULL CHECK (source IN ('twilio', 'administrator')),
    reference     TEXT NOT NULL,          -- Twilio's: its HX..; an administrator's: name/locale
    content_sid   TEXT NOT NULL,
    name          TEXT NOT NULL,
    locale        TEXT NOT NULL,
    approval      TEXT NOT NULL,
    reason        TEXT NOT NULL,          -- why it is not approved
    category      TEXT NOT NULL,          -- empty: nobody knows
    variables     TEXT NOT NULL,          -- a JSON list of names
    text          TEXT NOT NULL,
    digest        TEXT NOT NULL,
    changed_at_ms INTEGER NOT NULL,
    PRIMARY KEY (account_sid, source, reference)
);
-- How the catalogue of an account stands, and whose turn it is to read it from Twilio.
CREATE TABLE template_catalogues (
    account_sid   TEXT NOT NULL PRIMARY KEY,
    revision      INTEGER NOT NULL,       -- counts the changes
    due_at_ms     INTEGER NOT NULL,       -- when it is to be read next; while somebody does, when they have lost it
    synced_at_ms  INTEGER NOT NULL,       -- when it was last read whole; 0: never
    problem       TEXT NOT NULL           -- why it was not since
);
