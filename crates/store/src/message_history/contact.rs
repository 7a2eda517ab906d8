//! Contacts behind the numbers of a search. A WhatsApp user has a phone number, a user id, or both, and a search by one of
//! them finds the webhooks of the other.

use std::collections::BTreeSet;

use super::{MessageHistory, Search};
use crate::StoreError;
use twilio_edge_domain::{contact::ContactKeys, message::NumberQuery, phone};

impl MessageHistory {
    /// Returns every number and id under which a contact may be known ([`crate::Contacts::keys`]).
    pub(super) async fn keys(
        &self,
        account_sid: &str,
        number: &str,
    ) -> Result<ContactKeys, StoreError> {
        let mut ties = Vec::new();
        for own in phone::spellings(number) {
            ties.extend(self.reader.ties(account_sid, &own).await?);
        }
        let others: BTreeSet<String> = ties.iter().map(|tie| tie.other.clone()).collect();
        for other in &others {
            ties.extend(self.reader.ties(account_sid, other).await?);
        }
        Ok(ContactKeys::of(number, &ties))
    }

    /// Returns the search with the other ids of each contact that it names. Ids that may belong to another contact are left
    /// out.
    pub(super) async fn with_contacts(&self, search: &Search) -> Result<Search, StoreError> {
        let mut search = search.clone();
        let numbers = [&mut search.from, &mut search.to, &mut search.number];
        for number in numbers.into_iter().flatten() {
            *number = self.with_contact(&search.account_sid, number).await?;
        }
        Ok(search)
    }

    /// Returns a number with the other ids of its contact. Ids that may belong to another contact are left out.
    ///
    /// # Errors
    /// `StoreError` when the database is unavailable or the read fails.
    pub async fn with_contact(
        &self,
        account_sid: &str,
        number: &NumberQuery,
    ) -> Result<NumberQuery, StoreError> {
        let also = self.keys(account_sid, &number.number).await?.certain;
        Ok(NumberQuery { other_ids: also, ..number.clone() })
    }
}
