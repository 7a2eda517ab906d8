-- Schema of the stores. Times are milliseconds since 1970, UTC. Text keys are compared byte by byte (COLLATE "C").

-- Ledger: each webhook once, as received, with its holder or its outcome. One insert is enough when the backend answers soon.
-- form is empty only if the sidecar received the settlement of the webhook and not its claim.
CREATE TABLE events (
    dedupe_key     TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- begins with class, account and message: finds the webhooks of a message
    class          TEXT COLLATE "C" NOT NULL,
    account_sid    TEXT COLLATE "C" NOT NULL,
    message_sid    TEXT COLLATE "C" NOT NULL,
    status         TEXT,
    error_code     TEXT,
    route          TEXT,
    form           TEXT,
    channel        TEXT COLLATE "C",  -- sms, whatsapp, ..
    theirs         TEXT COLLATE "C",  -- number of the contact in E.164 format, or its id on the channel
    ours           TEXT COLLATE "C",  -- our number
    received_at_ms BIGINT,  -- first arrival; the conversation window starts here
    attempts       BIGINT NOT NULL,  -- number of grants; of two records of one webhook, the one with more is newer
    claim_id       TEXT,  -- claim that holds the webhook, or that settled it
    held_until_ms  BIGINT,  -- set while a claim holds the webhook
    outcome        TEXT COLLATE "C" CHECK (outcome IN ('accepted', 'refused')),
    settled_at_ms  BIGINT,
    answer         TEXT,  -- of an accepted webhook: response of the backend, as JSON
    redacted       BIGINT,  -- removed parts, as bits: body 1, media 2, person 4, addresses 8, other 16, answer 32; NULL: none
    redacted_at_ms BIGINT,
    envelope       TEXT,  -- with an archive: method, public URL and some headers of the request, as JSON
    -- Transaction that recorded the arrival. Transactions that are older than every running one are complete, so a live stream that
    -- reads only their rows misses none (docs/adr/0041-live-stream.md).
    commit_position BIGINT NOT NULL DEFAULT (pg_current_xact_id()::text::bigint)
);
-- Rows in the order of their transactions, for live streams. New entries are at the end of the index, and those of one transaction
-- share an entry, so that it costs an insert nothing that can be measured.
CREATE INDEX events_recorded ON events (commit_position) WHERE received_at_ms IS NOT NULL;
-- Rows arrive in order of time: one range for each block finds a day, and an insert costs nothing.
CREATE INDEX events_received ON events USING brin (received_at_ms);
-- Latest inbound message of a pair of addresses, for the conversation window.
CREATE INDEX events_pair ON events (theirs, ours, account_sid, channel, received_at_ms)
    WHERE class = 'inbound' AND theirs IS NOT NULL;
-- Latest webhooks of an account, of a contact, of one of our numbers.
CREATE INDEX events_account ON events (account_sid, received_at_ms) WHERE received_at_ms IS NOT NULL;
CREATE INDEX events_theirs ON events (theirs, received_at_ms) WHERE theirs IS NOT NULL;
CREATE INDEX events_ours ON events (ours, received_at_ms) WHERE ours IS NOT NULL;
-- Rows without an arrival are in no other index by time. They are few.
CREATE INDEX events_not_received ON events (settled_at_ms) WHERE received_at_ms IS NULL;

-- Ends of claims that SQL decided, not Redis or memory: released, released before the claim arrived, or superseded.
CREATE TABLE claim_ends (
    dedupe_key    TEXT COLLATE "C" NOT NULL,
    claim_id      TEXT COLLATE "C" NOT NULL,
    ending        TEXT COLLATE "C" NOT NULL CHECK (ending IN ('freed', 'tombstone', 'superseded')),
    expires_at_ms BIGINT NOT NULL,
    PRIMARY KEY (dedupe_key, claim_id)
);
CREATE INDEX claim_ends_expires ON claim_ends (expires_at_ms);

-- Heartbeats of the sidecars that keep leases in Redis. While one of them cannot reach Redis, SQL decides the claims of all of
-- them. Times are of the database's clock.
CREATE TABLE sidecars (
    id                 TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- new at each start
    alive_until_ms     BIGINT NOT NULL,  -- other sidecars do not wait for it after this time
    partition_until_ms BIGINT NOT NULL,  -- until then no sidecar grants a claim through Redis alone; 0: it reaches Redis
    written_ms         BIGINT NOT NULL  -- its claims before this time are in the ledger
);
-- Every claim checks for a partition. There usually is none, so the check reads no row.
CREATE INDEX sidecars_partition ON sidecars (partition_until_ms);

