//! Who may do what: API keys, webhook keys, tenants, and the permissions of contacts.

pub mod api_keys;
pub mod contact_history;
pub mod marketing;
pub mod permissions;
pub mod tenants;
pub mod webhook_keys;
