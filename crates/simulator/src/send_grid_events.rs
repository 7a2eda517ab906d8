//! Events of SendGrid's Event Webhook about accepted e-mails: posted to one URL, signed as SendGrid signs them, and repeated
//! until the receiver answers 2xx.
//!
//! Source: twilio.com/docs/sendgrid/for-developers/tracking-events/event.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use p256::{
    ecdsa::{DerSignature, SigningKey, signature::Signer},
    pkcs8::EncodePublicKey,
};
use serde_json::{Map, Value, json};

use super::send_grid::name;
use crate::state::{Shared, fresh_sid, now_ms};

/// Private key of the simulator. It is public, so that a receiver can be configured before the simulator starts.
const KEY: [u8; 32] = *b"twilio-edge simulator, sendgrid.";

/// Number of repetitions of a failed post, and the pause before the first one, which doubles.
const REPETITIONS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(200);

/// Events of an e-mail, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    Delivered,
    Read,
    Bounced,
    Blocked,
    Dropped,
    Reported,
    Unsubscribed,
    Twice,
    Quiet,
}

/// Local part before a `+` or the `@`, events, and description.
pub(super) const COURSES: &[(&str, Course, &str)] = &[
    ("read", Course::Read, "202; events `processed`, `delivered`, `open`"),
    ("bounce", Course::Bounced, "202; events `processed`, `bounce`"),
    ("blocked", Course::Blocked, "202; events `processed`, `bounce` of type `blocked`"),
    ("drop", Course::Dropped, "202; event `dropped`, reason `Bounced Address`"),
    ("spam", Course::Reported, "202; events `processed`, `delivered`, `spamreport`"),
    ("leave", Course::Unsubscribed, "202; events `processed`, `delivered`, `unsubscribe`"),
    (
        "twice",
        Course::Twice,
        "202; every post of events comes twice, in the reverse order of the events",
    ),
    ("quiet", Course::Quiet, "202; no events"),
];

/// E-mail that the simulator accepted for one recipient.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) id: String,
    pub(super) to: String,
    pub(super) categories: Vec<String>,
    pub(super) arguments: BTreeMap<String, String>,
    pub(super) course: Course,
    pub(super) accepted_ms: i64,
}

impl Course {
    pub(super) fn of(address: &str) -> Course {
        let local = name(address).to_ascii_lowercase();
        let found = COURSES.iter().find(|(name, ..)| *name == local);
        found.map_or(Course::Delivered, |(_, course, _)| *course)
    }

    /// Returns the events, each with the fields that it has besides those of every event.
    fn events(self) -> Vec<(&'static str, Value)> {
        let processed = ("processed", json!({}));
        let delivered = ("delivered", json!({"response": "250 OK"}));
        let bounce = |kind: &str, reason: &str| {
            ("bounce", json!({"type": kind, "status": "5.1.1", "reason": reason}))
        };
        match self {
            Course::Delivered | Course::Twice => vec![processed, delivered],
            Course::Read => {
                let open = json!({"useragent": "Mozilla/5.0", "ip": "255.255.255.255", "sg_machine_open": false});
                vec![processed, delivered, ("open", open)]
            }
            Course::Bounced => {
                vec![processed, bounce("bounce", "550 5.1.1 The mailbox does not exist")]
            }
            Course::Blocked => vec![processed, bounce("blocked", "550 5.7.1 Refused by policy")],
            Course::Dropped => vec![("dropped", json!({"reason": "Bounced Address"}))],
            Course::Reported => vec![processed, delivered, ("spamreport", json!({}))],
            Course::Unsubscribed => vec![processed, delivered, ("unsubscribe", json!({}))],
            Course::Quiet => Vec::new(),
        }
    }
}

/// Returns the verification key, as SendGrid shows it.
pub(super) fn public_key() -> String {
    let der = key().and_then(|key| key.verifying_key().to_public_key_der().ok());
    der.map(|der| STANDARD.encode(der.as_bytes())).unwrap_or_default()
}

fn key() -> Option<SigningKey> {
    SigningKey::from_slice(&KEY).ok()
}