-- Reasons why a contact must not be written to, one row for each. A contact is suppressed while one reason is in force. The
-- number comes before the channel, so that one range finds the reasons of a channel and of all channels ('*').
CREATE TABLE suppressions (
    tenant         TEXT COLLATE "C" NOT NULL,  -- account SID
    number         TEXT COLLATE "C" NOT NULL,  -- E.164 format, or the id on the channel
    channel        TEXT COLLATE "C" NOT NULL,  -- sms, whatsapp, .. or * for every channel
    source         TEXT COLLATE "C" NOT NULL,  -- keyword, opt_out_type, callback, administrator, ..
    error_code     TEXT COLLATE "C" NOT NULL DEFAULT '',  -- of a callback
    suppressed     BOOLEAN NOT NULL,  -- false: no longer in force
    since_ms       BIGINT NOT NULL,  -- start of the current or last period in force
    expires_at_ms  BIGINT,  -- from then on it is not in force, even if suppressed is true; NULL: never
    changed_at_ms  BIGINT NOT NULL,
    message_sid    TEXT COLLATE "C",  -- message that caused it
    route          TEXT,
    origin_channel TEXT COLLATE "C",  -- channel of the opt-out
    sender         TEXT COLLATE "C",  -- our number or sender that received the opt-out
    service_sid    TEXT COLLATE "C",  -- Messaging Service of the callback
    changed_by     TEXT,  -- API key or user of the command line; NULL if the contact caused the change
    PRIMARY KEY (tenant, number, channel, error_code, source)
);
CREATE INDEX suppressions_source ON suppressions (tenant, source, number, channel, error_code);
CREATE INDEX suppressions_expiring ON suppressions (expires_at_ms) WHERE suppressed AND expires_at_ms IS NOT NULL;

-- Every STOP and START, and every HELP that got a reply, once for each message. Never deleted, so that an old one cannot take
-- effect twice.
CREATE TABLE opt_events (
    account_sid    TEXT COLLATE "C" NOT NULL,
    message_sid    TEXT COLLATE "C" NOT NULL,
    channel        TEXT COLLATE "C" NOT NULL,
    number         TEXT COLLATE "C" NOT NULL,
    opt            TEXT COLLATE "C" NOT NULL CHECK (opt IN ('stop', 'start', 'help')),
    cause          TEXT COLLATE "C" NOT NULL,  -- keyword or opt_out_type
    route          TEXT NOT NULL,
    recorded_at_ms BIGINT NOT NULL,
    PRIMARY KEY (account_sid, message_sid)
);
CREATE INDEX opt_events_number ON opt_events (account_sid, channel, number, recorded_at_ms);

-- Evidence that a contact consented to a category of messages, or withdrew the consent. Rows are only added. The latest row of
-- a contact, channel and category is in effect; of two rows with the same time, the withdrawal.
CREATE TABLE consents (
    id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- digest of the following columns: the same evidence is stored once
    tenant         TEXT COLLATE "C" NOT NULL,
    number         TEXT COLLATE "C" NOT NULL,
    channel        TEXT COLLATE "C" NOT NULL,
    category       TEXT COLLATE "C" NOT NULL,
    state          TEXT COLLATE "C" NOT NULL CHECK (state IN ('granted', 'withdrawn')),
    at_ms          BIGINT NOT NULL,  -- time of the contact's statement
    source         TEXT NOT NULL,  -- form, call, contract, ..
    proof          TEXT,  -- text that was shown, and the contact's answer
    ip             TEXT,
    user_agent     TEXT,
    recorded_at_ms BIGINT NOT NULL,
    recorded_by    TEXT NOT NULL
);
CREATE INDEX consents_contact ON consents (tenant, number, channel, category, at_ms, state, id);

-- Ids of one contact: a number and the user id that a webhook named together, in both directions and in every spelling of the
-- number. A link is only added: later links of an id are uncertain.
CREATE TABLE contact_links (
    tenant       TEXT COLLATE "C" NOT NULL,  -- account SID
    number       TEXT COLLATE "C" NOT NULL,  -- E.164 format, or a user id
    other        TEXT COLLATE "C" NOT NULL,  -- user id, or the number
    is_certain   BIGINT NOT NULL,  -- 1: the webhook had one possible reading, and the id had no other number
    linked_at_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant, number, other)
);

-- API keys. The secret of a key is shown once and not stored. A revoked key stays, because the audit log refers to it.
CREATE TABLE api_keys (
    id              TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- public part of the key
    name            TEXT NOT NULL,
    scope           TEXT COLLATE "C" NOT NULL CHECK (scope IN ('edge', 'app', 'admin')),
    account_sid     TEXT COLLATE "C",  -- only account that the key can access; NULL: all accounts
    secret_sha256   TEXT COLLATE "C" NOT NULL,
    created_at_ms   BIGINT NOT NULL,
    created_by      TEXT NOT NULL,
    last_used_at_ms BIGINT,  -- to the minute
    revoked_at_ms   BIGINT
);
CREATE INDEX api_keys_created ON api_keys (created_at_ms, id);
CREATE INDEX api_keys_account ON api_keys (account_sid, created_at_ms, id);
CREATE INDEX api_keys_scope ON api_keys (scope);

-- Sessions of API keys, for instance of browsers. A session ends with its key. Expired sessions are deleted when the next one starts.
CREATE TABLE sessions (
    secret_sha256 TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    key_id        TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL
);
CREATE INDEX sessions_key ON sessions (key_id, created_at_ms);
CREATE INDEX sessions_expiry ON sessions (expires_at_ms);

