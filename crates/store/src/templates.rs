//! Message templates of accounts in the database. A change is written with its audit entry and increments the revision of
//! the account's catalogue; by the revision other sidecars detect that their copy is outdated. One sidecar at a time reads
//! an account's catalogue from Twilio: the one that advances `due_at_ms`.

use std::{collections::BTreeSet, slice};

use sqlx::FromRow;

use crate::audit_log::{self, AuditEntry};
use crate::{
    database::{Bind, Database, Durability, Transaction},
    error::StoreError,
    operational_events,
};
use twilio_edge_domain::{
    operational_event::{EventReporting, OperationalEvent, OperationalEventType},
    policy::Category,
    template::{Approval, Source, Template, catalogue::TemplateChange, locale::Locale},
};
use twilio_edge_platform::config;

const CATALOGUE_STATES: &str = "
    SELECT account_sid, revision, synced_at_ms, problem FROM template_catalogues ORDER BY account_sid";

const OF_ACCOUNT: &str = "
    SELECT source, content_sid, name, locale, approval, reason, category, variables, text, digest, changed_at_ms,
        has_others
    FROM templates WHERE account_sid = $1";

const BEGIN: &str = "
    INSERT INTO template_catalogues (account_sid, revision, due_at_ms, synced_at_ms, problem) VALUES ($1, 0, 0, 0, '')
    ON CONFLICT (account_sid) DO NOTHING";

const CLAIM_SYNC: &str = "
    UPDATE template_catalogues SET due_at_ms = $3 WHERE account_sid = $1 AND due_at_ms <= $2";

const RECORD_SYNC: &str = "
    UPDATE template_catalogues SET due_at_ms = $2, synced_at_ms = $3, problem = '' WHERE account_sid = $1";

const RECORD_FAILURE: &str = "
    UPDATE template_catalogues SET due_at_ms = $2, problem = $3 WHERE account_sid = $1";

/// First statement of a transaction that changes a catalogue; it locks the catalogue.
const BEGIN_CHANGE: &str = "
    UPDATE template_catalogues SET revision = revision WHERE account_sid = $1";

const CHANGED: &str = "
    UPDATE template_catalogues SET revision = revision + $2 WHERE account_sid = $1 RETURNING revision";

/// Maximum number of changes in one transaction.
const TOGETHER: usize = 200;

const KEEP: &str = "
    INSERT INTO templates (account_sid, source, reference, content_sid, name, locale, approval, reason, category, variables,
        text, digest, changed_at_ms, has_others)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
    ON CONFLICT (account_sid, source, reference) DO UPDATE SET content_sid = excluded.content_sid, name = excluded.name,
        locale = excluded.locale, approval = excluded.approval, reason = excluded.reason, category = excluded.category,
        variables = excluded.variables, text = excluded.text, digest = excluded.digest,
        changed_at_ms = excluded.changed_at_ms, has_others = excluded.has_others";

const REMOVE: &str = "
    DELETE FROM templates WHERE account_sid = $1 AND source = $2 AND reference = $3";

/// State of an account's catalogue.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct CatalogueState {
    /// Account SID of the tenant.
    pub account_sid: String,
    /// Number of changes so far.
    pub revision: i64,
    /// Time of the last successful read from Twilio, in milliseconds since 1970; 0: never.
    pub synced_at_ms: i64,
    /// Reason of a failed read since then; empty without one.
    pub problem: String,
}

#[derive(Debug, FromRow)]
struct Row {
    source: String,
    content_sid: String,
    name: String,
    locale: String,
    approval: String,
    reason: String,
    category: String,
    variables: String,
    text: String,
    digest: String,
    changed_at_ms: i64,
    has_others: i64,
}

/// The templates of one database.
#[derive(Debug, Clone)]
pub struct Templates {
    database: Database,
}

impl Templates {
    pub(super) fn of(database: Database) -> Templates {
        Templates { database }
    }

    /// Connects for a command, beside a sidecar that may have the database open. Changes are reported to sinks by `reporting`.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable.
    pub async fn open(
        settings: &config::Database,
        reporting: EventReporting,
    ) -> Result<Templates, StoreError> {
        Ok(Templates::of(Database::open_beside(settings).await?.reporting_to(reporting)))
    }

