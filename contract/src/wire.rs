//! Deserialization that the JSON bodies share. Enums are snake_case. Unknown fields are ignored, so an older side understands
//! a newer one that only adds fields.

use serde::Deserialize;

/// Deserializer of a struct that has an identity among its fields. The code that serde derives for `flatten` first collects
/// every unknown field in a map, which cost more than the rest of reading a claim.
macro_rules! read_with_identity {
    ($name:ident { $($field:ident: $kind:ty),* ; $($optional:ident: $optional_kind:ty),* }) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                struct Fields {
                    class: Class,
                    account_sid: String,
                    message_sid: String,
                    #[serde(default)]
                    status: Option<String>,
                    #[serde(default)]
                    error_code: Option<String>,
                    $($field: $kind,)*
                    $(#[serde(default)] $optional: $optional_kind,)*
                }
                let Fields {
                    class, account_sid, message_sid, status, error_code, $($field,)* $($optional,)*
                } = Fields::deserialize(deserializer)?;
                let identity = Identity { class, account_sid, message_sid, status, error_code };
                Ok($name { identity, $($field,)* $($optional,)* })
            }
        }
    };
}

pub(crate) use read_with_identity;

/// Deserializes a whole number. In JSON, 200.0 is the whole number 200.
pub(crate) fn whole<'de, T: TryFrom<u64>, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<T, D::Error> {
    let number = f64::deserialize(from)?;
    let is_whole = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    // Within these bounds each whole number has a distinct float.
    let whole = is_whole.then_some(number as u64).and_then(|whole| T::try_from(whole).ok());
    whole.ok_or_else(|| {
        serde::de::Error::custom(format_args!(
            "{number} is not a whole number within the range of this field"
        ))
    })
}

#[cfg(test)]
mod tests {
    use crate::{Claim, Class, Decision, Identity, Verdict, is_url_digest};

    fn status(status: &str, error_code: Option<&str>) -> Identity {
        Identity {
            class: Class::Status,
            account_sid: "AC1".into(),
            message_sid: "SM1".into(),
            status: Some(status.into()),
            error_code: error_code.map(Into::into),
        }
    }

    #[test]
    fn statuses_of_one_message_are_different_webhooks() {
        let keys = [
            status("sent", None).dedupe_key(),
            status("delivered", None).dedupe_key(),
            status("undelivered", Some("30003")).dedupe_key(),
            status("undelivered", Some("30008")).dedupe_key(),
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[i + 1..].contains(key), "{key}");
        }
    }

    #[test]
    fn fallback_url_carries_the_same_inbound_message() {
        let first = Identity { class: Class::Inbound, status: None, ..status("", None) };
        let fallback = Identity { error_code: Some("11200".into()), ..first.clone() };
        assert_eq!(first.dedupe_key(), "inbound:AC1:SM1");
        assert_eq!(first.dedupe_key(), fallback.dedupe_key());
    }

    #[test]
    fn later_step_of_a_message_has_a_key_of_its_own() {
        let first = Identity { class: Class::Inbound, status: None, ..status("", None) };
        assert_eq!(first.step_key("00112233aabbccdd"), "inbound:AC1:SM1:00112233aabbccdd");
        assert!(is_url_digest("00112233aabbccdd"));
        for other in ["", "0011", "00112233AABBCCDD", "00112233aabbccd:", "00112233aabbccddee"] {
            assert!(!is_url_digest(other), "{other}");
        }
    }

    #[test]
    fn wire_format_is_flat_and_ignores_unknown_fields() {
        let claim: Claim = serde_json::from_str(
            r#"{"claim_id":"c1","class":"inbound","account_sid":"AC1","message_sid":"SM1","route":"/in","form":"Body=hi","news":1}"#,
        )
        .unwrap();
        assert_eq!(claim.identity.dedupe_key(), "inbound:AC1:SM1");
        let verdict: Verdict =
            serde_json::from_str(r#"{"claim_id":"c1","decision":"in_flight"}"#).unwrap();
        assert_eq!(verdict.decision, Decision::InFlight);
        assert!(!verdict.suppressed);
    }
}
