//! Plan of a run, derived from its seed: the webhooks and their copies, and the faults with their times and
//! durations. Pure. The scheduling of the kernel is not part of it.

use twilio_edge_contract::{Class, Identity};
use twilio_edge_wasm_tests::audit::Delivery;
use twilio_edge_wasm_tests::webhook::{ACCOUNT, Form, INBOUND, STATUS, fresh_phone};

/// Routes beside the shipped ones, which are accepted: these are forwarded.
pub(crate) const FORWARDED_INBOUND: &str = "/forwarded/inbound";
pub(crate) const FORWARDED_STATUS: &str = "/forwarded/status";

/// Longest time for which anything is stopped.
pub(crate) const LONGEST_PAUSE_MS: u64 = 2500;
const LONGEST_ABSENCE_MS: u64 = 1500;

/// A small generator.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// Less than `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33) % limit.max(1)
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or_default()
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }
}

/// Part that can have a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Edge,
    FirstSidecar,
    SecondSidecar,
    /// The Redis of leases.
    Leases,
    Postgres,
    /// The sink that is an application.
    Application,
    /// The sink that is a Kafka cluster.
    Broker,
    /// The sink that is a Redis.
    Streams,
    /// The application behind Envoy.
    Backend,
}

impl Part {
    pub(crate) const ALL: [Part; 9] = [
        Part::Edge,
        Part::FirstSidecar,
        Part::SecondSidecar,
        Part::Leases,
        Part::Postgres,
        Part::Application,
        Part::Broker,
        Part::Streams,
        Part::Backend,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Part::Edge => "envoy",
            Part::FirstSidecar => "sidecar 1",
            Part::SecondSidecar => "sidecar 2",
            Part::Leases => "redis (leases)",
            Part::Postgres => "postgres",
            Part::Application => "application",
            Part::Broker => "kafka broker",
            Part::Streams => "redis (streams)",
            Part::Backend => "backend",
        }
    }
}

/// Kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Harm {
    /// `kill -9`, and after a while it is started again.
    Killed,
    /// SIGSTOP, and after a while SIGCONT.
    Paused,
    /// Its connections are broken, and for a while there are no new ones.
    Cut,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disaster {
    /// Number of jobs after which the fault occurs.
    pub(crate) after: usize,
    pub(crate) part: Part,
    pub(crate) harm: Harm,
    pub(crate) for_ms: u64,
}

/// So many kills, half as many pauses, and cuts of the line to the broker; between the first and the last job, one after
/// the other and also at once.
pub(crate) fn disasters(chance: &mut Chance, jobs: usize, kills: usize) -> Vec<Disaster> {
    // The broker has no durable storage; the faults concern the sidecars.
    let killable = [
        Part::Edge,
        Part::FirstSidecar,
        Part::FirstSidecar,
        Part::SecondSidecar,
        Part::SecondSidecar,
        Part::Leases,
        Part::Postgres,
        Part::Application,
        Part::Streams,
        Part::Backend,
    ];
    let mut planned = Vec::new();
    let mut plan = |chance: &mut Chance, part, harm, longest| {
        let after = jobs / 50 + chance.index(jobs * 9 / 10);
        planned.push(Disaster { after, part, harm, for_ms: 20 + chance.below(longest) });
    };
    for _ in 0..kills {
        let part = chance.one_of(&killable);
        plan(chance, part, Harm::Killed, LONGEST_ABSENCE_MS);
    }
    for _ in 0..kills.div_ceil(2) {
        let part = chance.one_of(&Part::ALL);
        plan(chance, part, Harm::Paused, LONGEST_PAUSE_MS);
    }
    for _ in 0..kills.div_ceil(6) {
        plan(chance, Part::Broker, Harm::Cut, LONGEST_ABSENCE_MS);
    }
    planned.sort_by_key(|disaster| disaster.after);
    planned
}

/// A webhook that is to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) form: Form,
    pub(crate) key: String,
    pub(crate) number: String,
    pub(crate) text: String,
    pub(crate) delivery: Delivery,
}

/// Mix of a hundred webhooks: 70 are for accept routes and 30 for forward routes, half of them statuses; each number has about 25.
pub(crate) fn webhooks(chance: &mut Chance, count: usize) -> Vec<Planned> {
    let numbers: Vec<String> = (0..(count / 25).max(4)).map(|_| fresh_phone()).collect();
    let planned = (0..count).map(|n| {
        let number = numbers[chance.index(numbers.len())].clone();
        let is_message = chance.below(2) == 0;
        let (target, delivery) = match (chance.below(100) < 70, is_message) {
            (true, true) => (INBOUND, Delivery::Accept),
            (true, false) => (STATUS, Delivery::Accept),
            (false, true) => (FORWARDED_INBOUND, Delivery::Forward { without_verdict: true }),
            (false, false) => (FORWARDED_STATUS, Delivery::Forward { without_verdict: false }),
        };
        let (form, text) = if is_message {
            let text = format!("message {n}");
            (Form::inbound(&text).set("From", &number), text)
        } else {
            let status = chance.one_of(&["sent", "delivered", "read"]);
            (Form::status(status).set("To", &number), status.to_owned())
        };
        let form = form.to(target);
        let identity = Identity {
            class: if is_message { Class::Inbound } else { Class::Status },
            account_sid: ACCOUNT.to_owned(),
            message_sid: form.get("MessageSid").to_owned(),
            status: (!is_message).then(|| text.clone()),
            error_code: None,
        };
        Planned { key: identity.dedupe_key(), number, text, delivery, form }
    });
    planned.collect()
}

/// In which order webhooks are sent, by their indices: each once, of a hundred 12 again at the same time, and 8 once more
/// when others have come between.
pub(crate) fn jobs(chance: &mut Chance, count: usize) -> Vec<usize> {
    let mut placed: Vec<(usize, usize)> = Vec::new();
    for n in 0..count {
        placed.push((n, n));
        match chance.below(100) {
            0..12 => placed.push((n, n)),
            12..20 => placed.push((n + 30 + chance.index(count / 3), n)),
            _ => {}
        }
    }
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, webhook)| webhook).collect()
}