/// Returns the headers of a post: the signature, and the time of signing.
pub(super) fn sign(body: &[u8], now_ms: i64) -> Option<(String, String)> {
    let timestamp = now_ms.div_euclid(1000).to_string();
    let signed = [timestamp.as_bytes(), body].concat();
    let signature: DerSignature = key()?.try_sign(&signed).ok()?;
    Some((STANDARD.encode(signature.as_bytes()), timestamp))
}

/// Posts the events of an e-mail, one step apart.
pub(super) fn start(shared: &Arc<Shared>, sent: Sent) {
    let shared = Arc::clone(shared);
    if shared.emails().events_url.is_none() {
        return;
    }
    tokio::spawn(async move {
        let settings = &shared.settings;
        let step = Duration::from_millis(u64::from(settings.step_ms)) / settings.speed.max(1);
        let mut bodies: Vec<String> =
            sent.course.events().into_iter().map(|event| body(&sent, event)).collect();
        if sent.course == Course::Twice {
            bodies.reverse();
            bodies = bodies.into_iter().flat_map(|body| [body.clone(), body]).collect();
        }
        for body in bodies {
            tokio::time::sleep(step).await;
            post(&shared, &body).await;
        }
    });
}

/// Renders a post with one event. SendGrid ends a body with a line break, and signs it.
fn body(sent: &Sent, (event, fields): (&str, Value)) -> String {
    let now_s = now_ms().div_euclid(1000);
    let mut all = Map::new();
    all.insert("email".to_owned(), json!(sent.to));
    all.insert("timestamp".to_owned(), json!(now_s));
    all.insert("smtp-id".to_owned(), json!(format!("<{}@geopod-ismtpd-0>", sent.id)));
    all.insert("event".to_owned(), json!(event));
    all.insert("category".to_owned(), json!(sent.categories));
    all.insert("sg_event_id".to_owned(), json!(fresh_sid("")));
    let machine = format!("{}.recvd-canary-7c9d8b6f5-x2z4q-1-{:X}-0.0", sent.id, sent.accepted_ms);
    all.insert("sg_message_id".to_owned(), json!(machine));
    all.extend(sent.arguments.iter().map(|(name, value)| (name.clone(), json!(value))));
    all.extend(fields.as_object().cloned().unwrap_or_default());
    format!("{}\r\n", json!([all]))
}

async fn post(shared: &Shared, body: &str) {
    let mut pause = PAUSE;
    for _ in 0..=REPETITIONS {
        // A repetition goes to the URL of that time, as at SendGrid.
        let Some(url) = shared.emails().events_url.clone() else { return };
        let Some((signature, timestamp)) = sign(body.as_bytes(), now_ms()) else { return };
        let request = shared
            .client
            .post(url)
            .timeout(Duration::from_secs(10))
            .header("Content-Type", "application/json")
            .header("X-Twilio-Email-Event-Webhook-Signature", signature)
            .header("X-Twilio-Email-Event-Webhook-Timestamp", timestamp)
            .body(body.to_owned());
        let status = request.send().await.map_or(0, |answer| answer.status().as_u16());
        shared.count("email event", status);
        if (200..300).contains(&status) {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2);
    }
}

#[cfg(test)]
mod tests {
    use twilio_edge_domain::email::{event::read_events, signature::EventKey};

    use super::*;

    #[test]
    fn events_are_signed_with_the_shown_key() {
        let arguments = BTreeMap::from([("twilio_edge_message_id".to_owned(), "ms_1".to_owned())]);
        let sent = Sent {
            id: "0011".into(),
            to: "bounce@example.com".into(),
            categories: Vec::new(),
            arguments,
            course: Course::of("Bounce+1@example.com"),
            accepted_ms: 1,
        };
        assert_eq!(sent.course, Course::Bounced);
        let last = sent.course.events().pop().unwrap();
        let body = body(&sent, last);
        let (signature, timestamp) = sign(body.as_bytes(), now_ms()).unwrap();
        let key = EventKey::parse(&public_key()).unwrap();
        assert_eq!(key.verify(&signature, &timestamp, body.as_bytes(), now_ms()), Ok(()));
        let events = read_events(body.as_bytes()).unwrap();
        assert_eq!(events[0].message_id.as_deref(), Some("ms_1"));
        assert_eq!(events[0].provider_id.as_deref(), Some("0011"));
    }
}