-- Audit log: every administrative change in order, in the transaction of the change.
CREATE TABLE audit (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_ms       BIGINT NOT NULL,
    actor       TEXT NOT NULL,  -- API key, edge token or command line
    source      TEXT NOT NULL,  -- network address, or user of the command line
    action      TEXT COLLATE "C" NOT NULL,  -- key.created, ..
    subject     TEXT COLLATE "C" NOT NULL,  -- changed object
    account_sid TEXT COLLATE "C",  -- account of the object
    detail      TEXT NOT NULL  -- JSON, without secrets
);
CREATE INDEX audit_time ON audit (at_ms, id);
CREATE INDEX audit_account ON audit (account_sid, at_ms, id);
CREATE INDEX audit_actor ON audit (actor, at_ms, id);
CREATE INDEX audit_action ON audit (action, at_ms, id);

-- Tenant profiles: settings of accounts that differ from those for all accounts. Auth tokens are not here; they stay in the
-- accounts file.
CREATE TABLE tenants (
    account_sid   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    parent_sid    TEXT COLLATE "C",  -- of a subaccount: its main account
    friendly_name TEXT NOT NULL,
    senders       TEXT NOT NULL,  -- JSON list of numbers and senders
    services      TEXT NOT NULL,  -- JSON list of Messaging Service SIDs
    policy        TEXT NOT NULL,  -- JSON: differences from [policy]
    retention     TEXT NOT NULL,  -- JSON: differences from [retention]
    revision      BIGINT NOT NULL,  -- number of changes
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    closed_at_ms  BIGINT
);
-- The sum of the revisions counts the changes of all accounts. This index alone answers it.
CREATE INDEX tenants_revision ON tenants (revision);

-- Requests with an Idempotency-Key and their responses, which copies of a request get again. Each caller has its own keys.
-- Responses contain no secrets.
CREATE TABLE idempotency_keys (
    tenant          TEXT COLLATE "C" NOT NULL,  -- account that the caller is bound to; '' for a caller of all accounts
    principal       TEXT COLLATE "C" NOT NULL,  -- API key, or edge token
    idempotency_key TEXT COLLATE "C" NOT NULL,
    fingerprint     TEXT COLLATE "C" NOT NULL,  -- digest of the request, because one key belongs to one request
    owner           TEXT COLLATE "C" NOT NULL,  -- copy that executes the request; the changes of another copy are rolled back
    held_until_ms   BIGINT NOT NULL,  -- the execution has certainly ended by then
    status          BIGINT,  -- HTTP status of the response; NULL during the execution
    headers         TEXT,  -- JSON
    body            TEXT,
    created_at_ms   BIGINT NOT NULL,
    expires_at_ms   BIGINT NOT NULL,
    PRIMARY KEY (tenant, principal, idempotency_key)
);
CREATE INDEX idempotency_keys_expires ON idempotency_keys (expires_at_ms);

-- Progress of redaction, for each part of an account's webhooks: the part is removed from all webhooks up to this position. A
-- row therefore needs no mark, and no index of unmarked rows. The sidecar that redacts holds a lock on its rows.
CREATE TABLE retention (
    account_sid TEXT COLLATE "C" NOT NULL,
    part        TEXT COLLATE "C" NOT NULL,
    through_ms  BIGINT NOT NULL,
    through_key TEXT COLLATE "C" NOT NULL,  -- position among the webhooks of the same millisecond
    PRIMARY KEY (account_sid, part)
);

-- Outbox: deliveries to sinks. A delivery is written in the transaction of its event, so that neither exists without the other.
CREATE TABLE deliveries (
    seq            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- order within a lane
    sink           TEXT COLLATE "C" NOT NULL,
    delivery_id    TEXT COLLATE "C" NOT NULL,  -- identifies the event and its replay
    dedupe_key     TEXT COLLATE "C" NOT NULL,  -- event: of a webhook, or operational
    replay_id      TEXT COLLATE "C",
    account_sid    TEXT COLLATE "C" NOT NULL,
    lane           TEXT COLLATE "C" NOT NULL,  -- deliveries of one lane stay in order: account, channel and contact
    state          TEXT COLLATE "C" NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'dead', 'discarded')),
    recorded_at_ms BIGINT NOT NULL,
    tries          BIGINT NOT NULL DEFAULT 0,  -- number of attempts
    reason         TEXT,  -- reason of the last failure
    attempts       TEXT NOT NULL DEFAULT '',  -- latest attempts with their answers: JSON
    ended_at_ms    BIGINT,
    facts          TEXT NOT NULL DEFAULT '',  -- facts at the arrival of an inbound message, as JSON: opt-out, suppression, window
    UNIQUE (sink, delivery_id)
);
CREATE INDEX deliveries_waiting ON deliveries (sink, lane, seq) WHERE state = 'waiting';
CREATE INDEX deliveries_dead ON deliveries (ended_at_ms, seq) WHERE state = 'dead';
-- Age of a sink's oldest dead letter, read four times a minute.
CREATE INDEX deliveries_dead_sink ON deliveries (sink, ended_at_ms) WHERE state = 'dead';
CREATE INDEX deliveries_done ON deliveries (ended_at_ms) WHERE state IN ('done', 'discarded');
CREATE INDEX deliveries_event ON deliveries (dedupe_key);

