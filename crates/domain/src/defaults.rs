//! Built-in settings that decisions depend on, for tests.

use serde::de::DeserializeOwned;

/// Reads one table of the built-in settings, for example `media.sms`.
pub fn section<T: DeserializeOwned>(path: &str) -> T {
    let text = include_str!("../../platform/defaults.toml");
    let mut value: toml::Value = toml::from_str(text).unwrap();
    for key in path.split('.') {
        value = value.get(key).unwrap().clone();
    }
    value.try_into().unwrap()
}
