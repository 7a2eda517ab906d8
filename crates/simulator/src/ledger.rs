//! Memory of the simulator: messages, opt-outs, open windows, the time at which each sender may send next, and the agenda of
//! due steps. Callers pass the time; nothing here waits. The capacity bounds all of it.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::content::Content;
use super::faults::Fault;
use super::journey::{Journey, Step};
use super::messages::{Message, Messages};
use super::refusal::Refusal;
use super::request::{Request, is_whatsapp};
use crate::state::Settings;

/// Period after a contact's message in which WhatsApp delivers free texts to the contact.
const WINDOW_MS: i64 = 24 * 3_600_000;
/// Longest queue of a sender.
const QUEUE_MS: i64 = 4 * 3_600_000;
/// Sender of every Messaging Service.
const SERVICE_SENDER: &str = "+14155238886";
/// Twilio's defaults (docs: advanced-opt-out).
const STOP: [&str; 8] =
    ["STOP", "UNSUBSCRIBE", "END", "QUIT", "STOPALL", "REVOKE", "OPTOUT", "CANCEL"];
const START: [&str; 3] = ["START", "YES", "UNSTOP"];

/// Our address and the contact's address.
type Pair = (String, String);

/// Queue of a sender's messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    /// Time at which the next message may leave, in microseconds.
    #[serde(skip)]
    next_us: i64,
    /// Number of messages that came.
    messages: u64,
    /// Times of the first and the last message.
    first_ms: i64,
    last_ms: i64,
    /// Longest wait of a message because of the sender's rate.
    longest_wait_ms: i64,
}

#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) messages: Messages,
    opted_out: HashSet<Pair>,
    windows: HashMap<Pair, i64>,
    senders: HashMap<String, Line>,
    agenda: BTreeMap<(i64, u64), (String, Step)>,
    planned: u64,
    capacity: usize,
    step_ms: i64,
    /// Speed factor for everything that takes time.
    speed: i64,
    /// Interval between two messages of a sender, in microseconds.
    pace_us: i64,
    needs_window: bool,
}

impl Ledger {
    pub(super) fn new(settings: &Settings) -> Self {
        let speed = settings.speed.max(1).into();
        Self {
            messages: Messages::new(settings.capacity),
            opted_out: HashSet::new(),
            windows: HashMap::new(),
            senders: HashMap::new(),
            agenda: BTreeMap::new(),
            planned: 0,
            capacity: settings.capacity.max(1),
            step_ms: i64::from(settings.step_ms) / speed,
            speed,
            pace_us: 1_000_000 / i64::from(settings.mps.max(1)) / speed,
            needs_window: settings.windows,
        }
    }

