//! Lists that administrators import and export as CSV: suppressions and consents. [`ContactRecords`] has the differences between
//! the two; the API and the command line handle both alike.

use std::future::Future;

use crate::access::{api_keys::Caller, permissions::Permissions};
use twilio_edge_domain::{
    consent::Consent,
    csv_import::{self, CsvList, ImportContext},
    cursor::Cursor,
    suppression::NewSuppression,
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_store::{ConsentsPage, StoreError, SuppressionsPage};

/// Kind of a list.
pub trait ContactRecords: 'static {
    /// Value of one line of an import.
    type Line: Send + 'static;

    /// Name of the entries, in the plural.
    const NAME: &'static str;

    /// Parses a list to import. Its lines are read later, one by one.
    ///
    /// # Errors
    /// Returns a problem of the header line.
    fn parse<C: AsRef<[u8]>>(
        csv: C,
        context: ImportContext,
    ) -> Result<CsvList<C, Self::Line>, String>;

    /// Stores the lines of an import. Returns the number of lines that added something new.
    ///
    /// # Errors
    /// Returns an error if the database fails; some lines may be stored then.
    fn import(
        permissions: &Permissions,
        by: &Caller,
        account_sid: &str,
        lines: impl Iterator<Item = Self::Line> + Send,
        now_ms: i64,
    ) -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// Returns the header line of an export.
    fn header() -> Vec<u8>;

    /// Reads the next page of an export, of at most `most` entries.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    fn export(
        permissions: &Permissions,
        account_sid: &str,
        after: Option<&Cursor>,
        most: i64,
    ) -> impl Future<Output = Result<CsvPage, StoreError>> + Send;
}

/// Page of an export.
#[derive(Debug)]
pub struct CsvPage {
    /// Lines as CSV, without the header line.
    pub text: Vec<u8>,
    /// Position after the last entry; `None` if the page is empty, which ends the export.
    pub last: Option<Cursor>,
}

/// Suppressions. An import suppresses contacts; an export has the suppressions in effect, ordered by number.
#[derive(Debug)]
pub enum SuppressionRecords {}

/// Consents with their evidence. An export has the whole history, ordered by number.
#[derive(Debug)]
pub enum ConsentRecords {}

impl ContactRecords for SuppressionRecords {
    type Line = NewSuppression;

    const NAME: &'static str = "suppressions";

    fn parse<C: AsRef<[u8]>>(
        csv: C,
        context: ImportContext,
    ) -> Result<CsvList<C, NewSuppression>, String> {
        CsvList::of_suppressions(csv, context)
    }

    async fn import(
        permissions: &Permissions,
        by: &Caller,
        account_sid: &str,
        lines: impl Iterator<Item = NewSuppression> + Send,
        now_ms: i64,
    ) -> Result<usize, StoreError> {
        permissions.suppress_list(by, account_sid, lines, now_ms).await
    }

    fn header() -> Vec<u8> {
        csv_import::to_csv([csv_import::SUPPRESSION_COLUMNS.map(str::to_owned)])
    }

    async fn export(
        permissions: &Permissions,
        account_sid: &str,
        after: Option<&Cursor>,
        most: i64,
    ) -> Result<CsvPage, StoreError> {
        let page = SuppressionsPage {
            account_sid,
            source: None,
            channels: None,
            ended: false,
            now_ms: now_ms(),
            after,
            most,
        };
        let found = permissions.suppressions.list(&page).await?;
        Ok(CsvPage {
            text: csv_import::to_csv(found.iter().map(csv_import::suppression_row)),
            last: found.last().map(Cursor::of_suppression),
        })
    }
}

impl ContactRecords for ConsentRecords {
    type Line = Consent;

    const NAME: &'static str = "consents";

    fn parse<C: AsRef<[u8]>>(
        csv: C,
        context: ImportContext,
    ) -> Result<CsvList<C, Consent>, String> {
        CsvList::of_consents(csv, context)
    }

    async fn import(
        permissions: &Permissions,
        by: &Caller,
        account_sid: &str,
        lines: impl Iterator<Item = Consent> + Send,
        now_ms: i64,
    ) -> Result<usize, StoreError> {
        permissions.record_list(by, account_sid, lines, now_ms).await
    }

    fn header() -> Vec<u8> {
        csv_import::to_csv([csv_import::CONSENT_COLUMNS.map(str::to_owned)])
    }

    async fn export(
        permissions: &Permissions,
        account_sid: &str,
        after: Option<&Cursor>,
        most: i64,
    ) -> Result<CsvPage, StoreError> {
        let page =
            ConsentsPage { account_sid, channel: None, category: None, history: true, after, most };
        let found = permissions.consents.list(&page).await?;
        Ok(CsvPage {
            text: csv_import::to_csv(found.iter().map(csv_import::consent_row)),
            last: found.last().map(Cursor::of_consent),
        })
    }
}
