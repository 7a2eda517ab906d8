//! Access control: API keys, webhook keys, tenants, and permissions to write to contacts.

pub mod answered_keyword;
pub mod api_keys;
pub mod contact_history;
pub mod contact_records;
pub mod marketing;
pub mod permissions;
pub mod suppression_expiry;
pub mod tenants;
pub mod webhook_keys;
