//! Representation of our verifications in the format of Twilio Verify, and the form that starts one.

use form_urlencoded::Serializer;
use serde_json::{Value, json};

use super::DropInError;
use crate::{
    address::Address,
    sending::verification::{SMS, VerificationChannel, VerificationStatus},
};

/// Code of Twilio Verify for an invalid parameter.
const INVALID: u32 = 60200;

/// Prefixes of our ids and of the SIDs that are derived from them; the same 32 digits follow.
const PREFIXES: (&str, &str) = ("ms_", "VE");

/// Returns the id of the first message of the verification from which a SID may be derived.
pub fn id_of_sid(sid: &str) -> Option<String> {
    Some(format!("{}{}", PREFIXES.0, sid.strip_prefix(PREFIXES.1)?))
}

/// Form of `POST Verifications`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartForm {
    /// Number to verify, in E.164 format.
    pub number: String,
    /// Channel.
    pub channel: VerificationChannel,
    /// Language.
    pub locale: Option<String>,
    /// Network address of the person who asked for the code.
    pub device_ip: Option<String>,
    /// Every other parameter, as a form.
    pub other_parameters: String,
}

impl StartForm {
    /// Reads the form.
    ///
    /// # Errors
    /// The first wrong parameter, and every parameter with a code, because the sidecar stores the form until it is sent.
    pub fn read(pairs: &[(String, String)]) -> Result<StartForm, DropInError> {
        let invalid = |problem: &str| DropInError::new(INVALID, problem);
        let value = |name: &str| {
            let found = pairs.iter().find(|(have, value)| have == name && !value.is_empty());
            found.map(|(_, value)| value.as_str())
        };
        if value("CustomCode").is_some() || value("CustomMessage").is_some() {
            return Err(invalid(
                "CustomCode, CustomMessage: the sidecar stores no code; call Twilio (https://verify.twilio.com) directly",
            ));
        }
        let to = value("To").ok_or_else(|| invalid("Missing parameter `To`"))?;
        let address = Address::given(to, Some(SMS), None);
        let number =
            address.map_err(|problem| invalid(&format!("Invalid parameter `To`: {problem}")))?;
        let channel = value("Channel").ok_or_else(|| invalid("Missing parameter `Channel`"))?;
        let channel: VerificationChannel = channel.parse().map_err(|_| {
            invalid(
                "Channel: the sidecar sends verifications by sms, whatsapp or auto; call Twilio (https://verify.twilio.com) directly",
            )
        })?;
        let own = ["To", "Channel", "Locale"];
        let others = pairs.iter().filter(|(name, _)| !own.contains(&name.as_str()));
        Ok(StartForm {
            number: number.number,
            channel,
            locale: value("Locale").map(str::to_owned),
            device_ip: value("DeviceIp").map(str::to_owned),
            other_parameters: Serializer::new(String::new()).extend_pairs(others).finish(),
        })
    }
}

/// Stored properties of a verification.
#[derive(Debug, Clone)]
pub struct StoredVerification<'a> {
    /// Our id of its first message.
    pub id: &'a str,
    /// Twilio's SID, if it is known.
    pub sid: Option<&'a str>,
    /// Account of the verification.
    pub account_sid: &'a str,
    /// Verify Service.
    pub service_sid: &'a str,
    /// Number; empty if it is no longer stored.
    pub to: &'a str,
    /// Channel of the last attempt.
    pub channel: &'a str,
    /// Status.
    pub status: VerificationStatus,
    /// Time, in milliseconds since 1970, and channel of each attempt.
    pub attempts: Vec<(i64, &'a str)>,
    /// Creation time, in milliseconds since 1970.
    pub created_ms: i64,
    /// Time of the last change, in milliseconds since 1970.
    pub updated_ms: i64,
}

impl StoredVerification<'_> {
    /// Returns Twilio's SID, or one that is derived from our id and stays valid.
    fn sid(&self) -> String {
        let derived =
            || format!("{}{}", PREFIXES.1, self.id.strip_prefix(PREFIXES.0).unwrap_or(self.id));
        self.sid.map_or_else(derived, str::to_owned)
    }
}

/// Returns the verification in Twilio's format.
pub fn verification(known: &StoredVerification<'_>) -> Value {
    let sid = known.sid();
    let attempts = known.attempts.iter().map(|(at_ms, channel)| {
        json!({"time": iso(*at_ms), "channel": channel.to_uppercase(), "attempt_sid": null})
    });
    let url =
        format!("https://verify.twilio.com/v2/Services/{}/Verifications/{sid}", known.service_sid);
    json!({
        "sid": sid, "service_sid": known.service_sid, "account_sid": known.account_sid,
        "to": to(known), "channel": known.channel, "status": known.status,
        "valid": known.status == VerificationStatus::Approved, "lookup": {}, "amount": null,
        "payee": null, "send_code_attempts": attempts.collect::<Vec<_>>(), "sna": null,
        "date_created": iso(known.created_ms), "date_updated": iso(known.updated_ms), "url": url,
    })
}

/// Returns the result of a check in Twilio's format.
pub fn check(known: &StoredVerification<'_>) -> Value {
    json!({
        "sid": known.sid(), "service_sid": known.service_sid, "account_sid": known.account_sid,
        "to": to(known), "channel": known.channel, "status": known.status,
        "valid": known.status == VerificationStatus::Approved, "amount": null, "payee": null,
        "sna_attempts_error_codes": [],
        "date_created": iso(known.created_ms), "date_updated": iso(known.updated_ms),
    })
}

fn to<'a>(known: &StoredVerification<'a>) -> Option<&'a str> {
    Some(known.to).filter(|to| !to.is_empty())
}

/// Formats a time as Twilio's newer APIs do: ISO 8601 in UTC with seconds.
fn iso(ms: i64) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(ms).ok()?;
    Some(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<StartForm, u32> {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        StartForm::read(&pairs).map_err(|error| error.code)
    }

    #[test]
    fn form_has_a_number_and_a_channel_and_no_code() {
        let to = ("To", "+14155550123");
        let form = read(&[to, ("Channel", "sms"), ("Locale", "de"), ("Tags", "{}")]).unwrap();
        assert_eq!(
            (form.number.as_str(), form.other_parameters.as_str()),
            ("+14155550123", "Tags=%7B%7D")
        );
        for pairs in [
            &[("Channel", "sms")][..],
            &[to],
            &[to, ("Channel", "call")],
            &[("To", "1"), ("Channel", "sms")],
            &[to, ("Channel", "sms"), ("CustomCode", "1234")],
        ] {
            assert_eq!(read(pairs), Err(INVALID), "{pairs:?}");
        }
    }

    #[test]
    fn sid_is_that_of_twilio_or_is_derived_from_the_id() {
        let known = StoredVerification {
            id: "ms_00112233445566778899aabbccddeeff",
            sid: None,
            account_sid: "AC",
            service_sid: "VA",
            to: "",
            channel: "sms",
            status: VerificationStatus::Pending,
            attempts: vec![(1000, "sms")],
            created_ms: 0,
            updated_ms: 0,
        };
        let derived = "VE00112233445566778899aabbccddeeff";
        assert_eq!(verification(&known)["sid"], derived);
        assert_eq!(id_of_sid(derived).as_deref(), Some(known.id));
        assert_eq!(verification(&known)["send_code_attempts"][0]["time"], "1970-01-01T00:00:01Z");
        assert_eq!(check(&StoredVerification { sid: Some("VE1"), ..known })["sid"], "VE1");
    }
}
