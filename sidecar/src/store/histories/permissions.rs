//! Why a number must not be written to, and what its owner agreed to, as a story tells it: read beside a running sidecar,
//! changed elsewhere.

use sqlx::{FromRow, postgres::PgRow, sqlite::SqliteRow};

use super::Histories;
use crate::{
    domain::{consent::Consent, phone, suppression::Suppression},
    store::{
        StoreError,
        consents::ConsentRow,
        sql::Statements,
        suppressions::{SuppressionRow, people},
    },
};

impl Histories {
    /// Why a number must not be written to, or must not have been, on every channel.
    pub async fn suppressions(
        &self,
        account_sid: &str,
        number: &str,
    ) -> Result<Vec<Suppression>, StoreError> {
        let rows = self.of_person(|all| all.suppressions.of_people, account_sid, number).await?;
        Ok(rows.into_iter().map(|row: SuppressionRow| row.into()).collect())
    }

    /// What a person agreed to and took back, on every channel.
    pub async fn consents(
        &self,
        account_sid: &str,
        number: &str,
    ) -> Result<Vec<Consent>, StoreError> {
        let rows = self.of_person(|all| all.consents.of_people, account_sid, number).await?;
        Ok(rows.into_iter().map(|row: ConsentRow| row.into()).collect())
    }

    /// What a statement finds of a person, however their number is spelled.
    async fn of_person<R>(
        &self,
        statement: fn(&Statements) -> &'static str,
        account_sid: &str,
        number: &str,
    ) -> Result<Vec<R>, StoreError>
    where
        R: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let numbers = phone::spellings(number);
        let asked = people(account_sid, &numbers);
        self.bounded(self.reader.found(statement, &asked)).await
    }
}
