//! Suppressions and consents of a contact, for the history of a number. The module only reads, beside a running sidecar.

use super::MessageHistory;
use crate::{
    consents::ConsentRow,
    suppressions::{SuppressionRow, contact_numbers},
};
use crate::{database::within, error::StoreError};
use twilio_edge_domain::{consent::Consent, suppression::Suppression};

impl MessageHistory {
    /// Returns every suppression of a contact on every channel, ended ones included. A suppression of an id that may belong
    /// to another contact is included ([`twilio_edge_domain::contact::ContactKeys`]).
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn suppressions(
        &self,
        account_sid: &str,
        number: &str,
    ) -> Result<Vec<Suppression>, StoreError> {
        within(self.timeout, async {
            let keys = self.keys(account_sid, number).await?;
            let numbers = keys.all();
            let query = contact_numbers(account_sid, &numbers);
            let rows = self.reader.found(|all| all.suppressions.of_contacts, &query).await?;
            Ok(rows.into_iter().map(|row: SuppressionRow| row.into()).collect())
        })
        .await
    }

    /// Returns the consents and withdrawals of a contact, on every channel.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn consents(
        &self,
        account_sid: &str,
        number: &str,
    ) -> Result<Vec<Consent>, StoreError> {
        within(self.timeout, async {
            let keys = self.keys(account_sid, number).await?;
            let numbers = keys.certain_keys();
            let query = contact_numbers(account_sid, &numbers);
            let rows = self.reader.found(|all| all.consents.of_contacts, &query).await?;
            Ok(rows.into_iter().map(|row: ConsentRow| row.into()).collect())
        })
        .await
    }
}
