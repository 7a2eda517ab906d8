-- Schema of the stores. Times are milliseconds since 1970, UTC. Text is compared byte by byte (SQLite's default).

-- Ledger: each webhook once, as received, with its holder or its outcome. One insert is enough when the backend answers soon.
-- form is empty only if the sidecar received the settlement of the webhook and not its claim.
CREATE TABLE events (
    -- Number in the order of recording, which live streams follow. A number is never given twice.
    commit_position INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    dedupe_key     TEXT NOT NULL UNIQUE,  -- begins with class, account and message: finds the webhooks of a message
    class          TEXT NOT NULL,
    account_sid    TEXT NOT NULL,
    message_sid    TEXT NOT NULL,
    status         TEXT,
    error_code     TEXT,
    route          TEXT,
    form           TEXT,
    channel        TEXT,  -- sms, whatsapp, ..
    theirs         TEXT,  -- number of the contact in E.164 format, or its id on the channel
    ours           TEXT,  -- our number
    received_at_ms INTEGER,  -- first arrival; the conversation window starts here
    attempts       INTEGER NOT NULL,  -- number of grants; of two records of one webhook, the one with more is newer
    claim_id       TEXT,  -- claim that holds the webhook, or that settled it
    held_until_ms  INTEGER,  -- set while a claim holds the webhook
    outcome        TEXT CHECK (outcome IN ('accepted', 'refused')),
    settled_at_ms  INTEGER,
    answer         TEXT,  -- of an accepted webhook: response of the backend, as JSON
    redacted       INTEGER,  -- removed parts, as bits: body 1, media 2, person 4, addresses 8, other 16, answer 32; NULL: none
    redacted_at_ms INTEGER,
    envelope       TEXT  -- with an archive: method, public URL and some headers of the request, as JSON
);
CREATE INDEX events_received ON events (received_at_ms);
-- Latest inbound message of a pair of addresses, for the conversation window.
CREATE INDEX events_pair ON events (theirs, ours, account_sid, channel, received_at_ms)
    WHERE class = 'inbound' AND theirs IS NOT NULL;
-- Latest webhooks of an account, of a contact, of one of our numbers.
CREATE INDEX events_account ON events (account_sid, received_at_ms) WHERE received_at_ms IS NOT NULL;
CREATE INDEX events_theirs ON events (theirs, received_at_ms) WHERE theirs IS NOT NULL;
CREATE INDEX events_ours ON events (ours, received_at_ms) WHERE ours IS NOT NULL;

-- Ends of claims that SQL decided, not Redis or memory: released, released before the claim arrived, or superseded.
CREATE TABLE claim_ends (
    dedupe_key    TEXT NOT NULL,
    claim_id      TEXT NOT NULL,
    ending        TEXT NOT NULL CHECK (ending IN ('freed', 'tombstone', 'superseded')),
    expires_at_ms INTEGER NOT NULL,
    PRIMARY KEY (dedupe_key, claim_id)
) WITHOUT ROWID;
CREATE INDEX claim_ends_expires ON claim_ends (expires_at_ms);

-- Heartbeats of the sidecars that keep leases in Redis. While one of them cannot reach Redis, SQL decides the claims of all of
-- them. Times are of the database's clock.
CREATE TABLE sidecars (
    id                 TEXT NOT NULL PRIMARY KEY,  -- new at each start
    alive_until_ms     INTEGER NOT NULL,  -- other sidecars do not wait for it after this time
    partition_until_ms INTEGER NOT NULL,  -- until then no sidecar grants a claim through Redis alone; 0: it reaches Redis
    written_ms         INTEGER NOT NULL  -- its claims before this time are in the ledger
) WITHOUT ROWID;
-- Every claim checks for a partition. There usually is none, so the check reads no row.
CREATE INDEX sidecars_partition ON sidecars (partition_until_ms);

-- Reasons why a contact must not be written to, one row for each. A contact is suppressed while one reason is in force. The
-- number comes before the channel, so that one range finds the reasons of a channel and of all channels ('*').
CREATE TABLE suppressions (
    tenant         TEXT NOT NULL,  -- account SID
    number         TEXT NOT NULL,  -- E.164 format, or the id on the channel
    channel        TEXT NOT NULL,  -- sms, whatsapp, .. or * for every channel
    source         TEXT NOT NULL,  -- keyword, opt_out_type, callback, administrator, ..
    error_code     TEXT NOT NULL DEFAULT '',  -- of a callback
    suppressed     INTEGER NOT NULL CHECK (suppressed IN (0, 1)),  -- false: no longer in force
    since_ms       INTEGER NOT NULL,  -- start of the current or last period in force
    expires_at_ms  INTEGER,  -- from then on it is not in force, even if suppressed is true; NULL: never
    changed_at_ms  INTEGER NOT NULL,
    message_sid    TEXT,  -- message that caused it
    route          TEXT,
    origin_channel TEXT,  -- channel of the opt-out
    sender         TEXT,  -- our number or sender that received the opt-out
    service_sid    TEXT,  -- Messaging Service of the callback
    changed_by     TEXT,  -- API key or user of the command line; NULL if the contact caused the change
    PRIMARY KEY (tenant, number, channel, error_code, source)
) WITHOUT ROWID;
CREATE INDEX suppressions_source ON suppressions (tenant, source, number, channel, error_code);
CREATE INDEX suppressions_expiring ON suppressions (expires_at_ms) WHERE suppressed AND expires_at_ms IS NOT NULL;

-- Every STOP and START, and every HELP that got a reply, once for each message. Never deleted, so that an old one cannot take
-- effect twice.
CREATE TABLE opt_events (
    account_sid    TEXT NOT NULL,
    message_sid    TEXT NOT NULL,
    channel        TEXT NOT NULL,
    number         TEXT NOT NULL,
    opt            TEXT NOT NULL CHECK (opt IN ('stop', 'start', 'help')),
    cause          TEXT NOT NULL,  -- keyword or opt_out_type
    route          TEXT NOT NULL,
    recorded_at_ms INTEGER NOT NULL,
    PRIMARY KEY (account_sid, message_sid)
) WITHOUT ROWID;
CREATE INDEX opt_events_number ON opt_events (account_sid, channel, number, recorded_at_ms);

-- Evidence that a contact consented to a category of messages, or withdrew the consent. Rows are only added. The latest row of
-- a contact, channel and category is in effect; of two rows with the same time, the withdrawal.
CREATE TABLE consents (
    id             TEXT NOT NULL PRIMARY KEY,  -- digest of the following columns: the same evidence is stored once
    tenant         TEXT NOT NULL,
    number         TEXT NOT NULL,
    channel        TEXT NOT NULL,
    category       TEXT NOT NULL,
    state          TEXT NOT NULL CHECK (state IN ('granted', 'withdrawn')),
    at_ms          INTEGER NOT NULL,  -- time of the contact's statement
    source         TEXT NOT NULL,  -- form, call, contract, ..
    proof          TEXT,  -- text that was shown, and the contact's answer
    ip             TEXT,
    user_agent     TEXT,
    recorded_at_ms INTEGER NOT NULL,
    recorded_by    TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX consents_contact ON consents (tenant, number, channel, category, at_ms, state, id);

-- Ids of one contact: a number and the user id that a webhook named together, in both directions and in every spelling of the
-- number. A link is only added: later links of an id are uncertain.
CREATE TABLE contact_links (
    tenant       TEXT NOT NULL,  -- account SID
    number       TEXT NOT NULL,  -- E.164 format, or a user id
    other        TEXT NOT NULL,  -- user id, or the number
    is_certain   INTEGER NOT NULL,  -- 1: the webhook had one possible reading, and the id had no other number
    linked_at_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, number, other)
) WITHOUT ROWID;

-- API keys. The secret of a key is shown once and not stored. A revoked key stays, because the audit log refers to it.
CREATE TABLE api_keys (
    id              TEXT NOT NULL PRIMARY KEY,  -- public part of the key
    name            TEXT NOT NULL,
    scope           TEXT NOT NULL CHECK (scope IN ('edge', 'app', 'admin')),
    account_sid     TEXT,  -- only account that the key can access; NULL: all accounts
    secret_sha256   TEXT NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    created_by      TEXT NOT NULL,
    last_used_at_ms INTEGER,  -- to the minute
    revoked_at_ms   INTEGER
) WITHOUT ROWID;
CREATE INDEX api_keys_created ON api_keys (created_at_ms, id);
CREATE INDEX api_keys_account ON api_keys (account_sid, created_at_ms, id);
CREATE INDEX api_keys_scope ON api_keys (scope);

-- Sessions of API keys, for instance of browsers. A session ends with its key. Expired sessions are deleted when the next one starts.
CREATE TABLE sessions (
    secret_sha256 TEXT NOT NULL PRIMARY KEY,
    key_id        TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_key ON sessions (key_id, created_at_ms);
CREATE INDEX sessions_expiry ON sessions (expires_at_ms);

-- Audit log: every administrative change in order, in the transaction of the change.
CREATE TABLE audit (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms       INTEGER NOT NULL,
    actor       TEXT NOT NULL,  -- API key, edge token or command line
    source      TEXT NOT NULL,  -- network address, or user of the command line
    action      TEXT NOT NULL,  -- key.created, ..
    subject     TEXT NOT NULL,  -- changed object
    account_sid TEXT,  -- account of the object
    detail      TEXT NOT NULL  -- JSON, without secrets
);
CREATE INDEX audit_time ON audit (at_ms, id);
CREATE INDEX audit_account ON audit (account_sid, at_ms, id);
CREATE INDEX audit_actor ON audit (actor, at_ms, id);
CREATE INDEX audit_action ON audit (action, at_ms, id);

-- Tenant profiles: settings of accounts that differ from those for all accounts. Auth tokens are not here; they stay in the
-- accounts file.
CREATE TABLE tenants (
    account_sid   TEXT NOT NULL PRIMARY KEY,
    parent_sid    TEXT,  -- of a subaccount: its main account
    friendly_name TEXT NOT NULL,
    senders       TEXT NOT NULL,  -- JSON list of numbers and senders
    services      TEXT NOT NULL,  -- JSON list of Messaging Service SIDs
    policy        TEXT NOT NULL,  -- JSON: differences from [policy]
    retention     TEXT NOT NULL,  -- JSON: differences from [retention]
    revision      INTEGER NOT NULL,  -- number of changes
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    closed_at_ms  INTEGER
) WITHOUT ROWID;
-- The sum of the revisions counts the changes of all accounts. This index alone answers it.
CREATE INDEX tenants_revision ON tenants (revision);

-- Requests with an Idempotency-Key and their responses, which copies of a request get again. Each caller has its own keys.
-- Responses contain no secrets.
CREATE TABLE idempotency_keys (
    tenant          TEXT NOT NULL,  -- account that the caller is bound to; '' for a caller of all accounts
    principal       TEXT NOT NULL,  -- API key, or edge token
    idempotency_key TEXT NOT NULL,
    fingerprint     TEXT NOT NULL,  -- digest of the request, because one key belongs to one request
    owner           TEXT NOT NULL,  -- copy that executes the request; the changes of another copy are rolled back
    held_until_ms   INTEGER NOT NULL,  -- the execution has certainly ended by then
    status          INTEGER,  -- HTTP status of the response; NULL during the execution
    headers         TEXT,  -- JSON
    body            TEXT,
    created_at_ms   INTEGER NOT NULL,
    expires_at_ms   INTEGER NOT NULL,
    PRIMARY KEY (tenant, principal, idempotency_key)
) WITHOUT ROWID;
CREATE INDEX idempotency_keys_expires ON idempotency_keys (expires_at_ms);

-- Progress of redaction, for each part of an account's webhooks: the part is removed from all webhooks up to this position. A
-- row therefore needs no mark, and no index of unmarked rows. The sidecar that redacts holds a lock on its rows.
CREATE TABLE retention (
    account_sid TEXT NOT NULL,
    part        TEXT NOT NULL,
    through_ms  INTEGER NOT NULL,
    through_key TEXT NOT NULL,  -- position among the webhooks of the same millisecond
    PRIMARY KEY (account_sid, part)
) WITHOUT ROWID;

-- Outbox: deliveries to sinks. A delivery is written in the transaction of its event, so that neither exists without the other.
CREATE TABLE deliveries (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,  -- order within a lane
    sink           TEXT NOT NULL,
    delivery_id    TEXT NOT NULL,  -- identifies the event and its replay
    dedupe_key     TEXT NOT NULL,  -- event: of a webhook, or operational
    replay_id      TEXT,
    account_sid    TEXT NOT NULL,
    lane           TEXT NOT NULL,  -- deliveries of one lane stay in order: account, channel and contact
    state          TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'dead', 'discarded')),
    recorded_at_ms INTEGER NOT NULL,
    tries          INTEGER NOT NULL DEFAULT 0,  -- number of attempts
    reason         TEXT,  -- reason of the last failure
    attempts       TEXT NOT NULL DEFAULT '',  -- latest attempts with their answers: JSON
    ended_at_ms    INTEGER,
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
    event_id       TEXT NOT NULL PRIMARY KEY,
    event_type     TEXT NOT NULL,  -- message.sent, ..
    account_sid    TEXT NOT NULL,
    channel        TEXT NOT NULL,  -- of the contact; '*': every channel; empty without a contact
    contact        TEXT NOT NULL,  -- number or id of the contact; empty without one
    subject        TEXT NOT NULL,  -- id of the message or object
    data           TEXT NOT NULL,  -- content, as JSON
    recorded_at_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX operational_events_contact ON operational_events (account_sid, contact, recorded_at_ms);
CREATE INDEX operational_events_recorded ON operational_events (recorded_at_ms, event_id);

-- One row for each sink and lane with waiting deliveries. A worker that takes a lane sets its due time to the end of the hold,
-- so that another worker continues after a crash.
CREATE TABLE lanes (
    sink      TEXT NOT NULL,
    lane      TEXT NOT NULL,
    due_at_ms INTEGER NOT NULL,
    held_by   TEXT,
    PRIMARY KEY (sink, lane)
) WITHOUT ROWID;
CREATE INDEX lanes_due ON lanes (sink, due_at_ms);

-- Requests to deliver webhooks again, with their progress. The position and the deliveries change in one transaction.
CREATE TABLE replays (
    id            TEXT NOT NULL PRIMARY KEY,
    sink          TEXT NOT NULL,
    account_sid   TEXT,  -- NULL: all accounts
    message_sid   TEXT,  -- NULL: all messages
    class         TEXT,  -- NULL: all classes
    since_ms      INTEGER NOT NULL,
    until_ms      INTEGER NOT NULL,  -- exclusive
    state         TEXT NOT NULL CHECK (state IN ('running', 'done')),
    through_ms    INTEGER NOT NULL,  -- last examined webhook
    through_key   TEXT NOT NULL,
    found         INTEGER NOT NULL,  -- number of matching webhooks
    queued        INTEGER NOT NULL,  -- number of these that were queued for the sink
    left_out      INTEGER NOT NULL,  -- number of these that were incomplete
    created_at_ms INTEGER NOT NULL,
    created_by    TEXT NOT NULL,
    ended_at_ms   INTEGER,
    origin        TEXT NOT NULL DEFAULT 'ledger' CHECK (origin IN ('ledger', 'archive', 'events'))  -- source: webhooks, or operational events
);
CREATE INDEX replays_running ON replays (created_at_ms) WHERE state = 'running';
CREATE INDEX replays_created ON replays (created_at_ms, id);
CREATE INDEX replays_account ON replays (account_sid, created_at_ms, id);

-- One row while an archive is configured: from then on a trigger queues each webhook.
CREATE TABLE archive_switch (
    id       INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    since_ms INTEGER NOT NULL
);

-- Webhooks that are not archived yet. Retention skips them.
CREATE TABLE archive_queue (
    dedupe_key     TEXT NOT NULL PRIMARY KEY,
    account_sid    TEXT NOT NULL,
    received_at_ms INTEGER NOT NULL,
    bytes          INTEGER NOT NULL,
    batch_id       TEXT  -- batch that writes it
) WITHOUT ROWID;
CREATE INDEX archive_queue_account ON archive_queue (account_sid, received_at_ms, dedupe_key);
CREATE INDEX archive_queue_batch ON archive_queue (batch_id) WHERE batch_id IS NOT NULL;

-- Objects that are being written, one for each account. After an expired hold, another sidecar writes the same object again.
CREATE TABLE archive_batches (
    account_sid   TEXT NOT NULL PRIMARY KEY,
    batch_id      TEXT NOT NULL,
    object        TEXT NOT NULL,  -- name of the object
    made_at_ms    INTEGER NOT NULL,
    held_by       TEXT NOT NULL,
    held_until_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- Erasures in archived objects that are not done yet. The row, and with it the contact's number, is deleted when they are done.
CREATE TABLE archive_erasures (
    id            TEXT NOT NULL PRIMARY KEY,
    account_sid   TEXT NOT NULL,
    message_sid   TEXT,
    number        TEXT,
    channel       TEXT,
    since_ms      INTEGER NOT NULL,
    until_ms      INTEGER NOT NULL,  -- inclusive
    made_at_ms    INTEGER NOT NULL,
    held_by       TEXT NOT NULL DEFAULT '',
    held_until_ms INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- Queues a webhook in the transaction that writes its form, so that no writer of events can forget the archive.
CREATE TRIGGER events_inserted AFTER INSERT ON events
    WHEN NEW.form IS NOT NULL AND EXISTS (SELECT 1 FROM archive_switch)
BEGIN
    INSERT INTO archive_queue (dedupe_key, account_sid, received_at_ms, bytes)
    VALUES (NEW.dedupe_key, NEW.account_sid, coalesce(NEW.received_at_ms, 0), length(CAST(NEW.form AS BLOB)))
    ON CONFLICT (dedupe_key) DO NOTHING;
END;
-- The settlement of a webhook may arrive before its form.
CREATE TRIGGER events_form_added AFTER UPDATE OF form ON events
    WHEN OLD.form IS NULL AND NEW.form IS NOT NULL AND EXISTS (SELECT 1 FROM archive_switch)
BEGIN
    INSERT INTO archive_queue (dedupe_key, account_sid, received_at_ms, bytes)
    VALUES (NEW.dedupe_key, NEW.account_sid, coalesce(NEW.received_at_ms, 0), length(CAST(NEW.form AS BLOB)))
    ON CONFLICT (dedupe_key) DO NOTHING;
END;
-- An arrival that is recorded after its settlement is new to live streams.
CREATE TRIGGER events_arrival_added AFTER UPDATE OF received_at_ms ON events
    WHEN OLD.received_at_ms IS NULL AND NEW.received_at_ms IS NOT NULL
BEGIN
    UPDATE events SET commit_position = 1 + max((SELECT max(commit_position) FROM events),
        (SELECT seq FROM sqlite_sequence WHERE name = 'events'))
    WHERE dedupe_key = NEW.dedupe_key;
END;

-- Templates of an account, from Twilio's Content API and from administrators.
CREATE TABLE templates (
    account_sid   TEXT NOT NULL,
    source        TEXT NOT NULL CHECK (source IN ('twilio', 'administrator')),
    reference     TEXT NOT NULL,  -- of Twilio: content SID; of an administrator: name/locale
    content_sid   TEXT NOT NULL,
    name          TEXT NOT NULL,
    locale        TEXT NOT NULL,
    approval      TEXT NOT NULL,
    reason        TEXT NOT NULL,  -- reason why it is not approved
    category      TEXT NOT NULL,  -- empty: unknown
    variables     TEXT NOT NULL,  -- JSON list of names
    text          TEXT NOT NULL,
    digest        TEXT NOT NULL,
    changed_at_ms INTEGER NOT NULL,
    has_others    INTEGER NOT NULL DEFAULT 0,  -- 1: WhatsApp shows more than the text, which shortens the text
    PRIMARY KEY (account_sid, source, reference)
);

-- State of each account's template catalogue, and the time at which a sidecar reads it from Twilio.
CREATE TABLE template_catalogues (
    account_sid  TEXT NOT NULL PRIMARY KEY,
    revision     INTEGER NOT NULL,  -- number of changes
    due_at_ms    INTEGER NOT NULL,  -- time of the next read; during a read, the end of its hold
    synced_at_ms INTEGER NOT NULL,  -- time of the last complete read; 0: never
    problem      TEXT NOT NULL  -- reason of a failed read since then
);

-- Outbound messages with their progress: messages, verifications and e-mails. An attempt is recorded before the provider is called,
-- so that a crash leaves a row that shows it. The text is deleted when the message has ended. The messages of one notification have
-- its id: a message, and its fallbacks. A message that a rule declined before it was accepted has a row without content.
CREATE TABLE outbound_messages (
    id               TEXT NOT NULL PRIMARY KEY,  -- ms_..
    account_sid      TEXT NOT NULL,
    channel          TEXT NOT NULL,
    recipient        TEXT NOT NULL,  -- number; masked after the end
    sender           TEXT NOT NULL,  -- our number, or the Messaging Service
    category         TEXT NOT NULL,
    kind             TEXT NOT NULL,
    priority         INTEGER NOT NULL,  -- a smaller number is sent sooner
    form             TEXT NOT NULL,  -- form that is posted to Twilio; empty after the end
    state            TEXT NOT NULL CHECK (state IN ('queued', 'attempting', 'sent', 'refused', 'unknown', 'not_sent', 'canceled', 'declined')),
    due_at_ms        INTEGER NOT NULL,  -- during an attempt: end of its hold
    first_due_at_ms  INTEGER NOT NULL,
    attempt_id       TEXT NOT NULL,
    attempts         INTEGER NOT NULL,
    message_sid      TEXT NOT NULL,
    code             TEXT NOT NULL,  -- reason why it was not sent
    reason           TEXT NOT NULL,
    created_at_ms    INTEGER NOT NULL,
    created_by       TEXT NOT NULL,
    changed_at_ms    INTEGER NOT NULL,
    attempted_at_ms  INTEGER NOT NULL DEFAULT 0,  -- start of the last attempt
    lookups          INTEGER NOT NULL DEFAULT 0,  -- number of searches in Twilio's list while the outcome is unknown
    lookup_due_at_ms INTEGER NOT NULL DEFAULT 0,  -- time of the next search; 0: none
    request_id       TEXT NOT NULL DEFAULT '',  -- Twilio's id of the last call
    fallback         TEXT NOT NULL DEFAULT '',  -- message to send instead, or the remaining steps of a plan, until this one has arrived
    fallback_to      TEXT NOT NULL DEFAULT '',  -- recipients of the fallback, separated by blanks, for as long
    fallback_of      TEXT NOT NULL DEFAULT '',  -- message that this one replaces
    twilio_status    INTEGER NOT NULL DEFAULT 0,  -- HTTP status of Twilio's refusal; 0: none
    segments         INTEGER NOT NULL DEFAULT 0,  -- SMS segments, by which Twilio bills; 0: not billed by segments
    template         TEXT NOT NULL DEFAULT '',  -- name in the catalogue, or content SID; empty: no template
    country          TEXT NOT NULL DEFAULT '',  -- of the recipient; empty: unknown
    status           TEXT NOT NULL DEFAULT '',  -- delivery status that Twilio reported; empty: none yet
    status_at_ms     INTEGER NOT NULL DEFAULT 0,  -- time of that report
    valid_until_ms   INTEGER NOT NULL DEFAULT 0,  -- the message is not sent after this time; 0: no such time
    repeat_until_ms  INTEGER NOT NULL DEFAULT 0,  -- until then form and recipient are stored, to repeat the message if its delivery fails
    repetitions      INTEGER NOT NULL DEFAULT 0,  -- number of times it was sent again after a failed delivery
    replaced_sids    TEXT NOT NULL DEFAULT '',  -- SIDs of the failed deliveries, separated by blanks
    metadata         TEXT NOT NULL DEFAULT '',  -- data of the caller, as JSON; empty: none
    reply_to         TEXT NOT NULL DEFAULT '',  -- inbound message to whose keyword it replies
    reply_keyword    TEXT NOT NULL DEFAULT '',  -- meaning of that keyword: stop, start or help
    provider         TEXT NOT NULL DEFAULT 'messaging' CHECK (provider IN ('messaging', 'verify', 'sendgrid', 'smtp', 'studio')),
    notification_id  TEXT NOT NULL DEFAULT '',  -- nt_..; of a fallback: that of the message that it replaces
    contact          TEXT NOT NULL DEFAULT '',  -- number or address of the recipient; empty after its retention period
    plan             TEXT NOT NULL DEFAULT '',  -- name of the notification plan in the routes; empty: none
    answer_within_ms INTEGER NOT NULL DEFAULT 0  -- time after which a sent message moves on to the next step of its plan; 0: none
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
    message_sid TEXT NOT NULL PRIMARY KEY,
    message_id  TEXT NOT NULL  -- ms_..
) WITHOUT ROWID;
CREATE INDEX replaced_sids_message ON replaced_sids (message_id);

-- Number of verifications that started in a window of time, for the limits of a number and of an end user's address.
CREATE TABLE verification_starts (
    account_sid TEXT NOT NULL,
    subject     TEXT NOT NULL,  -- digest of the number, or of the address
    ends_at_ms  INTEGER NOT NULL,  -- end of the window
    starts      INTEGER NOT NULL,
    PRIMARY KEY (account_sid, subject, ends_at_ms)
) WITHOUT ROWID;
CREATE INDEX verification_starts_ending ON verification_starts (ends_at_ms);

-- Counters of messages by hour, for statistics. A shard is a part of one counter, so that sidecars rarely wait for each other.
CREATE TABLE message_counts (
    account_sid TEXT NOT NULL,
    hour_ms     INTEGER NOT NULL,  -- start of the hour
    event       TEXT NOT NULL,  -- accepted, sent, delivered, read, failed, refused, repeated
    channel     TEXT NOT NULL,
    sender      TEXT NOT NULL,
    template    TEXT NOT NULL,
    country     TEXT NOT NULL,
    code        TEXT NOT NULL,
    shard       INTEGER NOT NULL,
    count       INTEGER NOT NULL,
    PRIMARY KEY (account_sid, hour_ms, event, channel, sender, template, country, code, shard)
) WITHOUT ROWID;
CREATE INDEX message_counts_hour ON message_counts (hour_ms);

-- Media that callers uploaded for messages. The row is inserted before the object and deleted after it, so that every object in
-- the bucket has a row.
CREATE TABLE media (
    id            TEXT NOT NULL PRIMARY KEY,  -- md_.., the last part of its path in the bucket
    account_sid   TEXT NOT NULL,
    content_type  TEXT NOT NULL,
    bytes         INTEGER NOT NULL,
    digest        TEXT NOT NULL,  -- SHA-256
    created_at_ms INTEGER NOT NULL,
    created_by    TEXT NOT NULL,
    keep_ms       INTEGER NOT NULL,  -- lifetime after the upload, and after each message that uses it
    expires_at_ms INTEGER NOT NULL,  -- 0: immediately
    is_stored     INTEGER NOT NULL  -- 1: the object is complete
);
CREATE INDEX media_expiring ON media (expires_at_ms);
-- Messages that use a medium, with their recipients, by which an erasure finds it.
CREATE TABLE media_uses (
    media_id    TEXT NOT NULL,
    message_id  TEXT NOT NULL,
    account_sid TEXT NOT NULL,
    channel     TEXT NOT NULL,
    recipient   TEXT NOT NULL,
    at_ms       INTEGER NOT NULL,
    PRIMARY KEY (media_id, message_id)
);
CREATE INDEX media_uses_by_recipient ON media_uses (account_sid, recipient);

-- Media of inbound messages that the sidecar fetches from Twilio, and deletes there. A row is written with the event of its webhook,
-- and deleted when its link has expired. The bytes of a stored one are in `media` under the same id.
CREATE TABLE inbound_media (
    id              TEXT NOT NULL PRIMARY KEY,  -- mi_.., derived from account, message and medium
    account_sid     TEXT NOT NULL,
    message_sid     TEXT NOT NULL,
    media_sid       TEXT NOT NULL,  -- ME..; empty: its URL is not one of Twilio's API
    position        INTEGER NOT NULL,  -- N of MediaUrlN
    channel         TEXT NOT NULL,
    contact         TEXT NOT NULL,  -- empty: erased
    content_type    TEXT NOT NULL,  -- as Twilio declared it
    received_at_ms  INTEGER NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('pending', 'stored', 'refused', 'deleted', 'erased')),
    code            TEXT NOT NULL,  -- of the latest failure; empty: none
    attempts        INTEGER NOT NULL,
    ended_at_ms     INTEGER NOT NULL,  -- when it was stored, refused, deleted or erased; 0: pending
    twilio_state    TEXT NOT NULL CHECK (twilio_state IN ('kept', 'requested', 'deleted', 'failed')),
    twilio_attempts INTEGER NOT NULL,
    deleted_by      TEXT NOT NULL,  -- author of the deletion at Twilio; empty: none was requested
    is_open         INTEGER NOT NULL,  -- 1: a fetch or a deletion at Twilio is due
    due_at_ms       INTEGER NOT NULL,
    held_by         TEXT NOT NULL
);
CREATE INDEX inbound_media_due ON inbound_media (due_at_ms) WHERE is_open = 1;
CREATE INDEX inbound_media_of_message ON inbound_media (account_sid, message_sid);
CREATE INDEX inbound_media_of_contact ON inbound_media (account_sid, contact);
CREATE INDEX inbound_media_received ON inbound_media (received_at_ms);

-- Webhook requests that a filter refused, by cause. No row has a value of a parameter.
CREATE TABLE refused_groups (
    id          TEXT NOT NULL PRIMARY KEY,  -- rg_.., a digest of account, cause, subject, route and reason
    account_sid TEXT NOT NULL,  -- whose key signed; empty: not proven
    kind        TEXT NOT NULL CHECK (kind IN ('misconfiguration', 'stranger', 'unexamined')),
    cause       TEXT NOT NULL,
    route       TEXT NOT NULL,
    reason      TEXT NOT NULL,  -- of the filter
    finding     TEXT NOT NULL,
    remedy      TEXT NOT NULL,
    requests    INTEGER NOT NULL,  -- reported by filters
    skipped     INTEGER NOT NULL,  -- similar ones that filters did not report
    first_at_ms INTEGER NOT NULL,
    last_at_ms  INTEGER NOT NULL
);
CREATE INDEX refused_groups_latest ON refused_groups (last_at_ms, id);
CREATE INDEX refused_groups_of_kind ON refused_groups (kind, last_at_ms, id);
-- The latest requests of each group.
CREATE TABLE refused_requests (
    id          TEXT NOT NULL PRIMARY KEY,  -- rr_..
    group_id    TEXT NOT NULL,
    account_sid TEXT NOT NULL,  -- whose key signed; empty: not proven
    at_ms       INTEGER NOT NULL,
    is_shadow   INTEGER NOT NULL,  -- 1: forwarded all the same
    method      TEXT NOT NULL,
    path        TEXT NOT NULL,  -- without query
    authority   TEXT NOT NULL,
    parameters  TEXT NOT NULL,  -- names, as JSON
    body_bytes  INTEGER NOT NULL,
    request_id  TEXT NOT NULL,
    message_sid TEXT NOT NULL,  -- empty: the signature is not proven
    explanation TEXT NOT NULL  -- report of the diagnosis, as JSON; empty: none
);
CREATE INDEX refused_requests_of_group ON refused_requests (group_id, at_ms, id);
CREATE INDEX refused_requests_latest ON refused_requests (at_ms, id);
CREATE INDEX refused_requests_of_account ON refused_requests (account_sid, at_ms);
