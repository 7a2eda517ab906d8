//! API keys, tenants, consents and suppressions, and who may read what.

pub(crate) mod api_keys;
pub(crate) mod contacts;
pub(crate) mod file_permissions;
pub(crate) mod isolation;
pub(crate) mod people;
pub(crate) mod permissions;
pub(crate) mod security_model;
pub(crate) mod suppression_expiry;
pub(crate) mod tenants;
pub(crate) mod webhook_keys;
