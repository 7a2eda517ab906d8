//! Executions of Studio flows: the newest ones, and their representation in Twilio's API. Callers pass the time; nothing here waits.
//!
//! Source: Twilio's OpenAPI (twilio_studio_v2.json).

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use super::refusal::Refusal;
use super::request::{is_address, is_person, is_sid};

/// Code of Studio for parameters that it cannot process.
const WRONG_PARAMETERS: u32 = 84004;

/// Request for an execution whose parameters are valid by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) to: String,
    pub(super) from: String,
    pub(super) parameters: Map<String, Value>,
}

impl Start {
    /// Reads decoded parameters.
    ///
    /// # Errors
    /// The first mistake, with Twilio's code.
    pub(super) fn read(pairs: &[(String, String)]) -> Result<Start, Refusal> {
        let is_known = |name: &str| ["To", "From", "Parameters"].contains(&name);
        if let Some((name, _)) = pairs.iter().find(|(name, _)| !is_known(name)) {
            return Err(Refusal::bad(20001, format!("{name} is no parameter of an execution")));
        }
        let get = |name: &str| {
            let found = pairs.iter().find(|(have, value)| have == name && !value.is_empty());
            found.map(|(_, value)| value.clone())
        };
        let wrong = |detail: &str| Refusal::bad(WRONG_PARAMETERS, detail);
        let to = get("To").filter(|to| is_person(to));
        let to = to.ok_or_else(|| wrong("To is missing or invalid"))?;
        let from = get("From").filter(|from| is_address(from) || is_sid(from, "MG"));
        let from = from.ok_or_else(|| wrong("From is missing or invalid"))?;
        let parameters = match get("Parameters") {
            None => Map::new(),
            Some(text) => {
                serde_json::from_str(&text).map_err(|_| wrong("Parameters is no JSON object"))?
            }
        };
        Ok(Start { to, from, parameters })
    }

    /// Returns the text of the only message of every flow: the parameter `text`, or a default.
    pub(super) fn text(&self) -> String {
        let text = self.parameters.get("text").and_then(Value::as_str);
        text.unwrap_or("A message of the flow.").to_owned()
    }
}

/// Execution of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Execution {
    pub(super) sid: String,
    pub(super) account: String,
    pub(super) flow: String,
    pub(super) start: Start,
    /// SID of its message, or the code of the refusal.
    pub(super) message: Result<String, u32>,
    pub(super) created_ms: i64,
    /// Time at which it ends, in milliseconds since 1970.
    pub(super) ends_ms: i64,
}

/// Filter of a list.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Period {
    pub(super) from_ms: Option<i64>,
    pub(super) to_ms: Option<i64>,
}

/// Newest executions; if there are more than `max`, the oldest is dropped.
#[derive(Debug)]
pub(super) struct Executions {
    newest_first: VecDeque<Execution>,
    max: usize,
}

impl Executions {
    pub(super) fn new(max: usize) -> Executions {
        Executions { newest_first: VecDeque::new(), max: max.max(1) }
    }

    pub(super) fn add(&mut self, execution: Execution) {
        self.newest_first.truncate(self.max.saturating_sub(1));
        self.newest_first.push_front(execution);
    }

    pub(super) fn get(&mut self, account: &str, flow: &str, sid: &str) -> Option<&mut Execution> {
        let is_it = |execution: &&mut Execution| {
            (execution.account.as_str(), execution.flow.as_str(), execution.sid.as_str())
                == (account, flow, sid)
        };
        self.newest_first.iter_mut().find(is_it)
    }

    /// Returns the executions of a flow, the newest first.
    pub(super) fn list<'a>(
        &'a self,
        account: &'a str,
        flow: &'a str,
        period: Period,
    ) -> impl Iterator<Item = &'a Execution> {
        self.newest_first.iter().filter(move |execution| {
            execution.account == account
                && execution.flow == flow
                && period.from_ms.is_none_or(|from_ms| from_ms <= execution.created_ms)
                && period.to_ms.is_none_or(|to_ms| execution.created_ms < to_ms)
        })
    }
}

