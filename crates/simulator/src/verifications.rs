//! Verifications of Twilio Verify: their codes, attempts and checks. Callers pass the time and the random numbers; nothing here waits.
//!
//! Source: Twilio's OpenAPI (twilio_verify_v2.json) and twilio.com/docs/api/errors.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::refusal::Refusal;
use super::request::is_address;

/// Time for which a code is accepted, in milliseconds.
const VALID_MS: i64 = 600_000;
/// Largest number of codes that one verification sends, and of codes that it checks.
const MOST: usize = 5;

/// Parameters of a verification.
const KNOWN: [&str; 19] = [
    "To",
    "Channel",
    "CustomFriendlyName",
    "CustomMessage",
    "SendDigits",
    "Locale",
    "CustomCode",
    "Amount",
    "Payee",
    "RateLimits",
    "ChannelConfiguration",
    "AppHash",
    "TemplateSid",
    "TemplateCustomSubstitutions",
    "DeviceIp",
    "EnableSnaClientToken",
    "RiskCheck",
    "Tags",
    "FriendlyName",
];

/// Fault that a number's suffix requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The start is refused with this status and code.
    Refused(u16, u32),
    /// The start on WhatsApp is refused with this code.
    NoWhatsApp(u32),
    /// The message on WhatsApp is not delivered, with this code.
    Undelivered(u32),
}

/// Suffix, fault, and description.
const TABLE: &[(&str, Fault, &str)] = &[
    ("9101", Fault::Refused(400, 60200), "400, code 60200 (invalid parameter)"),
    ("9102", Fault::Refused(429, 60203), "429, code 60203 (too many codes were sent)"),
    ("9103", Fault::Refused(429, 60212), "429, code 60212 (too many concurrent requests)"),
    ("9104", Fault::Refused(403, 60410), "403, code 60410 (blocked by Fraud Guard)"),
    ("9110", Fault::NoWhatsApp(60223), "on WhatsApp: 400, code 60223 (the channel is disabled)"),
    (
        "9111",
        Fault::NoWhatsApp(68008),
        "on WhatsApp: 400, code 68008 (the channel is not configured)",
    ),
    (
        "9112",
        Fault::Undelivered(63024),
        "on WhatsApp: 201, then `undelivered` with 63024 (not a user of WhatsApp)",
    ),
];

impl Fault {
    fn of(number: &str) -> Option<Fault> {
        TABLE.iter().find(|(suffix, ..)| number.ends_with(suffix)).map(|(_, fault, _)| *fault)
    }
}

/// Renders the table of faults in Markdown.
pub fn reference() -> String {
    let mut text = "| suffix of `To` | effect on a verification |\n| --- | --- |\n".to_owned();
    for (suffix, _, seen) in TABLE {
        let _ = writeln!(text, "| `{suffix}` | {seen} |");
    }
    text
}

/// Code that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attempt {
    sid: String,
    channel: String,
    at_ms: i64,
    fault: Option<u32>,
}

/// A verification.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verification {
    sid: String,
    account: String,
    service: String,
    to: String,
    code: String,
    locale: Option<String>,
    status: &'static str,
    checks: usize,
    created_ms: i64,
    updated_ms: i64,
    attempts: Vec<Attempt>,
}

/// Request to start a verification.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) account: &'a str,
    pub(super) service: &'a str,
    pub(super) pairs: &'a [(String, String)],
    /// SIDs of a new verification and of a new attempt.
    pub(super) sids: (String, String),
    /// Random number, for a new code.
    pub(super) dice: u64,
}

/// All verifications.
#[derive(Debug)]
pub(super) struct Verifications {
    all: Vec<Verification>,
    capacity: usize,
    step_ms: i64,
    /// Speed factor for everything that takes time.
    speed: i64,
}

fn get<'p>(pairs: &'p [(String, String)], name: &str) -> Option<&'p str> {
    let found = pairs.iter().find(|(have, value)| have == name && !value.is_empty());
    found.map(|(_, value)| value.as_str())
}

fn only(pairs: &[(String, String)], known: &[&str]) -> Result<(), Refusal> {
    match pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        Some((name, _)) => Err(Refusal::bad(20001, format!("{name} is no parameter"))),
        None => Ok(()),
    }
}

impl Verifications {
    pub(super) fn new(capacity: usize, step_ms: u32, speed: u32) -> Verifications {
        let speed = i64::from(speed.max(1));
        let step_ms = i64::from(step_ms) / speed;
        Verifications { all: Vec::new(), capacity: capacity.max(1), step_ms, speed }
    }

    fn is_pending(&self, verification: &Verification, now_ms: i64) -> bool {
        let age_ms = now_ms.saturating_sub(verification.created_ms);
        verification.status == "pending" && age_ms < VALID_MS / self.speed
    }

