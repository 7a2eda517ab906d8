//! What the simulator remembers: messages, who opted out, whose window is open, when each sender may send next, and what
//! is due when. Every call is told the time; nothing here waits. All of it is bounded by the capacity.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Settings;
use super::content::Content;
use super::faults::Fault;
use super::journey::{Journey, Step};
use super::messages::{Message, Messages};
use super::refusal::Refusal;
use super::request::{Request, is_whatsapp};

/// How long a person's message lets free texts be sent to them over WhatsApp.
const WINDOW_MS: i64 = 24 * 3_600_000;
/// How long a sender's queue may be.
const QUEUE_MS: i64 = 4 * 3_600_000;
/// Who a Messaging Service sends as.
const SERVICE_SENDER: &str = "+14155238886";
/// Twilio's defaults (docs: advanced-opt-out).
const STOP: [&str; 8] =
    ["STOP", "UNSUBSCRIBE", "END", "QUIT", "STOPALL", "REVOKE", "OPTOUT", "CANCEL"];
const START: [&str; 3] = ["START", "YES", "UNSTOP"];

/// One of ours and one of theirs.
type Pair = (String, String);

#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) messages: Messages,
    opted_out: HashSet<Pair>,
    windows: HashMap<Pair, i64>,
    /// When the sender's next message may leave, in microseconds.
    next_us: HashMap<String, i64>,
    agenda: BTreeMap<(i64, u64), (String, Step)>,
    planned: u64,
    capacity: usize,
    step_ms: i64,
    /// Microseconds from one message of a sender to the next.
    pace_us: i64,
    needs_window: bool,
}

impl Ledger {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            messages: Messages::new(settings.capacity),
            opted_out: HashSet::new(),
            windows: HashMap::new(),
            next_us: HashMap::new(),
            agenda: BTreeMap::new(),
            planned: 0,
            capacity: settings.capacity.max(1),
            step_ms: settings.step_ms.into(),
            pace_us: 1_000_000 / i64::from(settings.mps.max(1)),
            needs_window: settings.windows,
        }
    }

    /// Accepts a request, or tells why not.
    pub(super) fn accept(
        &mut self,
        account: &str,
        sid: String,
        request: Request,
        catalogue: &[Content],
        now_ms: i64,
    ) -> Result<Message, Refusal> {
        let sender = request.from.clone().unwrap_or_else(|| {
            let channel = if is_whatsapp(&request.to) { "whatsapp:" } else { "" };
            format!("{channel}{SERVICE_SENDER}")
        });
        let pair = (sender.clone(), request.to.clone());
        if self.opted_out.contains(&pair) {
            return Err(Refusal::bad(21610, "Attempt to send to unsubscribed recipient"));
        }
        let mut fault = Fault::of(&request.to);
        let mut body = request.body.clone().unwrap_or_default();
        match &request.content_sid {
            Some(sid) => {
                let content = catalogue.iter().find(|content| content.sid == *sid);
                let content =
                    content.ok_or_else(|| Refusal::bad(21655, "The ContentSid is Invalid"))?;
                match content.filled(&request.variables) {
                    Ok(filled) => body = filled,
                    Err(code) => fault = Some(Fault::Failed(code)),
                }
            }
            None if self.needs_window && is_whatsapp(&request.to) && fault.is_none() => {
                let open = self
                    .windows
                    .get(&pair)
                    .is_some_and(|heard| now_ms.saturating_sub(*heard) < WINDOW_MS);
                if !open {
                    fault = Some(Fault::Failed(63016));
                }
            }
            None => {}
        }
        if self.agenda.len() >= self.capacity.saturating_mul(4) {
            return Err(Refusal::too_many());
        }
        let leaves_ms = match request.send_at_ms {
            Some(at) => at,
            None => self.leave(&sender, now_ms)?,
        };
        let status = match (&request.service, request.send_at_ms) {
            (_, Some(_)) => "scheduled",
            (Some(_), None) => "accepted",
            (None, None) => "queued",
        };
        let journey = Journey {
            leaves_ms,
            step_ms: self.step_ms,
            is_whatsapp: is_whatsapp(&request.to),
            is_service: request.service.is_some(),
            fault,
        };
        for step in journey.steps() {
            self.planned = self.planned.wrapping_add(1);
            self.agenda.insert((step.at_ms, self.planned), (sid.clone(), step));
        }
        let message = Message {
            sid,
            account: account.to_owned(),
            from: request.from,
            service: request.service,
            to: request.to,
            body,
            media: request.media,
            direction: "outbound-api",
            status,
            error: None,
            status_callback: request.status_callback,
            created_ms: now_ms,
            updated_ms: now_ms,
            sent_ms: None,
        };
        self.messages.add(message.clone());
        Ok(message)
    }

    /// When a message of this sender leaves: as fast as it may send, not before those that wait.
    fn leave(&mut self, sender: &str, now_ms: i64) -> Result<i64, Refusal> {
        let now_us = now_ms.saturating_mul(1000);
        if self.next_us.len() >= self.capacity {
            self.next_us.retain(|_, next| *next > now_us);
        }
        let leaves_us = self.next_us.get(sender).copied().unwrap_or(now_us).max(now_us);
        if leaves_us.saturating_sub(now_us) > QUEUE_MS.saturating_mul(1000) {
            return Err(Refusal::new(
                429,
                21611,
                "This 'From' number has exceeded the maximum number of queued messages",
            ));
        }
        self.next_us.insert(sender.to_owned(), leaves_us.saturating_add(self.pace_us));
        Ok(leaves_us / 1000)
    }

    /// A person writes to us; their STOP and START count from now on. An error when no more people can be remembered.
    pub(super) fn hear(&mut self, message: Message) -> Result<(), &'static str> {
        let pair = (message.to.clone(), message.from.clone().unwrap_or_default());
        let now_ms = message.created_ms;
        if self.windows.len() >= self.capacity && !self.windows.contains_key(&pair) {
            self.windows.retain(|_, heard| now_ms.saturating_sub(*heard) < WINDOW_MS);
            if self.windows.len() >= self.capacity {
                return Err("more people have written than --capacity allows to remember");
            }
        }
        let word = message.body.trim().to_ascii_uppercase();
        if STOP.contains(&word.as_str()) {
            if self.opted_out.len() >= self.capacity {
                return Err("more people have opted out than --capacity allows to remember");
            }
            self.opted_out.insert(pair.clone());
        } else if START.contains(&word.as_str()) {
            self.opted_out.remove(&pair);
        }
        self.windows.insert(pair, now_ms);
        self.messages.add(message);
        Ok(())
    }

    /// What is due first.
    pub(super) fn next_ms(&self) -> Option<i64> {
        self.agenda.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next step that is due, taken: the message as it is now.
    pub(super) fn advance(&mut self, now_ms: i64) -> Option<Option<Message>> {
        if self.next_ms()? > now_ms {
            return None;
        }
        let (_, (sid, step)) = self.agenda.pop_first()?;
        let Some(message) = self.messages.get(&sid) else { return Some(None) };
        if message.status == "canceled" {
            return Some(None);
        }
        message.status = step.status;
        message.error = step.error;
        message.updated_ms = now_ms;
        if message.from.is_none() {
            let channel = if is_whatsapp(&message.to) { "whatsapp:" } else { "" };
            message.from = Some(format!("{channel}{SERVICE_SENDER}"));
        }
        if step.status == "sent" {
            message.sent_ms = Some(now_ms);
        }
        Some(Some(message.clone()))
    }
}
