-- Ids of one contact: a WhatsApp number and the user id that came beside it, in both directions and in every spelling of the
-- number. A link is only added, never changed: the first one of an id counts for what a person allows.
CREATE TABLE contact_links (
    tenant       TEXT COLLATE "C" NOT NULL,  -- the account SID
    number       TEXT COLLATE "C" NOT NULL,  -- E.164, or a user id
    other        TEXT COLLATE "C" NOT NULL,  -- the user id, or the number
    is_certain   BIGINT NOT NULL,            -- 1: the webhook could be read in one way only, and the id had no other number
    linked_at_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant, number, other)
);
