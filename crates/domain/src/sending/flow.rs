//! Executions of Studio flows: the request, its form for Twilio, the rules before the call, and the meaning of Twilio's answers. A
//! flow is a program at Twilio that sends messages to one contact. Its messages do not pass through this service, so the rules are
//! evaluated for the first of them. Pure.

use form_urlencoded::Serializer;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    errors::ErrorTable,
    matching::Match,
    options::Metadata,
    outcome::{CallResponse, SendOutcome, failure_outcome},
    request::Sender,
    routing::Routes,
    rules::{self, Verdict},
};
use crate::{
    address::Address,
    check::{self, Kind},
    period::instant,
    policy::Category,
};

/// Parameter that has our id of the execution. It proves which execution in Twilio's list is ours.
pub const ID_PARAMETER: &str = "twilio_edge_id";

/// Largest parameters of an execution, in bytes of JSON.
pub const MAX_PARAMETERS: usize = 16 << 10;

/// Largest difference between Twilio's clock and ours at which an execution may be ours, in milliseconds.
const NEAR_MS: i64 = 60_000;

/// Parameters of an execution: a JSON object, which the flow reads as `flow.data`.
pub type Parameters = Map<String, Value>;

/// Request for an execution of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowRequest {
    /// Account of the flow.
    pub account_sid: String,
    /// Flow, `FW..`.
    pub flow_sid: String,
    /// Contact of the execution.
    pub to: Address,
    /// Sender of the flow's messages, if the request or a route names one.
    pub sender: Option<Sender>,
    /// Parameters.
    pub parameters: Parameters,
    /// Kind of the flow's first message: a text, which needs an open conversation window, or a template.
    pub first_message: Kind,
    /// Category of the flow's messages, if the request names one.
    pub category: Option<Category>,
    /// Data of the caller.
    pub metadata: Metadata,
}

impl FlowRequest {
    /// Returns the category; its default depends on the kind of the first message.
    pub fn category(&self) -> Category {
        self.category.unwrap_or_else(|| self.first_message.default_category())
    }

    /// Returns the parameters of Twilio's `Executions`. `id` is our id of the execution.
    pub fn form(&self, id: &str) -> String {
        let mut parameters = self.parameters.clone();
        parameters.insert(ID_PARAMETER.to_owned(), id.into());
        let from = match &self.sender {
            Some(Sender::From(from)) => from.written(),
            Some(Sender::Service(sid)) => sid.clone(),
            None => String::new(),
        };
        let mut form = Serializer::new(String::new());
        form.append_pair("To", &self.to.written()).append_pair("From", &from);
        form.append_pair("Parameters", &Value::Object(parameters).to_string()).finish()
    }
}

/// Returns the problem of parameters, if they have one.
pub fn parameters_problem(parameters: &Parameters) -> Option<String> {
    if parameters.contains_key(ID_PARAMETER) {
        return Some(format!("must not have {ID_PARAMETER}, which the sidecar adds"));
    }
    let size = Value::Object(parameters.clone()).to_string().len();
    (size > MAX_PARAMETERS).then(|| format!("must have at most {MAX_PARAMETERS} bytes of JSON"))
}

/// Returns the sender of an execution by its form; `None` if it is a Messaging Service.
pub fn sender_of_form(form: &str) -> Option<Address> {
    let from = form_urlencoded::parse(form.as_bytes()).find(|(name, _)| name == "From")?.1;
    Address::parse(&from).filter(|_| !super::sender::is_service(&from))
}

/// Facts beside the request.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// True if the account has credentials.
    pub has_credentials: bool,
    /// Routes of the account.
    pub routes: &'a Routes,
    /// Verdicts about the contact.
    pub checks: Vec<check::Verdict>,
}

/// Returns the verdict of every rule, in order. The execution may start if all are `ok`.
pub fn evaluate(request: &FlowRequest, facts: Facts<'_>) -> Vec<Verdict> {
    let mut verdicts = vec![
        rules::credentials(facts.has_credentials),
        rules::sender(request.sender.as_ref(), &request.to),
        rules::recipient(&request.to),
        rules::region(&request.to, facts.routes),
    ];
    verdicts.extend(facts.checks.into_iter().map(rules::of_check));
    verdicts
}

/// Returns whether the text is the SID of a flow.
pub fn is_flow_sid(text: &str) -> bool {
    is_sid(text, "FW")
}

/// Returns whether the text is the SID of an execution.
pub fn is_execution_sid(text: &str) -> bool {
    is_sid(text, "FN")
}

fn is_sid(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix)
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Execution of a flow, as Twilio reports it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Execution {
    /// `FN..`
    pub sid: String,
    /// Contact, as the execution was started with it.
    #[serde(default)]
    pub contact_channel_address: Option<String>,
    /// `active` or `ended`.
    #[serde(default)]
    pub status: Option<String>,
    /// Creation time, in ISO 8601.
    #[serde(default)]
    pub date_created: Option<String>,
}

/// Decides the meaning of Twilio's answer to `POST Executions`.
pub fn start_outcome(answer: CallResponse, errors: &ErrorTable) -> SendOutcome {
    let CallResponse::Http { status: status @ 200..=299, body, .. } = &answer else {
        return failure_outcome(answer, errors);
    };
    match serde_json::from_slice::<Execution>(body) {
        Ok(found) if is_execution_sid(&found.sid) => SendOutcome::Sent { message_sid: found.sid },
        _ => SendOutcome::Unknown {
            reason: format!("Twilio answered {status} without an execution SID"),
        },
    }
}