-- Operational events that a sink takes: each is written in the transaction of the change that it reports, with its deliveries.
CREATE TABLE operational_events (
    event_id       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    event_type     TEXT COLLATE "C" NOT NULL,  -- message.sent, ..
    account_sid    TEXT COLLATE "C" NOT NULL,
    channel        TEXT COLLATE "C" NOT NULL,  -- of the contact; '*': every channel; empty without a contact
    contact        TEXT COLLATE "C" NOT NULL,  -- number or id of the contact; empty without one
    subject        TEXT COLLATE "C" NOT NULL,  -- id of the message or object
    data           TEXT NOT NULL,  -- content, as JSON
    recorded_at_ms BIGINT NOT NULL
);
CREATE INDEX operational_events_contact ON operational_events (account_sid, contact, recorded_at_ms);
CREATE INDEX operational_events_recorded ON operational_events (recorded_at_ms, event_id);

-- One row for each sink and lane with waiting deliveries. A worker that takes a lane sets its due time to the end of the hold,
-- so that another worker continues after a crash.
CREATE TABLE lanes (
    sink      TEXT COLLATE "C" NOT NULL,
    lane      TEXT COLLATE "C" NOT NULL,
    due_at_ms BIGINT NOT NULL,
    held_by   TEXT COLLATE "C",
    PRIMARY KEY (sink, lane)
);
CREATE INDEX lanes_due ON lanes (sink, due_at_ms);

-- Requests to deliver webhooks again, with their progress. The position and the deliveries change in one transaction.
CREATE TABLE replays (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    sink          TEXT COLLATE "C" NOT NULL,
    account_sid   TEXT COLLATE "C",  -- NULL: all accounts
    message_sid   TEXT COLLATE "C",  -- NULL: all messages
    class         TEXT COLLATE "C",  -- NULL: all classes
    since_ms      BIGINT NOT NULL,
    until_ms      BIGINT NOT NULL,  -- exclusive
    state         TEXT COLLATE "C" NOT NULL CHECK (state IN ('running', 'done')),
    through_ms    BIGINT NOT NULL,  -- last examined webhook
    through_key   TEXT COLLATE "C" NOT NULL,
    found         BIGINT NOT NULL,  -- number of matching webhooks
    queued        BIGINT NOT NULL,  -- number of these that were queued for the sink
    left_out      BIGINT NOT NULL,  -- number of these that were incomplete
    created_at_ms BIGINT NOT NULL,
    created_by    TEXT COLLATE "C" NOT NULL,
    ended_at_ms   BIGINT,
    origin        TEXT COLLATE "C" NOT NULL DEFAULT 'ledger' CHECK (origin IN ('ledger', 'archive', 'events'))  -- source: webhooks, or operational events
);
CREATE INDEX replays_running ON replays (created_at_ms) WHERE state = 'running';
CREATE INDEX replays_created ON replays (created_at_ms, id);
CREATE INDEX replays_account ON replays (account_sid, created_at_ms, id);

-- One row while an archive is configured: from then on a trigger queues each webhook.
CREATE TABLE archive_switch (
    id       BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    since_ms BIGINT NOT NULL
);

-- Webhooks that are not archived yet. Retention skips them.
CREATE TABLE archive_queue (
    dedupe_key     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    account_sid    TEXT COLLATE "C" NOT NULL,
    received_at_ms BIGINT NOT NULL,
    bytes          BIGINT NOT NULL,
    batch_id       TEXT COLLATE "C"  -- batch that writes it
);
CREATE INDEX archive_queue_account ON archive_queue (account_sid, received_at_ms, dedupe_key);
CREATE INDEX archive_queue_batch ON archive_queue (batch_id) WHERE batch_id IS NOT NULL;

-- Objects that are being written, one for each account. After an expired hold, another sidecar writes the same object again.
CREATE TABLE archive_batches (
    account_sid   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    batch_id      TEXT COLLATE "C" NOT NULL,
    object        TEXT COLLATE "C" NOT NULL,  -- name of the object
    made_at_ms    BIGINT NOT NULL,
    held_by       TEXT COLLATE "C" NOT NULL,
    held_until_ms BIGINT NOT NULL
);

-- Erasures in archived objects that are not done yet. The row, and with it the contact's number, is deleted when they are done.
CREATE TABLE archive_erasures (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    account_sid   TEXT COLLATE "C" NOT NULL,
    message_sid   TEXT COLLATE "C",
    number        TEXT COLLATE "C",
    channel       TEXT COLLATE "C",
    since_ms      BIGINT NOT NULL,
    until_ms      BIGINT NOT NULL,  -- inclusive
    made_at_ms    BIGINT NOT NULL,
    held_by       TEXT COLLATE "C" NOT NULL DEFAULT '',
    held_until_ms BIGINT NOT NULL DEFAULT 0
);

