//! Row of an outbound message: the one list of its columns, and the statement that inserts it.

use std::sync::LazyLock;

use sqlx::FromRow;
use twilio_edge_domain::{dropin::resource::provisional_sid, sending::provider::Provider};

use crate::database::Bind;

/// Value of a column, as a statement binds it.
trait Column {
    fn bind(&self) -> Bind<'_>;
}

impl Column for String {
    fn bind(&self) -> Bind<'_> {
        Bind::Text(self)
    }
}

impl Column for i64 {
    fn bind(&self) -> Bind<'_> {
        Bind::Whole(*self)
    }
}

/// Declares the row of an outbound message once. The struct, the column list of every SELECT, the INSERT and its bound values
/// follow from it, so a new column is one line here and one migration of each database.
macro_rules! row {
    ($(#[$about:meta])* pub struct $name:ident {
        $(#[$id_about:meta])* $id:ident: $id_type:ty,
        $($(#[$column_about:meta])* $column:ident: $type:ty,)+
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, FromRow)]
        pub struct $name {
            $(#[$id_about])* pub $id: $id_type,
            $($(#[$column_about])* pub $column: $type,)+
        }

        impl $name {
            /// Names of all columns.
            const COLUMNS: &[&str] = &[stringify!($id), $(stringify!($column)),+];

            /// Returns the values of [`ADD`], in the order of the columns.
            pub(super) fn values(&self) -> Vec<Bind<'_>> {
                vec![self.$id.bind(), $(self.$column.bind()),+]
            }
        }

        /// Columns of an [`OutboundMessage`], for a SELECT.
        macro_rules! outbound_message_columns {
            () => { concat!(stringify!($id), $(", ", stringify!($column)),+) };
        }
    };
}

row! {
/// Outbound message with its progress. Times are milliseconds since 1970.
pub struct OutboundMessage {
    /// Message id.
    id: String,
    /// Account SID of the tenant.
    account_sid: String,
    /// Channel on which the message is sent.
    channel: String,
    /// Recipient's number; masked after the message has ended.
    recipient: String,
    /// Our number, the Messaging Service, the Verify Service, or the flow.
    sender: String,
    /// Category of the message: its purpose.
    category: String,
    /// `session` or `template`.
    kind: String,
    /// Priority in the queue; a smaller number is sent sooner.
    priority: i64,
    /// Form that is posted to Twilio; empty after the message has ended.
    form: String,
    /// `queued`, `attempting`, `sent`, `refused`, `unknown`, `not_sent`, `canceled`; or `declined`: a rule declined it before
    /// it was accepted.
    state: String,
    /// Due time; during an attempt, the end of its hold.
    due_at_ms: i64,
    /// First due time.
    first_due_at_ms: i64,
    /// Id of the attempt that holds the message; empty without one.
    attempt_id: String,
    /// Number of attempts so far.
    attempts: i64,
    /// Twilio's message SID; empty until it is known.
    message_sid: String,
    /// Code of the reason why it was not sent, or not yet.
    code: String,
    /// The reason in words.
    reason: String,
    /// Time of the request.
    created_at_ms: i64,
    /// Author of the request.
    created_by: String,
    /// Time of the last change.
    changed_at_ms: i64,
    /// Start of the last attempt; 0 without one.
    attempted_at_ms: i64,
    /// Number of times an `unknown` message was looked up in Twilio's list.
    lookups: i64,
    /// Twilio's request id of the last call, for Twilio's support; empty if Twilio returned none.
    request_id: String,
    /// Fallback to send if the message fails, in the format of `domain/sending/fallback.rs`, or the remaining steps of a plan
    /// in that of `domain/sending/plan.rs`; empty without one, or once it is no longer possible.
    fallback: String,
    /// Recipients of the fallback, separated by blanks, as long as there is a fallback.
    fallback_to: String,
    /// Id of the message that this one replaces as its fallback; empty otherwise.
    fallback_of: String,
    /// HTTP status of Twilio's refusal; 0 without one.
    twilio_status: i64,
    /// Number of SMS segments of the text, by which Twilio bills; 0 for a message that is not billed by segments, or whose
    /// text is not known here.
    segments: i64,
    /// Name of the template in the catalogue, or its content SID if the catalogue does not have it; empty without a template.
    template: String,
    /// Country of the recipient; empty if it is unknown.
    country: String,
    /// Delivery status that Twilio reported last ([`twilio_edge_domain::status`]); empty before the first report.
    status: String,
    /// Time of that report; 0 without one.
    status_at_ms: i64,
    /// Time after which the message is not sent; 0 without a limit of its own.
    valid_until_ms: i64,
    /// Time until which the message may be sent again if its delivery fails; 0 if it may not.
    repeat_until_ms: i64,
    /// Number of times the message was sent again after a failed delivery.
    repetitions: i64,
    /// SIDs of the failed deliveries, separated by blanks, oldest first.
    replaced_sids: String,
    /// Data of the caller, as JSON; empty without any.
    metadata: String,
    /// SID of the inbound message to whose keyword this message replies, or that started this execution of a flow; empty otherwise.
    reply_to: String,
    /// Meaning of that keyword: `stop`, `start` or `help`; `flow` for an execution; empty otherwise.
    reply_keyword: String,
    /// Provider that takes the message ([`Provider`]).
    provider: String,
    /// Id of the notification: the message, and its fallbacks.
    notification_id: String,
    /// Number or address of the recipient; empty after its retention period.
    contact: String,
    /// Name of the notification plan in the routes; empty without one.
    plan: String,
    /// Time after which a sent message moves on to the next step of its plan if it is not delivered; 0: it does not.
    answer_within_ms: i64,
}
}

impl OutboundMessage {
    /// Returns whether the message is the reply to an opt-out keyword, an opt-in keyword or a request for help, or an execution of a flow that
    /// an inbound message started.
    pub fn is_reply(&self) -> bool {
        !self.reply_to.is_empty()
    }

    /// Returns whether the message is the reply to a keyword.
    pub fn is_reply_to_keyword(&self) -> bool {
        self.is_reply() && self.provider() == Provider::Messaging
    }

    /// Returns the provider that takes the message.
    pub fn provider(&self) -> Provider {
        self.provider.parse().unwrap_or_default()
    }

    /// Returns the SIDs of the failed deliveries that were repeated, oldest first.
    pub fn replaced_sids(&self) -> impl Iterator<Item = &str> {
        self.replaced_sids.split_whitespace()
    }

    /// Returns the SIDs of webhooks about the message that are not about its current delivery: those of failed deliveries, and
    /// for a message that ended without Twilio the one of the sidecar's own status callback.
    pub fn earlier_sids(&self) -> impl Iterator<Item = String> {
        let is_unsent = matches!(self.state.as_str(), "refused" | "not_sent" | "canceled");
        let own = is_unsent.then(|| provisional_sid(&self.id));
        self.replaced_sids().map(str::to_owned).chain(own)
    }
}

#[expect(
    clippy::single_component_path_imports,
    reason = "the other modules import the macro by its path"
)]
pub(super) use outbound_message_columns;

/// Inserts a row with the values of [`OutboundMessage::values`]. A second fallback of one message is ignored, and a second
/// reply to one keyword.
pub(super) static ADD: LazyLock<String> = LazyLock::new(|| {
    let columns = OutboundMessage::COLUMNS;
    let values: Vec<String> = (1..=columns.len()).map(|number| format!("${number}")).collect();
    format!(
        "INSERT INTO outbound_messages ({}) VALUES ({}) ON CONFLICT DO NOTHING",
        columns.join(", "),
        values.join(", "),
    )
});

#[cfg(test)]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    use super::*;
    use crate::outbound_messages::FETCH;

    #[tokio::test]
    async fn row_has_every_column_after_an_insert() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::migrate!("migrations/sqlite").run(&mut connection).await.unwrap();
        // Every column has a value that no other column has.
        let mut statement = sqlx::query(ADD.as_str());
        let row = OutboundMessage::default();
        for (number, (column, value)) in
            (1..).zip(OutboundMessage::COLUMNS.iter().zip(row.values()))
        {
            statement = match value {
                _ if *column == "state" => statement.bind("queued"),
                _ if *column == "provider" => statement.bind("verify"),
                Bind::Text(_) => statement.bind(format!("{column} {number}")),
                Bind::Whole(_) => statement.bind(number),
            };
        }
        statement.execute(&mut connection).await.unwrap();
        let read: OutboundMessage =
            sqlx::query_as(FETCH).bind("id 1").fetch_one(&mut connection).await.unwrap();
        for (number, (column, value)) in
            (1..).zip(OutboundMessage::COLUMNS.iter().zip(read.values()))
        {
            match value {
                _ if *column == "state" => assert_eq!(read.state, "queued"),
                _ if *column == "provider" => assert_eq!(read.provider(), Provider::Verify),
                Bind::Text(text) => assert_eq!(text, format!("{column} {number}")),
                Bind::Whole(whole) => assert_eq!((*column, whole), (*column, number)),
            }
        }
    }
}