    /// Starts a verification, or sends the code of a pending one again.
    ///
    /// # Errors
    /// The first mistake, with Twilio's code.
    pub(super) fn start(&mut self, start: Start<'_>, now_ms: i64) -> Result<Value, Refusal> {
        let Start { account, service, pairs, sids, dice } = start;
        only(pairs, &KNOWN)?;
        let invalid = |name: &str| Refusal::bad(60200, format!("Invalid parameter `{name}`"));
        let to = get(pairs, "To").filter(|to| is_address(to) && to.starts_with('+'));
        let to = to.ok_or_else(|| invalid("To"))?;
        let channel = match get(pairs, "Channel") {
            Some("auto") => "whatsapp",
            Some(channel @ ("sms" | "whatsapp")) => channel,
            _ => return Err(invalid("Channel")),
        };
        let mut undelivered = None;
        match Fault::of(to) {
            Some(Fault::Refused(status, code)) => {
                return Err(Refusal::new(
                    status,
                    code,
                    "The suffix of the number selects this error",
                ));
            }
            Some(Fault::NoWhatsApp(code)) if channel == "whatsapp" => {
                return Err(Refusal::bad(code, "The suffix of the number selects this error"));
            }
            Some(Fault::Undelivered(code)) if channel == "whatsapp" => undelivered = Some(code),
            _ => {}
        }
        let attempt =
            Attempt { sid: sids.1, channel: channel.to_owned(), at_ms: now_ms, fault: undelivered };
        let is_same = |one: &Verification| {
            (one.account.as_str(), one.service.as_str(), one.to.as_str()) == (account, service, to)
        };
        let pending = self.all.iter().position(|one| is_same(one) && self.is_pending(one, now_ms));
        if let Some(found) = pending.and_then(|position| self.all.get_mut(position)) {
            if found.attempts.len() >= MOST {
                return Err(Refusal::new(429, 60203, "Max send attempts reached"));
            }
            found.attempts.push(attempt);
            found.updated_ms = now_ms;
            return Ok(found.to_json());
        }
        if self.all.len() >= self.capacity {
            self.all.remove(0);
        }
        let verification = Verification {
            sid: sids.0,
            account: account.to_owned(),
            service: service.to_owned(),
            to: to.to_owned(),
            code: format!("{:06}", dice % 1_000_000),
            locale: get(pairs, "Locale").map(str::to_owned),
            status: "pending",
            checks: 0,
            created_ms: now_ms,
            updated_ms: now_ms,
            attempts: vec![attempt],
        };
        let shown = verification.to_json();
        self.all.push(verification);
        Ok(shown)
    }

    /// Checks a code.
    ///
    /// # Errors
    /// The first mistake, with Twilio's code; 20404 if no such verification is pending.
    pub(super) fn check(
        &mut self,
        account: &str,
        service: &str,
        pairs: &[(String, String)],
        now_ms: i64,
    ) -> Result<Value, Refusal> {
        only(pairs, &["Code", "To", "VerificationSid", "Amount", "Payee", "SnaClientToken"])?;
        let code = get(pairs, "Code").ok_or_else(|| Refusal::bad(60200, "Missing `Code`"))?;
        let (to, sid) = (get(pairs, "To"), get(pairs, "VerificationSid"));
        if to.is_none() && sid.is_none() {
            return Err(Refusal::bad(60200, "`To` or `VerificationSid` is required"));
        }
        let is_it = |one: &Verification| {
            one.account == account
                && one.service == service
                && sid.is_none_or(|sid| sid == one.sid)
                && to.is_none_or(|to| to == one.to)
        };
        let path = format!("/v2/Services/{service}/VerificationCheck");
        let pending = self.all.iter().position(|one| is_it(one) && self.is_pending(one, now_ms));
        let found = pending.and_then(|position| self.all.get_mut(position));
        let found = found.ok_or_else(|| Refusal::not_found(&path))?;
        if found.checks >= MOST {
            return Err(Refusal::new(429, 60202, "Max check attempts reached"));
        }
        found.checks = found.checks.saturating_add(1);
        found.updated_ms = now_ms;
        if found.code == code {
            found.status = "approved";
        }
        let mut shown = found.to_json();
        if let Some(fields) = shown.as_object_mut() {
            fields.retain(|name, _| {
                !["lookup", "send_code_attempts", "sna", "url"].contains(&name.as_str())
            });
            fields.insert("sna_attempts_error_codes".to_owned(), json!([]));
        }
        Ok(shown)
    }