-- Queues webhooks in the transaction that writes their forms, so that no writer of events can forget the archive. A call for each
-- statement costs an insert a tenth less than one for each row.
CREATE FUNCTION queue_inserted_for_archive() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM archive_switch) THEN
        INSERT INTO archive_queue (dedupe_key, account_sid, received_at_ms, bytes)
        SELECT dedupe_key, account_sid, coalesce(received_at_ms, 0), octet_length(form)
        FROM inserted WHERE form IS NOT NULL ORDER BY dedupe_key
        ON CONFLICT (dedupe_key) DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER events_inserted AFTER INSERT ON events REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT
    EXECUTE FUNCTION queue_inserted_for_archive();
-- The settlement of a webhook may arrive before its form.
CREATE FUNCTION queue_for_archive() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM archive_switch) THEN
        INSERT INTO archive_queue (dedupe_key, account_sid, received_at_ms, bytes)
        VALUES (NEW.dedupe_key, NEW.account_sid, coalesce(NEW.received_at_ms, 0), octet_length(NEW.form))
        ON CONFLICT (dedupe_key) DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER events_form_added AFTER UPDATE OF form ON events FOR EACH ROW
    WHEN (OLD.form IS NULL AND NEW.form IS NOT NULL) EXECUTE FUNCTION queue_for_archive();
-- An arrival that is recorded after its settlement is new to live streams.
CREATE FUNCTION move_to_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.commit_position := pg_current_xact_id()::text::bigint;
    RETURN NEW;
END
$$;
CREATE TRIGGER events_arrival_added BEFORE UPDATE OF received_at_ms ON events FOR EACH ROW
    WHEN (OLD.received_at_ms IS NULL AND NEW.received_at_ms IS NOT NULL) EXECUTE FUNCTION move_to_end();

-- Templates of an account, from Twilio's Content API and from administrators.
CREATE TABLE templates (
    account_sid   TEXT COLLATE "C" NOT NULL,
    source        TEXT COLLATE "C" NOT NULL CHECK (source IN ('twilio', 'administrator')),
    reference     TEXT COLLATE "C" NOT NULL,  -- of Twilio: content SID; of an administrator: name/locale
    content_sid   TEXT COLLATE "C" NOT NULL,
    name          TEXT COLLATE "C" NOT NULL,
    locale        TEXT COLLATE "C" NOT NULL,
    approval      TEXT COLLATE "C" NOT NULL,
    reason        TEXT COLLATE "C" NOT NULL,  -- reason why it is not approved
    category      TEXT COLLATE "C" NOT NULL,  -- empty: unknown
    variables     TEXT COLLATE "C" NOT NULL,  -- JSON list of names
    text          TEXT COLLATE "C" NOT NULL,
    digest        TEXT COLLATE "C" NOT NULL,
    changed_at_ms BIGINT NOT NULL,
    has_others    BIGINT NOT NULL DEFAULT 0,  -- 1: WhatsApp shows more than the text, which shortens the text
    PRIMARY KEY (account_sid, source, reference)
);

-- State of each account's template catalogue, and the time at which a sidecar reads it from Twilio.
CREATE TABLE template_catalogues (
    account_sid  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    revision     BIGINT NOT NULL,  -- number of changes
    due_at_ms    BIGINT NOT NULL,  -- time of the next read; during a read, the end of its hold
    synced_at_ms BIGINT NOT NULL,  -- time of the last complete read; 0: never
    problem      TEXT COLLATE "C" NOT NULL  -- reason of a failed read since then
);