    /// Accepts a request, or returns the refusal.
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
        let mut needs_window = self.needs_window && is_whatsapp(&request.to);
        if let Some(sid) = &request.content_sid {
            let content = catalogue.iter().find(|content| content.sid == *sid);
            let content =
                content.ok_or_else(|| Refusal::bad(21655, "The ContentSid is Invalid"))?;
            match content.filled(&request.variables) {
                Ok(filled) => body = filled,
                Err(code) => fault = Some(Fault::Failed(code)),
            }
            needs_window &= content.is_free_text();
            // A template needs no window.
            fault = fault.filter(|fault| !fault.is_about_windows() || content.is_free_text());
        }
        if needs_window && fault.is_none() {
            let open = self.windows.get(&pair).is_some_and(|received_ms| {
                now_ms.saturating_sub(*received_ms) < WINDOW_MS / self.speed
            });
            if !open {
                fault = Some(Fault::Failed(63016));
            }
        }
        if let Some(Fault::FailedOnce(code)) = fault {
            let is_same = |message: &Message| message.to == request.to && message.body == body;
            fault = (!self.messages.all().any(is_same)).then_some(Fault::Failed(code));
        }
        if self.agenda.len() >= self.capacity.saturating_mul(4) {
            return Err(Refusal::too_many());
        }
        let leaves_ms = match request.send_at_ms {
            Some(at) => now_ms.saturating_add(at.saturating_sub(now_ms) / self.speed),
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
            direction: request.direction,
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

    /// Returns the time at which a message of this sender leaves: at the sender's rate, after the messages that wait.
    fn leave(&mut self, sender: &str, now_ms: i64) -> Result<i64, Refusal> {
        let now_us = now_ms.saturating_mul(1000);
        if self.senders.len() >= self.capacity {
            self.senders.retain(|_, line| line.next_us > now_us);
        }
        let line = self.senders.get(sender);
        let leaves_us = line.map_or(now_us, |line| line.next_us.max(now_us));
        let waits_us = leaves_us.saturating_sub(now_us);
        if waits_us > (QUEUE_MS / self.speed).saturating_mul(1000) {
            return Err(Refusal::new(
                429,
                21611,
                "This 'From' number has exceeded the maximum number of queued messages",
            ));
        }
        let line = self.senders.entry(sender.to_owned());
        let line = line.or_insert_with(|| Line { first_ms: now_ms, ..Line::default() });
        line.next_us = leaves_us.saturating_add(self.pace_us);
        line.messages = line.messages.saturating_add(1);
        line.last_ms = now_ms;
        line.longest_wait_ms = line.longest_wait_ms.max(waits_us / 1000);
        Ok(leaves_us / 1000)
    }

    /// Returns the queue of each sender.
    pub(super) fn senders(&self) -> impl Iterator<Item = (&str, &Line)> {
        self.senders.iter().map(|(sender, line)| (sender.as_str(), line))
    }

    /// Records a message of a contact; STOP and START take effect at once. Returns an error if the capacity is exhausted.
    pub(super) fn record_inbound(&mut self, message: Message) -> Result<(), &'static str> {
        let pair = (message.to.clone(), message.from.clone().unwrap_or_default());
        let now_ms = message.created_ms;
        if self.windows.len() >= self.capacity && !self.windows.contains_key(&pair) {
            let window_ms = WINDOW_MS / self.speed;
            self.windows.retain(|_, received_ms| now_ms.saturating_sub(*received_ms) < window_ms);
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

    /// Returns the time of the next due step.
    pub(super) fn next_ms(&self) -> Option<i64> {
        self.agenda.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the next due step and returns the message in its new state.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usual_catalogue;

    const OURS: &str = "+14155238886";
    const THEIRS: &str = "+14155550123";

    fn settings() -> Settings {
        Settings {
            accounts: Vec::new(),
            catalogue: usual_catalogue(),
            step_ms: 100,
            speed: 1,
            requests_per_second: 0,
            mps: 10,
            latency_ms: 0,
            capacity: 4,
            windows: true,
            inbound_url: String::new(),
            inbound_fallback_url: None,
            email_events_url: None,
        }
    }

    fn request(to: &str) -> Request {
        let channel = if is_whatsapp(to) { "whatsapp:" } else { "" };
        Request {
            to: to.to_owned(),
            from: Some(format!("{channel}{OURS}")),
            service: None,
            body: Some("hi".to_owned()),
            media: Vec::new(),
            content_sid: None,
            variables: BTreeMap::new(),
            status_callback: None,
            send_at_ms: None,
            direction: "outbound-api",
        }
    }

    fn inbound_message(body: &str, channel: &str, at_ms: i64) -> Message {
        Message {
            sid: format!("SM{at_ms:032x}"),
            account: "AC1".to_owned(),
            service: None,
            from: Some(format!("{channel}{THEIRS}")),
            to: format!("{channel}{OURS}"),
            body: body.to_owned(),
            media: Vec::new(),
            direction: "inbound",
            status: "received",
            error: None,
            status_callback: None,
            created_ms: at_ms,
            updated_ms: at_ms,
            sent_ms: Some(at_ms),
        }
    }

    /// Accepts a request at that time, with a SID made of the time.
    fn accept(ledger: &mut Ledger, request: Request, at_ms: i64) -> Result<Message, u32> {
        let accepted =
            ledger.accept("AC1", format!("SM{at_ms:032x}"), request, &usual_catalogue(), at_ms);
        accepted.map_err(|refusal| refusal.code)
    }

    /// Executes every step and returns its time, status and error.
    fn story(ledger: &mut Ledger) -> Vec<(i64, &'static str, Option<u32>)> {
        let mut story = Vec::new();
        while let Some(at_ms) = ledger.next_ms() {
            assert_eq!(ledger.advance(at_ms - 1), None, "not before it is due");
            if let Some(Some(message)) = ledger.advance(at_ms) {
                story.push((at_ms, message.status, message.error));
            }
        }
        story
    }

    #[test]
    fn sender_is_limited_per_second_and_other_messages_wait() {
        let mut ledger = Ledger::new(&settings());
        for at_ms in 1..=3 {
            assert_eq!(accept(&mut ledger, request(THEIRS), at_ms).unwrap().status, "queued");
        }
        let sent: Vec<i64> = story(&mut ledger)
            .into_iter()
            .filter_map(|(at_ms, status, _)| (status == "sent").then_some(at_ms))
            .collect();
        assert_eq!(sent, [101, 201, 301]);
        let mut slow = Ledger::new(&Settings { mps: 1, capacity: 100_000, ..settings() });
        let full = (1..).find_map(|_| accept(&mut slow, request(THEIRS), 0).err());
        assert_eq!(full, Some(21611), "four hours of it");
    }

    #[test]
    fn stop_applies_to_its_pair_until_a_start() {
        let mut ledger = Ledger::new(&settings());
        ledger.record_inbound(inbound_message(" stop ", "", 1)).unwrap();
        assert_eq!(accept(&mut ledger, request(THEIRS), 2), Err(21610));
        let other = Request { from: Some("+14155238887".to_owned()), ..request(THEIRS) };
        assert!(accept(&mut ledger, other, 3).is_ok(), "the STOP was sent to another sender");
        ledger.record_inbound(inbound_message("Start", "", 4)).unwrap();
        assert!(accept(&mut ledger, request(THEIRS), 5).is_ok());
    }

    #[test]
    fn window_is_open_for_a_day_and_templates_need_none() {
        let whatsapp = format!("whatsapp:{THEIRS}");
        let mut ledger = Ledger::new(&settings());
        accept(&mut ledger, request(&whatsapp), 0).unwrap();
        assert_eq!(story(&mut ledger), [(100, "failed", Some(63016))]);
        ledger.record_inbound(inbound_message("hello", "whatsapp:", 1000)).unwrap();
        for (at_ms, last) in [(1000 + WINDOW_MS - 1, "read"), (1000 + WINDOW_MS, "failed")] {
            accept(&mut ledger, request(&whatsapp), at_ms).unwrap();
            assert_eq!(story(&mut ledger).last().unwrap().1, last, "{at_ms}");
        }
        let template = |variables: &[(&str, &str)]| Request {
            body: None,
            content_sid: usual_catalogue().first().map(|content| content.sid.clone()),
            variables: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..request(&whatsapp)
        };
        let at_ms = 3 * WINDOW_MS;
        let made = accept(&mut ledger, template(&[("1", "Ada"), ("2", "7")]), at_ms).unwrap();
        assert_eq!(made.body, "Hello Ada, your order 7 is on its way.");
        assert_eq!(story(&mut ledger).last().unwrap().1, "read");
        accept(&mut ledger, template(&[]), at_ms + 1).unwrap();
        assert_eq!(story(&mut ledger).last().unwrap().2, Some(63028));
    }

    #[test]
    fn simulator_is_faster_at_a_higher_speed() {
        let mut ledger = Ledger::new(&Settings { speed: 10, ..settings() });
        let later = Request {
            service: Some(format!("MG{}", "0".repeat(32))),
            from: None,
            send_at_ms: Some(3_600_000),
            ..request(THEIRS)
        };
        assert_eq!(accept(&mut ledger, later, 0).unwrap().status, "scheduled");
        let steps = story(&mut ledger);
        let expected =
            [(360_010, "queued", None), (360_020, "sent", None), (360_030, "delivered", None)];
        assert_eq!(steps, expected);
        ledger.record_inbound(inbound_message("hello", "whatsapp:", 0)).unwrap();
        let whatsapp = format!("whatsapp:{THEIRS}");
        accept(&mut ledger, request(&whatsapp), WINDOW_MS / 10).unwrap();
        assert_eq!(story(&mut ledger).last().unwrap().1, "failed", "a day is over in 2.4 hours");
    }

    #[test]
    fn repeated_text_arrives_where_the_first_one_fails() {
        let mut ledger = Ledger::new(&settings());
        let mut ends = Vec::new();
        for (at_ms, body) in [(1, "one"), (1000, "one"), (2000, "two")] {
            let body = Some(body.to_owned());
            accept(&mut ledger, Request { body, ..request("+14155559016") }, at_ms).unwrap();
            ends.extend(story(&mut ledger).last().map(|(_, status, code)| (*status, *code)));
        }
        let failed = ("failed", Some(30022));
        assert_eq!(ends, [failed, ("delivered", None), failed]);
    }

    #[test]
    fn canceled_message_has_no_later_status() {
        let mut ledger = Ledger::new(&settings());
        let made = accept(&mut ledger, request(THEIRS), 1).unwrap();
        ledger.messages.get(&made.sid).unwrap().status = "canceled";
        assert_eq!(story(&mut ledger), []);
        let mut made: Vec<String> = Vec::new();
        for at_ms in 2..=6 {
            made.push(accept(&mut ledger, request(THEIRS), at_ms).unwrap().sid);
        }
        assert!(ledger.messages.get(&made[0]).is_none(), "the capacity is 4");
        assert_eq!(story(&mut ledger).len(), 4 * 2);
        // Nor does it accept a message that exceeds the capacity.
        let busy = (7..100).find_map(|at_ms| accept(&mut ledger, request(THEIRS), at_ms).err());
        assert_eq!(busy, Some(20429));
    }

    #[test]
    fn number_of_remembered_contacts_is_bounded() {
        let mut ledger = Ledger::new(&settings());
        let from = |n: i64, body: &str, at_ms: i64| Message {
            from: Some(format!("+1415555{n:04}")),
            ..inbound_message(body, "", at_ms)
        };
        for n in 0..4 {
            ledger.record_inbound(from(n, "STOP", 0)).unwrap();
        }
        assert!(ledger.record_inbound(from(4, "hello", 1)).is_err());
        assert!(
            ledger.record_inbound(from(3, "hello", 1)).is_ok(),
            "messages of a known contact are recorded"
        );
        assert!(
            ledger.record_inbound(from(5, "hello", WINDOW_MS + 1)).is_ok(),
            "their windows are over"
        );
        assert!(ledger.record_inbound(from(6, "STOP", WINDOW_MS + 2)).is_err(), "opt-outs stay");
    }
}
