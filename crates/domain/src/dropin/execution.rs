//! Executions of Studio flows for clients of Twilio: the content of a request, and the resource in Twilio's format.

use serde_json::{Value, json};

use super::DropInError;
use crate::{
    address::Address,
    sending::{
        flow::{Parameters, parameters_problem},
        request::Sender,
        sender::sender,
    },
    window::rfc3339,
};

/// Code of Studio for parameters that it cannot process.
const WRONG_PARAMETERS: u32 = 84004;

/// Twilio's code of an unknown parameter.
const UNKNOWN_PARAMETER: u32 = 20001;

/// Prefixes of our ids and of the SIDs that are derived from them; the same 32 digits follow.
const PREFIXES: (&str, &str) = ("ms_", "FN");

/// Base URL of Twilio's Studio API, for links.
const BASE: &str = "https://studio.twilio.com";

/// Returns the SID of an execution in the drop-in API until Twilio assigns one; it remains valid afterwards.
pub fn provisional_sid(id: &str) -> String {
    format!("{}{}", PREFIXES.1, id.strip_prefix(PREFIXES.0).unwrap_or(id))
}

/// Returns the id from which a SID may be derived.
pub fn id_of_sid(sid: &str) -> Option<String> {
    Some(format!("{}{}", PREFIXES.0, sid.strip_prefix(PREFIXES.1)?))
}

/// Request for an execution, as Twilio's clients send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutionForm {
    /// Contact.
    pub to: Address,
    /// Sender of the flow's messages; `None` for the sender of the routes.
    pub sender: Option<Sender>,
    /// Parameters.
    pub parameters: Parameters,
}

impl ExecutionForm {
    /// Reads decoded parameters.
    ///
    /// # Errors
    /// The first mistake, with Twilio's code.
    pub fn read(pairs: &[(String, String)]) -> Result<ExecutionForm, DropInError> {
        let is_known = |name: &str| ["To", "From", "Parameters"].contains(&name);
        if let Some((name, _)) = pairs.iter().find(|(name, _)| !is_known(name)) {
            let message = format!("{name} is not a parameter of an execution");
            return Err(DropInError::new(UNKNOWN_PARAMETER, message));
        }
        let get = |name: &str| {
            let found = pairs.iter().find(|(have, value)| have == name && !value.is_empty());
            found.map(|(_, value)| value.as_str())
        };
        let wrong = |detail: String| DropInError::new(WRONG_PARAMETERS, detail);
        let to = get("To").ok_or_else(|| wrong("To: is missing".to_owned()))?;
        let to =
            Address::given(to, None, None).map_err(|problem| wrong(format!("To: {problem}")))?;
        let from = get("From").map(|from| sender(from, Some(&to.channel))).transpose();
        let parameters = get("Parameters").map_or(Ok(Parameters::new()), serde_json::from_str);
        let parameters =
            parameters.map_err(|_| wrong("Parameters: must be a JSON object".to_owned()))?;
        if let Some(problem) = parameters_problem(&parameters) {
            return Err(wrong(format!("Parameters: {problem}")));
        }
        let sender = from.map_err(|problem| wrong(format!("From: {problem}")))?;
        Ok(ExecutionForm { to, sender, parameters })
    }
}

/// Stored properties of an execution.
#[derive(Debug, Clone, Copy)]
pub struct StoredExecution<'a> {
    /// Our id.
    pub id: &'a str,
    /// Twilio's SID; empty until it is known.
    pub sid: &'a str,
    /// Account of the execution.
    pub account_sid: &'a str,
    /// Flow, `FW..`.
    pub flow_sid: &'a str,
    /// Contact, as Twilio writes it; empty if it is no longer stored.
    pub to: &'a str,
    /// True if the execution will not start.
    pub has_ended: bool,
    /// Creation time, in milliseconds since 1970.
    pub created_ms: i64,
    /// Time of the last change, in milliseconds since 1970.
    pub updated_ms: i64,
}

/// Returns the resource in Twilio's format.
pub fn execution(known: &StoredExecution<'_>) -> Value {
    let sid = match known.sid {
        "" => provisional_sid(known.id),
        sid => sid.to_owned(),
    };
    let url = format!("{BASE}/v2/Flows/{}/Executions/{sid}", known.flow_sid);
    let time = |ms: i64| rfc3339(ms.div_euclid(1000).saturating_mul(1000));
    json!({
        "sid": sid, "account_sid": known.account_sid, "flow_sid": known.flow_sid,
        "contact_channel_address": Some(known.to).filter(|to| !to.is_empty()), "context": {},
        "status": if known.has_ended { "ended" } else { "active" },
        "date_created": time(known.created_ms), "date_updated": time(known.updated_ms),
        "url": url,
        "links": {"steps": format!("{url}/Steps"), "execution_context": format!("{url}/Context")},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<ExecutionForm, (u32, String)> {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ExecutionForm::read(&pairs).map_err(|error| (error.code, error.message))
    }

    #[test]
    fn form_names_its_first_mistake() {
        let to = ("To", "whatsapp:+14155550123");
        let form = read(&[to, ("From", "whatsapp:+14155238886"), ("Parameters", "{\"a\":1}")]);
        let form = form.unwrap();
        assert_eq!(
            (form.to.channel.as_str(), form.parameters["a"].as_i64()),
            ("whatsapp", Some(1))
        );
        assert_eq!(read(&[to]).unwrap().sender, None);
        for (pairs, code, start) in [
            (&[to, ("Context", "1")][..], 20001, "Context is not"),
            (&[("To", "Ada")], 84004, "To: "),
            (&[], 84004, "To: is missing"),
            (&[to, ("From", "+")], 84004, "From: "),
            (&[to, ("Parameters", "[]")], 84004, "Parameters: must be a JSON object"),
            (&[to, ("Parameters", "{\"twilio_edge_id\":1}")], 84004, "Parameters: must not have"),
        ] {
            let (found, message) = read(pairs).unwrap_err();
            assert_eq!(found, code, "{pairs:?}");
            assert!(message.starts_with(start), "{message}");
        }
    }

    #[test]
    fn resource_has_a_derived_sid_until_twilio_assigns_one() {
        let known = StoredExecution {
            id: "ms_00112233445566778899aabbccddeeff",
            sid: "",
            account_sid: "AC",
            flow_sid: "FW",
            to: "",
            has_ended: false,
            created_ms: 1_795_392_000_123,
            updated_ms: 1_795_392_000_123,
        };
        let shown = execution(&known);
        assert_eq!(shown["sid"], "FN00112233445566778899aabbccddeeff");
        assert_eq!(id_of_sid(shown["sid"].as_str().unwrap()).as_deref(), Some(known.id));
        assert_eq!(shown["status"], "active");
        assert_eq!(shown["contact_channel_address"], Value::Null);
        assert_eq!(execution(&StoredExecution { sid: "FN1", ..known })["sid"], "FN1");
    }
}