-- Outbound messages with their progress: messages, verifications and e-mails. An attempt is recorded before the provider is called,
-- so that a crash leaves a row that shows it. The text is deleted when the message has ended. The messages of one notification have
-- its id: a message, and its fallbacks. A message that a rule declined before it was accepted has a row without content.
CREATE TABLE outbound_messages (
    id               TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- ms_..
    account_sid      TEXT COLLATE "C" NOT NULL,
    channel          TEXT COLLATE "C" NOT NULL,
    recipient        TEXT COLLATE "C" NOT NULL,  -- number; masked after the end
    sender           TEXT COLLATE "C" NOT NULL,  -- our number, or the Messaging Service
    category         TEXT COLLATE "C" NOT NULL,
    kind             TEXT COLLATE "C" NOT NULL,
    priority         BIGINT NOT NULL,  -- a smaller number is sent sooner
    form             TEXT COLLATE "C" NOT NULL,  -- form that is posted to Twilio; empty after the end
    state            TEXT COLLATE "C" NOT NULL CHECK (state IN ('queued', 'attempting', 'sent', 'refused', 'unknown', 'not_sent', 'canceled', 'declined')),
    due_at_ms        BIGINT NOT NULL,  -- during an attempt: end of its hold
    first_due_at_ms  BIGINT NOT NULL,
    attempt_id       TEXT COLLATE "C" NOT NULL,
    attempts         BIGINT NOT NULL,
    message_sid      TEXT COLLATE "C" NOT NULL,
    code             TEXT COLLATE "C" NOT NULL,  -- reason why it was not sent
    reason           TEXT COLLATE "C" NOT NULL,
    created_at_ms    BIGINT NOT NULL,
    created_by       TEXT COLLATE "C" NOT NULL,
    changed_at_ms    BIGINT NOT NULL,
    attempted_at_ms  BIGINT NOT NULL DEFAULT 0,  -- start of the last attempt
    lookups          BIGINT NOT NULL DEFAULT 0,  -- number of searches in Twilio's list while the outcome is unknown
    lookup_due_at_ms BIGINT NOT NULL DEFAULT 0,  -- time of the next search; 0: none
    request_id       TEXT COLLATE "C" NOT NULL DEFAULT '',  -- Twilio's id of the last call
    fallback         TEXT COLLATE "C" NOT NULL DEFAULT '',  -- message to send instead, or the remaining steps of a plan, until this one has arrived
    fallback_to      TEXT COLLATE "C" NOT NULL DEFAULT '',  -- recipients of the fallback, separated by blanks, for as long
    fallback_of      TEXT COLLATE "C" NOT NULL DEFAULT '',  -- message that this one replaces
    twilio_status    BIGINT NOT NULL DEFAULT 0,  -- HTTP status of Twilio's refusal; 0: none
    segments         BIGINT NOT NULL DEFAULT 0,  -- SMS segments, by which Twilio bills; 0: not billed by segments
    template         TEXT COLLATE "C" NOT NULL DEFAULT '',  -- name in the catalogue, or content SID; empty: no template
    country          TEXT COLLATE "C" NOT NULL DEFAULT '',  -- of the recipient; empty: unknown
    status           TEXT COLLATE "C" NOT NULL DEFAULT '',  -- delivery status that Twilio reported; empty: none yet
    status_at_ms     BIGINT NOT NULL DEFAULT 0,  -- time of that report
    valid_until_ms   BIGINT NOT NULL DEFAULT 0,  -- the message is not sent after this time; 0: no such time
    repeat_until_ms  BIGINT NOT NULL DEFAULT 0,  -- until then form and recipient are stored, to repeat the message if its delivery fails
    repetitions      BIGINT NOT NULL DEFAULT 0,  -- number of times it was sent again after a failed delivery
    replaced_sids    TEXT COLLATE "C" NOT NULL DEFAULT '',  -- SIDs of the failed deliveries, separated by blanks
    metadata         TEXT COLLATE "C" NOT NULL DEFAULT '',  -- data of the caller, as JSON; empty: none
    reply_to         TEXT COLLATE "C" NOT NULL DEFAULT '',  -- inbound message to whose keyword it replies
    reply_keyword    TEXT COLLATE "C" NOT NULL DEFAULT '',  -- meaning of that keyword: stop, start or help
    provider         TEXT COLLATE "C" NOT NULL DEFAULT 'messaging' CHECK (provider IN ('messaging', 'verify', 'sendgrid', 'smtp', 'studio')),
    notification_id  TEXT COLLATE "C" NOT NULL DEFAULT '',  -- nt_..; of a fallback: that of the message that it replaces
    contact          TEXT COLLATE "C" NOT NULL DEFAULT '',  -- number or address of the recipient; empty after its retention period
    plan             TEXT COLLATE "C" NOT NULL DEFAULT '',  -- name of the notification plan in the routes; empty: none
    answer_within_ms BIGINT NOT NULL DEFAULT 0  -- time after which a sent message moves on to the next step of its plan; 0: none
);
CREATE INDEX outbound_messages_listed ON outbound_messages (account_sid, state, created_at_ms, id);
CREATE INDEX outbound_messages_by_sid ON outbound_messages (message_sid) WHERE message_sid <> '';
-- Queued messages by category, account and sender, so that none of them waits behind all messages of another.
CREATE INDEX outbound_messages_queued ON outbound_messages (priority, account_sid, sender, due_at_ms) WHERE state = 'queued';
CREATE INDEX outbound_messages_due ON outbound_messages (due_at_ms) WHERE state = 'queued';
CREATE INDEX outbound_messages_held ON outbound_messages (due_at_ms) WHERE state = 'attempting';
CREATE INDEX outbound_messages_unknown ON outbound_messages (created_at_ms) WHERE state = 'unknown';
CREATE INDEX outbound_messages_lookup ON outbound_messages (lookup_due_at_ms) WHERE state = 'unknown' AND lookup_due_at_ms > 0;
CREATE UNIQUE INDEX outbound_messages_fallback_of ON outbound_messages (fallback_of) WHERE fallback_of <> '';
-- One reply to each keyword.
CREATE UNIQUE INDEX outbound_messages_reply_to ON outbound_messages (account_sid, reply_to, reply_keyword) WHERE reply_to <> '';
CREATE INDEX outbound_messages_with_fallback ON outbound_messages (changed_at_ms) WHERE fallback <> '';
-- Sent messages that move on to the next step of their plan without an answer.
CREATE INDEX outbound_messages_answer ON outbound_messages ((changed_at_ms + answer_within_ms))
    WHERE state = 'sent' AND answer_within_ms > 0 AND fallback <> '';
