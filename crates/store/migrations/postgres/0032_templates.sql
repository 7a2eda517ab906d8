-- The templates of an account: what Twilio's Content API lists, and what administrators say themselves.
CREATE TABLE templates (
    account_sid   TEXT COLLATE "C" NOT NULL,
    source        TEXT COLLATE "C" NOT NULL CHECK (source IN ('twilio', 'administrator')),
    reference     TEXT COLLATE "C" NOT NULL,          -- Twilio's: its HX..; an administrator's: name/locale
    content_sid   TEXT COLLATE "C" NOT NULL,
    name          TEXT COLLATE "C" NOT NULL,
    locale        TEXT COLLATE "C" NOT NULL,
    approval      TEXT COLLATE "C" NOT NULL,
    reason        TEXT COLLATE "C" NOT NULL,          -- why it is not approved
    category      TEXT COLLATE "C" NOT NULL,          -- empty: nobody knows
    variables     TEXT COLLATE "C" NOT NULL,          -- a JSON list of names
    text          TEXT COLLATE "C" NOT NULL,
    digest        TEXT COLLATE "C" NOT NULL,
    changed_at_ms BIGINT NOT NULL,
    PRIMARY KEY (account_sid, source, reference)
);
-- How the catalogue of an account stands, and whose turn it is to read it from Twilio.
CREATE TABLE template_catalogues (
    account_sid   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    revision      BIGINT NOT NULL,       -- counts the changes
    due_at_ms     BIGINT NOT NULL,       -- when it is to be read next; while somebody does, when they have lost it
    synced_at_ms  BIGINT NOT NULL,       -- when it was last read whole; 0: never
    problem       TEXT COLLATE "C" NOT NULL           -- why it was not since
);
