//! Executions of Studio flows: decides whether one may start, and builds its row. The dispatcher starts it as it sends any message. An
//! inbound message may start a flow too; its row is stored before the webhook is answered, once for each message.

use serde_json::json;

use crate::{
    access::permissions::Intent,
    outbound::sending::{QUIET_HOURS, Sending, quiet_reason, refuse},
};
use twilio_edge_domain::{
    address::Address,
    check::Kind,
    contact,
    sending::{
        flow::{Facts, FlowRequest, FlowTrigger, ReceivedMessage, evaluate, parameters_problem},
        options::Metadata,
        provider::Provider,
        request::Sender,
        rules::Verdict,
    },
    webhook::Webhook,
};
use twilio_edge_store::{OutboundMessage, StoreError};

/// Prefix of our execution ids. The digits are those of the message and of its notification.
pub const EXECUTION_PREFIX: &str = "fx_";

/// Author of the executions that inbound messages start.
const CREATED_BY: &str = "inbound message";

/// Word in place of the keyword, for an execution that an inbound message started.
pub const STARTED_BY_MESSAGE: &str = "flow";

impl Sending {
    /// Adds the sender from the routes if the request names none.
    pub fn complete_flow(&self, request: FlowRequest) -> FlowRequest {
        let country = contact::country(&request.to.channel, &request.to.number);
        let routing = self.routes.current();
        let routes = routing.of(&request.account_sid);
        let route = routes.sender(&request.to.channel, country.as_deref()).cloned();
        FlowRequest { sender: request.sender.or(route), ..request }
    }

    /// Evaluates every rule for an execution.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn evaluate_flow(
        &self,
        request: &FlowRequest,
        now_ms: i64,
    ) -> Result<Vec<Verdict>, StoreError> {
        let intent = Intent {
            account_sid: request.account_sid.clone(),
            from: match &request.sender {
                Some(Sender::From(from)) => Some(from.number.clone()),
                Some(Sender::Service(_)) | None => None,
            },
            to: request.to.clone(),
            category: request.category(),
            kind: request.first_message,
            reply: None,
            ignores_opt_outs: false,
        };
        let checks = self.checks.may_send(&intent, now_ms).await?;
        let routing = self.routes.current();
        let facts = Facts {
            has_credentials: self.twilio.has_credentials(&request.account_sid),
            routes: routing.of(&request.account_sid),
            checks,
        };
        Ok(evaluate(request, facts))
    }

    /// Builds the row of an execution, in state `queued`. Nothing is stored.
    ///
    /// # Errors
    /// Returns an error if the system supplies no random bytes for the id.
    pub fn flow_row(
        &self,
        request: &FlowRequest,
        created_by: &str,
        now_ms: i64,
    ) -> Result<OutboundMessage, StoreError> {
        let category = request.category();
        let row =
            self.blank_row(&request.account_sid, &request.to, category, created_by, now_ms)?;
        let held_ms = self.held_until_ms(&request.account_sid, &row.country, category, now_ms);
        let due_at_ms = held_ms.unwrap_or(now_ms);
        Ok(OutboundMessage {
            provider: Provider::Studio.as_str().to_owned(),
            sender: request.flow_sid.clone(),
            kind: match request.first_message {
                Kind::Session => "session".to_owned(),
                Kind::Template => "template".to_owned(),
            },
            form: request.form(&row.id),
            due_at_ms,
            first_due_at_ms: due_at_ms,
            code: held_ms.map_or_else(String::new, |_| QUIET_HOURS.to_owned()),
            reason: held_ms.map_or_else(String::new, quiet_reason),
            metadata: request.metadata.to_json(),
            ..row
        })
    }

    /// Builds the execution that an inbound message starts; `None` if no trigger admits the message. A message with an opt-out or
    /// opt-in keyword, or a request for help, starts none. The row is in state `refused` if a rule forbids it that does not depend on
    /// the contact; the dispatcher evaluates the others.
    ///
    /// # Errors
    /// Returns an error if the system supplies no random bytes for the id.
    pub fn flow_of(
        &self,
        webhook: &Webhook,
        now_ms: i64,
    ) -> Result<Option<OutboundMessage>, StoreError> {
        let Some(inbound) = webhook.inbound.as_ref().filter(|inbound| inbound.opt.is_none()) else {
            return Ok(None);
        };
        let participants = &inbound.participants;
        let (contact, ours) = (&participants.theirs, &participants.ours);
        let routing = self.routes.current();
        let routes = routing.of(&participants.account_sid);
        let text = body(&webhook.form);
        let received = ReceivedMessage {
            route: &webhook.route,
            channel: &contact.channel,
            number: ours,
            text: &text,
        };
        let Some(trigger) = routes.flow(received) else { return Ok(None) };
        let sender = Some(ours).filter(|ours| !ours.is_empty()).map(|ours| {
            Sender::From(Address { channel: contact.channel.clone(), number: ours.clone() })
        });
        let request = FlowRequest {
            account_sid: participants.account_sid.clone(),
            flow_sid: trigger.flow.clone(),
            to: contact.clone(),
            sender,
            parameters: parameters(trigger, &webhook.identity.message_sid, &text),
            first_message: Kind::Session,
            category: None,
            metadata: Metadata::default(),
        };
        let facts = Facts {
            has_credentials: self.twilio.has_credentials(&request.account_sid),
            routes,
            checks: Vec::new(),
        };
        let verdicts = evaluate(&request, facts);
        let mut row = self.flow_row(&request, CREATED_BY, now_ms)?;
        row.reply_to.clone_from(&webhook.identity.message_sid);
        row.reply_keyword = STARTED_BY_MESSAGE.to_owned();
        refuse(&mut row, &verdicts);
        Ok(Some(row))
    }
}

/// Returns the parameters of a trigger together with the message, unless that would make them too large.
fn parameters(
    trigger: &FlowTrigger,
    message_sid: &str,
    text: &str,
) -> twilio_edge_domain::sending::flow::Parameters {
    let mut parameters = trigger.parameters.clone();
    parameters.entry("message").or_insert_with(|| json!({"sid": message_sid, "body": text}));
    match parameters_problem(&parameters) {
        None => parameters,
        Some(_) => trigger.parameters.clone(),
    }
}

fn body(form: &str) -> String {
    let body = form_urlencoded::parse(form.as_bytes()).find(|(name, _)| name == "Body");
    body.map(|(_, body)| body.into_owned()).unwrap_or_default()
}