CREATE INDEX outbound_messages_poll ON outbound_messages (lookup_due_at_ms) WHERE state = 'sent' AND lookup_due_at_ms > 0;
CREATE INDEX outbound_messages_repeatable ON outbound_messages (repeat_until_ms) WHERE state = 'sent' AND repeat_until_ms > 0;
-- Lists by status, error code, template and sender.
CREATE INDEX outbound_messages_status ON outbound_messages (account_sid, status, created_at_ms, id) WHERE status <> '';
CREATE INDEX outbound_messages_code ON outbound_messages (account_sid, code, created_at_ms, id) WHERE code <> '';
CREATE INDEX outbound_messages_template ON outbound_messages (account_sid, template, created_at_ms, id) WHERE template <> '';
CREATE INDEX outbound_messages_sender ON outbound_messages (account_sid, sender, created_at_ms, id);
-- Notifications: their messages, and their first messages by time, also of one contact.
CREATE INDEX outbound_messages_notification ON outbound_messages (notification_id) WHERE notification_id <> '';
CREATE INDEX outbound_messages_first ON outbound_messages (account_sid, created_at_ms, id) WHERE fallback_of = '';
CREATE INDEX outbound_messages_contact ON outbound_messages (account_sid, contact, created_at_ms, id) WHERE contact <> '';
-- Contacts whose retention period is over.
CREATE INDEX outbound_messages_identified ON outbound_messages (account_sid, created_at_ms) WHERE contact <> '';

-- SIDs of deliveries that failed and were repeated. A late report about one of them is not about the current delivery.
CREATE TABLE replaced_sids (
    message_sid TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    message_id  TEXT COLLATE "C" NOT NULL  -- ms_..
);
CREATE INDEX replaced_sids_message ON replaced_sids (message_id);

-- Number of verifications that started in a window of time, for the limits of a number and of an end user's address.
CREATE TABLE verification_starts (
    account_sid TEXT COLLATE "C" NOT NULL,
    subject     TEXT COLLATE "C" NOT NULL,  -- digest of the number, or of the address
    ends_at_ms  BIGINT NOT NULL,  -- end of the window
    starts      BIGINT NOT NULL,
    PRIMARY KEY (account_sid, subject, ends_at_ms)
);
CREATE INDEX verification_starts_ending ON verification_starts (ends_at_ms);

-- Counters of messages by hour, for statistics. A shard is a part of one counter, so that sidecars rarely wait for each other.
CREATE TABLE message_counts (
    account_sid TEXT COLLATE "C" NOT NULL,
    hour_ms     BIGINT NOT NULL,  -- start of the hour
    event       TEXT COLLATE "C" NOT NULL,  -- accepted, sent, delivered, read, failed, refused, repeated
    channel     TEXT COLLATE "C" NOT NULL,
    sender      TEXT COLLATE "C" NOT NULL,
    template    TEXT COLLATE "C" NOT NULL,
    country     TEXT COLLATE "C" NOT NULL,
    code        TEXT COLLATE "C" NOT NULL,
    shard       BIGINT NOT NULL,
    count       BIGINT NOT NULL,
    PRIMARY KEY (account_sid, hour_ms, event, channel, sender, template, country, code, shard)
);
CREATE INDEX message_counts_hour ON message_counts (hour_ms);

-- Token buckets of senders, for sidecars that have no Redis or cannot reach it. Callers choose the names of senders, so a
-- full bucket is deleted. SQLite has one sidecar, which has them in memory.
CREATE TABLE token_buckets (
    name       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    bucket     TEXT COLLATE "C" NOT NULL,
    full_at_ms BIGINT NOT NULL  -- time at which an unused bucket is full
);
CREATE INDEX token_buckets_full ON token_buckets (full_at_ms);

-- Media that callers uploaded for messages. The row is inserted before the object and deleted after it, so that every object in
-- the bucket has a row.
CREATE TABLE media (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- md_.., the last part of its path in the bucket
    account_sid   TEXT COLLATE "C" NOT NULL,
    content_type  TEXT COLLATE "C" NOT NULL,
    bytes         BIGINT NOT NULL,
    digest        TEXT COLLATE "C" NOT NULL,  -- SHA-256
    created_at_ms BIGINT NOT NULL,
    created_by    TEXT COLLATE "C" NOT NULL,
    keep_ms       BIGINT NOT NULL,  -- lifetime after the upload, and after each message that uses it
    expires_at_ms BIGINT NOT NULL,  -- 0: immediately
    is_stored     BIGINT NOT NULL  -- 1: the object is complete
);
CREATE INDEX media_expiring ON media (expires_at_ms);
-- Messages that use a medium, with their recipients, by which an erasure finds it.
CREATE TABLE media_uses (
    media_id    TEXT COLLATE "C" NOT NULL,
    message_id  TEXT COLLATE "C" NOT NULL,
    account_sid TEXT COLLATE "C" NOT NULL,
    channel     TEXT COLLATE "C" NOT NULL,
    recipient   TEXT COLLATE "C" NOT NULL,
    at_ms       BIGINT NOT NULL,
    PRIMARY KEY (media_id, message_id)
);
CREATE INDEX media_uses_by_recipient ON media_uses (account_sid, recipient);

