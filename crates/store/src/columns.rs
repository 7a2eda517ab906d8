//! Fragments of statements that both databases share.

/// Columns of a due delivery and its event: a webhook `e` or an operational event `o`. `metadata` is that of the outbound
/// message which the webhook is about, `media` the number of media that the sidecar stores.
macro_rules! due_columns {
    () => {
        "d.seq, d.delivery_id, d.dedupe_key, d.replay_id, d.lane, d.recorded_at_ms, d.tries, d.attempts, d.facts, \
         coalesce(e.class, '') AS class, d.account_sid, coalesce(e.message_sid, '') AS message_sid, e.status, \
         e.error_code, e.route, e.form, e.received_at_ms, o.event_type, o.data AS event_data, \
         o.recorded_at_ms AS event_at_ms, coalesce(nullif(o.contact, ''), o.subject) AS event_key, \
         coalesce((SELECT m.metadata FROM outbound_messages AS m WHERE m.message_sid = e.message_sid AND m.message_sid <> '' \
         AND m.account_sid = e.account_sid LIMIT 1), (SELECT m.metadata FROM replaced_sids AS s JOIN outbound_messages AS m \
         ON m.id = s.message_id WHERE s.message_sid = e.message_sid LIMIT 1), '') AS metadata, \
         (SELECT count(*) FROM inbound_media AS i WHERE i.account_sid = e.account_sid AND i.message_sid = e.message_sid) AS media"
    };
}
pub(super) use due_columns;

/// Columns of `events`, in the order in which both databases bind them.
macro_rules! event_columns {
    () => {
        "dedupe_key, class, account_sid, message_sid, status, error_code, route, form, channel, theirs, ours, \
         received_at_ms, attempts, claim_id, held_until_ms, outcome, settled_at_ms, answer, envelope"
    };
}
pub(super) use event_columns;

/// All columns of `suppressions`.
macro_rules! suppression_columns {
    () => {
        "tenant, number, channel, source, error_code, suppressed, since_ms, expires_at_ms, changed_at_ms, message_sid, route, \
         origin_channel, sender, service_sid, changed_by"
    };
}
pub(super) use suppression_columns;

/// All columns of `consents`.
macro_rules! consent_columns {
    () => {
        "id, tenant, number, channel, category, state, at_ms, source, proof, ip, user_agent, recorded_at_ms, recorded_by"
    };
}
pub(super) use consent_columns;

/// Conflict clause of a suppression upsert.
macro_rules! suppression_upsert {
    () => {
        "ON CONFLICT (tenant, number, channel, source, error_code) DO UPDATE SET suppressed = excluded.suppressed, \
         since_ms = excluded.since_ms, expires_at_ms = excluded.expires_at_ms, changed_at_ms = excluded.changed_at_ms, message_sid = excluded.message_sid, \
         route = excluded.route, origin_channel = excluded.origin_channel, sender = excluded.sender, \
         service_sid = excluded.service_sid, changed_by = excluded.changed_by"
    };
}
pub(super) use suppression_upsert;

/// Columns of `events` that describe the history of a message.
macro_rules! webhook_columns {
    () => {
        "dedupe_key, class, account_sid, message_sid, status, error_code, route, form, channel, theirs, ours, \
         coalesce(received_at_ms, settled_at_ms, 0) AS received_ms, attempts, outcome, settled_at_ms, redacted_at_ms"
    };
}
pub(super) use webhook_columns;

/// Merge of two events of one webhook. The resulting row does not depend on the order in which arrivals and outcomes are
/// written. `excluded` wins the hold in these cases:
///
/// - The backend accepted the webhook.
/// - It has more attempts than `stored`.
/// - It ends the same hold that `stored` has.
/// - Two claims got the same attempt, because one store could not reach the other; that claim is then checked again.
///
/// A forgotten row (no change since `$forgotten`) starts anew. The macro serves both databases, which have different names
/// for the smaller and the greater of two values.
macro_rules! merge {
    (@wins) => {
        "coalesce(stored.outcome, '') <> 'accepted' AND (excluded.outcome = 'accepted' \
         OR excluded.attempts > stored.attempts OR (excluded.attempts = stored.attempts \
         AND excluded.claim_id = stored.claim_id AND excluded.outcome IS NOT NULL) \
         OR (excluded.attempts = stored.attempts AND excluded.claim_id <> stored.claim_id \
         AND excluded.held_until_ms IS NOT NULL AND stored.held_until_ms IS NOT NULL))"
    };
    (@forgotten $forgotten:literal) => {
        concat!(
            "coalesce(stored.held_until_ms, stored.settled_at_ms, stored.received_at_ms, 0) <= ",
            $forgotten
        )
    };
    (@settled $column:literal, $forgotten:literal) => {
        concat!(
            $column, " = CASE WHEN ", merge!(@forgotten $forgotten), " THEN excluded.", $column,
            " WHEN ", merge!(@wins), " THEN coalesce(excluded.", $column, ", stored.", $column,
            ") ELSE coalesce(stored.", $column, ", excluded.", $column, ") END"
        )
    };
    (@held $column:literal, $forgotten:literal, $otherwise:literal) => {
        concat!(
            $column, " = CASE WHEN ", merge!(@forgotten $forgotten), " OR (", merge!(@wins),
            ") THEN excluded.", $column, " ELSE ", $otherwise, " END"
        )
    };
    ($least:literal, $greatest:literal, $forgotten:literal) => {
        concat!(
            " ON CONFLICT (dedupe_key) DO UPDATE SET route = coalesce(stored.route, excluded.route), \
             form = coalesce(stored.form, excluded.form), envelope = coalesce(stored.envelope, excluded.envelope), channel = coalesce(stored.channel, excluded.channel), \
             theirs = CASE WHEN stored.redacted IS NULL THEN coalesce(stored.theirs, excluded.theirs) ELSE stored.theirs END, ours = coalesce(stored.ours, excluded.ours), \
             received_at_ms = coalesce(", $least, "(stored.received_at_ms, excluded.received_at_ms), \
             stored.received_at_ms, excluded.received_at_ms), attempts = CASE WHEN ",
            merge!(@forgotten $forgotten), " THEN excluded.attempts ELSE ", $greatest,
            "(stored.attempts, excluded.attempts) END, ",
            merge!(@held "claim_id", $forgotten, "stored.claim_id"), ", ",
            merge!(@held "answer", $forgotten, "stored.answer"), ", ",
            merge!(@held "held_until_ms", $forgotten,
                "CASE WHEN excluded.claim_id = stored.claim_id AND excluded.attempts = stored.attempts \
                 AND excluded.held_until_ms > stored.held_until_ms THEN excluded.held_until_ms \
                 ELSE stored.held_until_ms END"), ", ",
            merge!(@settled "outcome", $forgotten), ", ",
            merge!(@settled "settled_at_ms", $forgotten)
        )
    };
}
pub(super) use merge;