    /// Closes the connections. Only for an instance from [`Templates::open`].
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Returns the state of each account's catalogue.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn catalogue_states(&self) -> Result<Vec<CatalogueState>, StoreError> {
        self.database.read_bound(CATALOGUE_STATES, &[]).await
    }

    /// Returns all templates of an account, in no particular order.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn list(&self, account_sid: &str) -> Result<Vec<Template>, StoreError> {
        let binds = [Bind::Text(account_sid)];
        let rows: Vec<Row> = self.database.read_bound(OF_ACCOUNT, &binds).await?;
        Ok(rows.into_iter().filter_map(Row::template).collect())
    }

    /// Takes the turn to read an account's catalogue from Twilio until `until_ms`. Returns `false` if the read is not due
    /// or another sidecar has the turn.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn claim_sync(
        &self,
        account_sid: &str,
        now_ms: i64,
        until_ms: i64,
    ) -> Result<bool, StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Process).await?;
                tx.execute_bound(BEGIN, &[Bind::Text(account_sid)]).await?;
                let binds = [Bind::Text(account_sid), Bind::Whole(now_ms), Bind::Whole(until_ms)];
                let taken = tx.execute_bound(CLAIM_SYNC, &binds).await?;
                tx.commit().await?;
                Ok(taken == 1)
            })
            .await
    }

    /// Records that the read from Twilio failed, with the reason and the time of the next read.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn record_sync_failure(
        &self,
        account_sid: &str,
        problem: &str,
        due_at_ms: i64,
    ) -> Result<(), StoreError> {
        let binds = [Bind::Text(account_sid), Bind::Whole(due_at_ms), Bind::Text(problem)];
        self.database
            .within_timeout(async {
                let mut tx = self.database.begin(Durability::Process).await?;
                tx.execute_bound(RECORD_FAILURE, &binds).await?;
                tx.commit().await
            })
            .await
    }

    /// Stores the catalogue that Twilio returned. `changes` compares it with the stored templates and returns the
    /// differences, each with its audit entry. The next read is due at `due_at_ms`.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or a transaction fails; earlier transactions remain.
    pub async fn apply_sync(
        &self,
        account_sid: &str,
        changes: impl Fn(&[Template]) -> Vec<(TemplateChange, AuditEntry)>,
        now_ms: i64,
        due_at_ms: i64,
    ) -> Result<Vec<TemplateChange>, StoreError> {
        let mut done = Vec::new();
        loop {
            let (some, is_all) = self
                .database
                .within_timeout(self.sync_some(account_sid, &changes, now_ms, due_at_ms))
                .await?;
            done.extend(some);
            if is_all {
                return Ok(done);
            }
        }
    }

    /// Stores a limited number of changes, so that the first read of a large catalogue does not block other writers.
    /// Returns whether these were all.
    async fn sync_some(
        &self,
        account_sid: &str,
        changes: impl Fn(&[Template]) -> Vec<(TemplateChange, AuditEntry)>,
        now_ms: i64,
        due_at_ms: i64,
    ) -> Result<(Vec<TemplateChange>, bool), StoreError> {
        let mut tx = self.begin_change(account_sid).await?;
        let rows: Vec<Row> = tx.fetch_bound(OF_ACCOUNT, &[Bind::Text(account_sid)]).await?;
        let was: Vec<Template> = rows.into_iter().filter_map(Row::template).collect();
        let mut changes = changes(&was);
        let is_all = changes.len() <= TOGETHER;
        changes.truncate(TOGETHER);
        let (changes, entries): (Vec<TemplateChange>, Vec<AuditEntry>) =
            changes.into_iter().unzip();
        let counted = i64::from(!changes.is_empty());
        let revision = changed(&mut tx, account_sid, counted).await?;
        for change in &changes {
            match &change.now {
                Some(now) => keep(&mut tx, account_sid, now).await?,
                None => {
                    remove(&mut tx, account_sid, Source::Twilio, &change.reference).await?;
                }
            }
        }
        audit_log::add(&mut tx, &entries).await?;
        if is_all {
            let binds = [Bind::Text(account_sid), Bind::Whole(due_at_ms), Bind::Whole(now_ms)];
            tx.execute_bound(RECORD_SYNC, &binds).await?;
        }
        self.report(&mut tx, account_sid, &changes, revision, now_ms).await?;
        tx.commit().await?;
        Ok((changes, is_all))
    }

    /// Stores a template of an administrator, with its audit entry.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn put(
        &self,
        account_sid: &str,
        template: &Template,
        entry: &AuditEntry,
    ) -> Result<(), StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.begin_change(account_sid).await?;
                keep(&mut tx, account_sid, template).await?;
                self.finish(tx, account_sid, &TemplateChange::set(template), entry).await
            })
            .await
    }

    /// Deletes a template of an administrator, with an audit entry. Returns `false` if there is none.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the transaction fails.
    pub async fn remove(
        &self,
        account_sid: &str,
        reference: &str,
        entry: &AuditEntry,
    ) -> Result<bool, StoreError> {
        self.database
            .within_timeout(async {
                let mut tx = self.begin_change(account_sid).await?;
                if !remove(&mut tx, account_sid, Source::Administrator, reference).await? {
                    return Ok(false);
                }
                let change = TemplateChange::removed(reference);
                self.finish(tx, account_sid, &change, entry).await.map(|()| true)
            })
            .await
    }

    async fn begin_change(&self, account_sid: &str) -> Result<Transaction, StoreError> {
        let mut tx = self.database.begin(Durability::Power).await?;
        tx.execute_bound(BEGIN, &[Bind::Text(account_sid)]).await?;
        tx.execute_bound(BEGIN_CHANGE, &[Bind::Text(account_sid)]).await?;
        Ok(tx)
    }

    async fn finish(
        &self,
        mut tx: Transaction,
        account_sid: &str,
        change: &TemplateChange,
        entry: &AuditEntry,
    ) -> Result<(), StoreError> {
        let revision = changed(&mut tx, account_sid, 1).await?;
        audit_log::add(&mut tx, slice::from_ref(entry)).await?;
        self.report(&mut tx, account_sid, slice::from_ref(change), revision, entry.at_ms).await?;
        tx.commit().await
    }

    /// Reports changes to sinks.
    async fn report(
        &self,
        tx: &mut Transaction,
        account_sid: &str,
        changes: &[TemplateChange],
        revision: i64,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let reporting = self.database.reporting();
        if !reporting.has(OperationalEventType::TemplateChanged) {
            return Ok(());
        }
        let event =
            |change| OperationalEvent::template_changed(account_sid, change, revision, now_ms);
        let events: Vec<OperationalEvent> = changes.iter().map(event).collect();
        operational_events::record(tx, reporting, &events).await
    }
}