impl Execution {
    /// Returns the resource in Twilio's format.
    pub(super) fn to_json(&self, origin: &str, now_ms: i64) -> Value {
        let url = format!("{origin}/v2/Flows/{}/Executions/{}", self.flow, self.sid);
        let has_ended = now_ms >= self.ends_ms;
        json!({
            "sid": self.sid, "account_sid": self.account, "flow_sid": self.flow,
            "contact_channel_address": self.start.to, "context": {},
            "status": if has_ended { "ended" } else { "active" },
            "date_created": iso(self.created_ms),
            "date_updated": iso(if has_ended { self.ends_ms } else { self.created_ms }),
            "url": url,
            "links": {"steps": format!("{url}/Steps"), "execution_context": format!("{url}/Context")},
        })
    }

    /// Returns the context in Twilio's format.
    pub(super) fn context(&self, origin: &str) -> Value {
        let message = match &self.message {
            Ok(sid) => json!({"outbound": {"Sid": sid}}),
            Err(code) => json!({"error_code": code}),
        };
        json!({
            "account_sid": self.account, "flow_sid": self.flow, "execution_sid": self.sid,
            "context": {
                "contact": {"channel": {"address": self.start.to}},
                "flow": {
                    "sid": self.sid, "flow_sid": self.flow, "data": self.start.parameters,
                    "channel": {"address": self.start.from},
                },
                "widgets": {"message": message},
            },
            "url": format!("{origin}/v2/Flows/{}/Executions/{}/Context", self.flow, self.sid),
        })
    }
}

fn iso(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: &str = "whatsapp:+14155550123";

    fn read(pairs: &[(&str, &str)]) -> Result<Start, u32> {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Start::read(&pairs).map_err(|refusal| refusal.code)
    }

    #[test]
    fn start_needs_valid_addresses_and_an_object() {
        let from = ("From", "whatsapp:+14155238886");
        let start = read(&[("To", TO), from, ("Parameters", "{\"text\":\"Hi\"}")]).unwrap();
        assert_eq!(start.text(), "Hi");
        for (pairs, code) in [
            (&[("To", "Ada"), from][..], 84004),
            (&[("To", TO)], 84004),
            (&[("To", TO), from, ("Parameters", "[1]")], 84004),
            (&[("To", TO), from, ("Unknown", "{}")], 20001),
        ] {
            assert_eq!(read(pairs).map(|_| ()), Err(code), "{pairs:?}");
        }
    }

    #[test]
    fn executions_are_found_by_flow_and_time_and_end() {
        let start = read(&[("To", TO), ("From", "+14155238886")]).unwrap();
        let mut executions = Executions::new(2);
        for created_ms in [1000, 2000, 3000] {
            executions.add(Execution {
                sid: format!("FN{created_ms:032x}"),
                account: "AC1".to_owned(),
                flow: "FW1".to_owned(),
                start: start.clone(),
                message: Ok("SM1".to_owned()),
                created_ms,
                ends_ms: created_ms + 500,
            });
        }
        let times = |from_ms, to_ms| -> Vec<i64> {
            let period = Period { from_ms, to_ms };
            executions.list("AC1", "FW1", period).map(|execution| execution.created_ms).collect()
        };
        assert_eq!(times(None, None), [3000, 2000], "the oldest is dropped");
        assert_eq!(times(Some(2000), Some(3000)), [2000]);
        assert_eq!(executions.list("AC1", "FW2", Period::default()).count(), 0);
        let sid = format!("FN{:032x}", 3000);
        let found = executions.get("AC1", "FW1", &sid).unwrap();
        assert_eq!(found.to_json("", 3499)["status"], "active");
        assert_eq!(found.to_json("", 3500)["status"], "ended");
        assert_eq!(found.context("")["context"]["flow"]["data"], json!({}));
        assert!(executions.get("AC2", "FW1", &sid).is_none());
    }
}