-- Media of inbound messages that the sidecar fetches from Twilio, and deletes there. A row is written with the event of its webhook,
-- and deleted when its link has expired. The bytes of a stored one are in `media` under the same id.
CREATE TABLE inbound_media (
    id              TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- mi_.., derived from account, message and medium
    account_sid     TEXT COLLATE "C" NOT NULL,
    message_sid     TEXT COLLATE "C" NOT NULL,
    media_sid       TEXT COLLATE "C" NOT NULL,  -- ME..; empty: its URL is not one of Twilio's API
    position        BIGINT NOT NULL,  -- N of MediaUrlN
    channel         TEXT COLLATE "C" NOT NULL,
    contact         TEXT COLLATE "C" NOT NULL,  -- empty: erased
    content_type    TEXT COLLATE "C" NOT NULL,  -- as Twilio declared it
    received_at_ms  BIGINT NOT NULL,
    state           TEXT COLLATE "C" NOT NULL CHECK (state IN ('pending', 'stored', 'refused', 'deleted', 'erased')),
    code            TEXT COLLATE "C" NOT NULL,  -- of the latest failure; empty: none
    attempts        BIGINT NOT NULL,
    ended_at_ms     BIGINT NOT NULL,  -- when it was stored, refused, deleted or erased; 0: pending
    twilio_state    TEXT COLLATE "C" NOT NULL CHECK (twilio_state IN ('kept', 'requested', 'deleted', 'failed')),
    twilio_attempts BIGINT NOT NULL,
    deleted_by      TEXT COLLATE "C" NOT NULL,  -- author of the deletion at Twilio; empty: none was requested
    is_open         BIGINT NOT NULL,  -- 1: a fetch or a deletion at Twilio is due
    due_at_ms       BIGINT NOT NULL,
    held_by         TEXT COLLATE "C" NOT NULL
);
CREATE INDEX inbound_media_due ON inbound_media (due_at_ms) WHERE is_open = 1;
CREATE INDEX inbound_media_of_message ON inbound_media (account_sid, message_sid);
CREATE INDEX inbound_media_of_contact ON inbound_media (account_sid, contact);
CREATE INDEX inbound_media_received ON inbound_media (received_at_ms);

-- Webhook requests that a filter refused, by cause. No row has a value of a parameter.
CREATE TABLE refused_groups (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- rg_.., a digest of account, cause, subject, route and reason
    account_sid TEXT COLLATE "C" NOT NULL,  -- whose key signed; empty: not proven
    kind        TEXT COLLATE "C" NOT NULL CHECK (kind IN ('misconfiguration', 'stranger', 'unexamined')),
    cause       TEXT COLLATE "C" NOT NULL,
    route       TEXT COLLATE "C" NOT NULL,
    reason      TEXT COLLATE "C" NOT NULL,  -- of the filter
    finding     TEXT COLLATE "C" NOT NULL,
    remedy      TEXT COLLATE "C" NOT NULL,
    requests    BIGINT NOT NULL,  -- reported by filters
    skipped     BIGINT NOT NULL,  -- similar ones that filters did not report
    first_at_ms BIGINT NOT NULL,
    last_at_ms  BIGINT NOT NULL
);
CREATE INDEX refused_groups_latest ON refused_groups (last_at_ms, id);
CREATE INDEX refused_groups_of_kind ON refused_groups (kind, last_at_ms, id);
-- The latest requests of each group.
CREATE TABLE refused_requests (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- rr_..
    group_id    TEXT COLLATE "C" NOT NULL,
    account_sid TEXT COLLATE "C" NOT NULL,  -- whose key signed; empty: not proven
    at_ms       BIGINT NOT NULL,
    is_shadow   BIGINT NOT NULL,  -- 1: forwarded all the same
    method      TEXT COLLATE "C" NOT NULL,
    path        TEXT COLLATE "C" NOT NULL,  -- without query
    authority   TEXT COLLATE "C" NOT NULL,
    parameters  TEXT COLLATE "C" NOT NULL,  -- names, as JSON
    body_bytes  BIGINT NOT NULL,
    request_id  TEXT COLLATE "C" NOT NULL,
    message_sid TEXT COLLATE "C" NOT NULL,  -- empty: the signature is not proven
    explanation TEXT COLLATE "C" NOT NULL  -- report of the diagnosis, as JSON; empty: none
);
CREATE INDEX refused_requests_of_group ON refused_requests (group_id, at_ms, id);
CREATE INDEX refused_requests_latest ON refused_requests (at_ms, id);
CREATE INDEX refused_requests_of_account ON refused_requests (account_sid, at_ms);