/// Search for an execution whose start has no clear answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecutionSearch<'a> {
    /// Form of the start.
    pub form: &'a str,
    /// Start of the call, in milliseconds since 1970.
    pub begun_ms: i64,
    /// Latest time at which the call could have reached Twilio, in milliseconds since 1970.
    pub until_ms: i64,
}

impl ExecutionSearch<'_> {
    /// Returns the earliest and the latest time of an execution that may be ours, in milliseconds since 1970.
    pub fn period_ms(&self) -> (i64, i64) {
        (self.begun_ms.saturating_sub(NEAR_MS), self.until_ms.saturating_add(NEAR_MS))
    }

    /// Returns whether the execution may be ours: its contact and its time fit. Only its context proves it.
    pub fn may_be(&self, execution: &Execution) -> bool {
        let to = form_urlencoded::parse(self.form.as_bytes()).find(|(name, _)| name == "To");
        let created_ms = execution.date_created.as_deref().and_then(|at| instant(at).ok());
        let (since_ms, until_ms) = self.period_ms();
        is_execution_sid(&execution.sid)
            && execution.contact_channel_address.as_deref() == to.as_ref().map(|(_, to)| &**to)
            && created_ms.is_none_or(|at_ms| (since_ms..=until_ms).contains(&at_ms))
    }

    /// Decides by the executions that may be ours and whose context has our id. `is_proof` is true if an absence counts by now.
    pub fn conclude(&self, ours: &[String], is_proof: bool) -> Match {
        match ours {
            [sid] => Match::Found(sid.clone()),
            [] if is_proof => Match::Absent,
            _ => Match::Unclear,
        }
    }
}

/// Returns whether the context of an execution has our id. The id has 128 random bits, so its place in the context is not relevant.
pub fn has_id(context: &[u8], id: &str) -> bool {
    !id.is_empty() && context.windows(id.len()).any(|window| window == id.as_bytes())
}

/// Flow that inbound messages start.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowTrigger {
    /// Flow, `FW..`.
    pub flow: String,
    /// Paths of routes of the filter; empty: all.
    #[serde(default)]
    pub routes: Vec<String>,
    /// Channels; empty: all.
    #[serde(default)]
    pub channels: Vec<String>,
    /// Our numbers and senders that received the message, without a channel; empty: all.
    #[serde(default)]
    pub numbers: Vec<String>,
    /// Texts that start the flow, without regard to case and outer blanks; empty: all.
    #[serde(default)]
    pub texts: Vec<String>,
    /// Parameters of the flow.
    #[serde(default)]
    pub parameters: Parameters,
}

/// Inbound message, as triggers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceivedMessage<'a> {
    /// Path of the route.
    pub route: &'a str,
    /// Channel.
    pub channel: &'a str,
    /// Our number or sender that received it.
    pub number: &'a str,
    /// Text.
    pub text: &'a str,
}

/// Largest number of triggers of an account, and of entries of one list.
const MAX_ENTRIES: usize = 200;

impl FlowTrigger {
    /// Returns whether the message starts the flow.
    pub fn admits(&self, received: ReceivedMessage<'_>) -> bool {
        let admits = |list: &[String], value: &str| {
            list.is_empty() || list.iter().any(|admitted| admitted == value)
        };
        let text = received.text.trim().to_lowercase();
        admits(&self.routes, received.route)
            && admits(&self.channels, received.channel)
            && admits(&self.numbers, received.number)
            && (self.texts.is_empty()
                || self.texts.iter().any(|admitted| admitted.trim().to_lowercase() == text))
    }

    /// Reads the triggers of an account. Returns every problem, each with its path.
    ///
    /// # Errors
    /// Every problem.
    pub fn read_all(value: &Value) -> Result<Vec<FlowTrigger>, Vec<String>> {
        let triggers: Vec<FlowTrigger> =
            serde_json::from_value(value.clone()).map_err(|error| vec![format!(": {error}")])?;
        let mut problems = Vec::new();
        if triggers.len() > MAX_ENTRIES {
            problems.push(format!(": must have at most {MAX_ENTRIES} entries"));
        }
        for (n, trigger) in triggers.iter().enumerate() {
            problems
                .extend(trigger.problems().into_iter().map(|problem| format!("[{n}].{problem}")));
        }
        if problems.is_empty() { Ok(triggers) } else { Err(problems) }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !is_flow_sid(&self.flow) {
            problems.push("flow: must be FW and 32 hexadecimal digits".to_owned());
        }
        let lists = [
            ("routes", &self.routes),
            ("channels", &self.channels),
            ("numbers", &self.numbers),
            ("texts", &self.texts),
        ];
        for (name, list) in lists {
            if list.len() > MAX_ENTRIES {
                problems.push(format!("{name}: must have at most {MAX_ENTRIES} entries"));
            }
            if list.iter().any(|entry| entry.trim().is_empty()) {
                problems.push(format!("{name}: must have no empty entry"));
            }
        }
        let problem = parameters_problem(&self.parameters);
        problems.extend(problem.map(|problem| format!("parameters: {problem}")));
        problems
    }
}

#[cfg(test)]
mod tests;