/// Increments the revision of a catalogue by `count`, and returns it.
async fn changed(tx: &mut Transaction, account_sid: &str, count: i64) -> Result<i64, StoreError> {
    let binds = [Bind::Text(account_sid), Bind::Whole(count)];
    let revision: Vec<(i64,)> = tx.fetch_bound(CHANGED, &binds).await?;
    Ok(revision.first().map_or(0, |(revision,)| *revision))
}

async fn keep(
    tx: &mut Transaction,
    account_sid: &str,
    template: &Template,
) -> Result<(), StoreError> {
    let variables = serde_json::to_string(&template.variables).unwrap_or_default();
    let binds = [
        Bind::Text(account_sid),
        Bind::Text(template.source.as_str()),
        Bind::Text(&template.reference()),
        Bind::Text(&template.content_sid),
        Bind::Text(&template.name),
        Bind::Text(template.locale.as_str()),
        Bind::Text(template.approval.as_str()),
        Bind::Text(&template.reason),
        Bind::Text(template.category.map_or("", Category::as_str)),
        Bind::Text(&variables),
        Bind::Text(&template.text),
        Bind::Text(&template.digest),
        Bind::Whole(template.changed_at_ms),
        Bind::Whole(template.has_others.into()),
    ];
    tx.execute_bound(KEEP, &binds).await.map(|_| ())
}

async fn remove(
    tx: &mut Transaction,
    account_sid: &str,
    source: Source,
    reference: &str,
) -> Result<bool, StoreError> {
    let binds = [Bind::Text(account_sid), Bind::Text(source.as_str()), Bind::Text(reference)];
    tx.execute_bound(REMOVE, &binds).await.map(|rows| rows > 0)
}

impl Row {
    fn template(self) -> Option<Template> {
        let source = match self.source.as_str() {
            "administrator" => Source::Administrator,
            _ => Source::Twilio,
        };
        Some(Template {
            source,
            content_sid: self.content_sid,
            name: self.name,
            locale: Locale::parse(&self.locale)?,
            approval: Approval::of(&self.approval),
            reason: self.reason,
            category: Category::try_from(self.category).ok(),
            variables: serde_json::from_str::<BTreeSet<String>>(&self.variables).ok()?,
            text: self.text,
            has_others: self.has_others != 0,
            digest: self.digest,
            changed_at_ms: self.changed_at_ms,
        })
    }
}