    /// Returns a pending verification, with a new status if one is given.
    ///
    /// # Errors
    /// 20404 if no such verification is pending, or the status cannot be set.
    pub(super) fn update(
        &mut self,
        (account, service, sid): (&str, &str, &str),
        pairs: Option<&[(String, String)]>,
        now_ms: i64,
    ) -> Result<Value, Refusal> {
        let is_it = |one: &Verification| {
            (one.account.as_str(), one.service.as_str(), one.sid.as_str())
                == (account, service, sid)
        };
        let path = format!("/v2/Services/{service}/Verifications/{sid}");
        let pending = self.all.iter().position(|one| is_it(one) && self.is_pending(one, now_ms));
        let found = pending.and_then(|position| self.all.get_mut(position));
        let found = found.ok_or_else(|| Refusal::not_found(&path))?;
        if let Some(pairs) = pairs {
            only(pairs, &["Status"])?;
            found.status = match get(pairs, "Status") {
                Some("canceled") => "canceled",
                Some("approved") => "approved",
                _ => return Err(Refusal::bad(60200, "Invalid parameter `Status`")),
            };
            found.updated_ms = now_ms;
        }
        Ok(found.to_json())
    }

    /// Returns the attempts of an account that match a query, the latest first.
    pub(super) fn attempts(
        &self,
        account: &str,
        pairs: &[(String, String)],
        now_ms: i64,
    ) -> Vec<Value> {
        let is = |name: &str, value: &str| get(pairs, name).is_none_or(|wanted| wanted == value);
        let since =
            get(pairs, "DateCreatedAfter").and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let since_ms = since.map_or(i64::MIN, jiff::Timestamp::as_millisecond);
        let mut found: Vec<(i64, Value)> = Vec::new();
        for one in self.all.iter().filter(|one| one.account == account) {
            let is_found = is("VerificationSid", &one.sid)
                && is("VerifyServiceSid", &one.service)
                && is("ChannelData.To", &one.to);
            let attempts = one.attempts.iter().filter(|attempt| {
                is_found && attempt.at_ms >= since_ms && is("Channel", &attempt.channel)
            });
            found.extend(
                attempts.map(|attempt| (attempt.at_ms, self.attempt_json(one, attempt, now_ms))),
            );
        }
        found.sort_by_key(|(at_ms, _)| std::cmp::Reverse(*at_ms));
        found.into_iter().map(|(_, attempt)| attempt).collect()
    }

    fn attempt_json(&self, of: &Verification, attempt: &Attempt, now_ms: i64) -> Value {
        let steps = now_ms.saturating_sub(attempt.at_ms) / self.step_ms.max(1);
        let status = match (steps, attempt.fault) {
            (0, _) => "queued",
            (1, _) => "sent",
            (_, Some(_)) => "undelivered",
            (_, None) => "delivered",
        };
        let code = attempt.fault.filter(|_| status == "undelivered");
        let confirmed = if of.status == "approved" { "confirmed" } else { "unconfirmed" };
        json!({
            "sid": attempt.sid, "account_sid": of.account, "service_sid": of.service,
            "verification_sid": of.sid, "channel": attempt.channel,
            "conversion_status": if of.status == "approved" { "converted" } else { "unconverted" },
            "date_created": iso(attempt.at_ms), "date_updated": iso(of.updated_ms),
            "price": {"value": "0.005", "currency": "usd"},
            "channel_data": {
                "to": of.to, "verification_sid": of.sid, "status": confirmed, "code_length": 6,
                "message_status": status, "error_code": code.map(|code| code.to_string()),
                "locale": of.locale,
            },
            "url": format!("https://verify.twilio.com/v2/Attempts/{}", attempt.sid),
        })
    }

    /// Returns the verifications with their codes, the latest first.
    pub(super) fn with_codes(&self, most: usize) -> Vec<Value> {
        let shown = self.all.iter().rev().take(most).map(|one| {
            let channels: Vec<&str> =
                one.attempts.iter().map(|attempt| attempt.channel.as_str()).collect();
            json!({
                "sid": one.sid, "account_sid": one.account, "service_sid": one.service, "to": one.to,
                "code": one.code, "status": one.status, "channels": channels, "checks": one.checks,
            })
        });
        shown.collect()
    }
}

impl Verification {
    fn to_json(&self) -> Value {
        let channel = self.attempts.last().map_or("sms", |attempt| attempt.channel.as_str());
        let attempts = self.attempts.iter().map(|attempt| {
            json!({
                "time": iso(attempt.at_ms), "channel": attempt.channel.to_uppercase(),
                "attempt_sid": attempt.sid,
            })
        });
        let path = format!("/v2/Services/{}/Verifications/{}", self.service, self.sid);
        json!({
            "sid": self.sid, "service_sid": self.service, "account_sid": self.account,
            "to": self.to, "channel": channel, "status": self.status,
            "valid": self.status == "approved", "amount": null, "payee": null, "sna": null,
            "lookup": {}, "send_code_attempts": attempts.collect::<Vec<_>>(),
            "date_created": iso(self.created_ms), "date_updated": iso(self.updated_ms),
            "url": format!("https://verify.twilio.com{path}"),
        })
    }
}

fn iso(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests;
