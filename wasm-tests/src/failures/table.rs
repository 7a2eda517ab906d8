//! Contents of the failure table.

use twilio_edge_contract::Delivery::{Accept, Forward};

use super::Class::{Message, Other, Status, Stop};
use super::{Class, Gets, Heals, Kept, Outage, Part, Policy, Row, Sending, Signal, Told};
use crate::dependencies::Sink;
use crate::stack::SidecarPlan;

const CLAIMED: &[Class] = &[Message, Stop, Status];
const EITHER: &[Policy] = &[Policy::Forward, Policy::Reject];
const FORWARDING: &[Policy] = &[Policy::Forward];
const REJECTING: &[Policy] = &[Policy::Reject];

/// Behaviour without an outage, forward delivery.
const FORWARDED: Row = Row {
    classes: CLAIMED,
    delivery: Forward,
    policies: EITHER,
    told: Told::Answer,
    gets: Gets::First,
    kept: Kept::Taken,
    seen: &[Signal::envoy("twilio_edge_verdict{decision=\"proceed\"}")],
    heals: Heals::Known,
};

/// Behaviour without an outage, accept delivery.
const ACCEPTED: Row = Row {
    classes: CLAIMED,
    delivery: Accept,
    policies: EITHER,
    told: Told::Thanks,
    gets: Gets::Event,
    kept: Kept::Delivered,
    seen: &[Signal::envoy("twilio_edge_verdict{decision=\"accepted\"}")],
    heals: Heals::Known,
};

/// Webhooks that are never claimed, so only the application affects them.
const OTHERS: Row = Row {
    classes: &[Other],
    delivery: Forward,
    policies: FORWARDING,
    told: Told::Answer,
    gets: Gets::Unknown,
    kept: Kept::Nowhere,
    seen: &[Signal::envoy("twilio_edge_verified")],
    heals: Heals::Forwarded,
};

const NO_VERDICT: &[Signal] = &[Signal::envoy("twilio_edge_verdict{decision=\"none\"}")];
const UNAVAILABLE: &[Signal] = &[
    Signal::envoy("twilio_edge_verdict{decision=\"none\"}"),
    Signal::envoy("twilio_edge_verdict{decision=\"unavailable\"}"),
];

const UNARCHIVED: &[Signal] = &[
    Signal::amount("twilio_edge_archive_oldest_age_seconds"),
    Signal::amount("twilio_edge_archive_failures_total"),
];

/// No verdict, and the policy of the route is forward.
const UNDECIDED_FORWARDED: Row = Row {
    policies: FORWARDING,
    gets: Gets::Unknown,
    kept: Kept::Outcome,
    seen: NO_VERDICT,
    heals: Heals::Taken,
    ..FORWARDED
};

/// No verdict, and the policy of the route is reject.
const UNDECIDED_REJECTED: Row = Row {
    policies: REJECTING,
    told: Told::Refusal,
    gets: Gets::Nothing,
    heals: Heals::Again,
    ..UNDECIDED_FORWARDED
};

/// The sidecar answers that it cannot accept the webhook, and the policy of the route is forward.
const UNACCEPTED_FORWARDED: Row =
    Row { delivery: Accept, seen: UNAVAILABLE, ..UNDECIDED_FORWARDED };

/// The sidecar answers that it cannot accept the webhook, and the policy of the route is reject.
const UNACCEPTED_REJECTED: Row = Row { delivery: Accept, seen: UNAVAILABLE, ..UNDECIDED_REJECTED };

const SENT: Sending = Sending {
    told: Some(202),
    sent: true,
    seen: &[Signal::sidecar("twilio_edge_sends_total{outcome=\"sent\"}")],
};

/// The message cannot be accepted.
const UNTAKEN: Sending = Sending { told: Some(503), sent: false, seen: &[] };

/// Every part that can be unavailable; the first entry is the behaviour without an outage.
pub const OUTAGES: &[Outage] = &[
    Outage {
        part: Part::Nothing,
        title: "Nothing is away",
        note: "What the tables below are compared with.",
        stores: &[SidecarPlan::Sqlite],
        sinks: &[Sink::App],
        rows: &[FORWARDED, ACCEPTED, OTHERS],
        sending: SENT,
    },
    Outage {
        part: Part::Application,
        title: "The application is away",
        note: "It is behind Envoy, and a sink as well. Nobody listens: a connection is refused.",
        stores: &[SidecarPlan::Sqlite],
        sinks: &[Sink::App],
        rows: &[
            Row {
                told: Told::NobodyThere,
                gets: Gets::Nothing,
                kept: Kept::Refused,
                seen: &[Signal::envoy("twilio_edge_settled{outcome=\"release\"}")],
                heals: Heals::Again,
                ..FORWARDED
            },
            Row {
                gets: Gets::Nothing,
                kept: Kept::Owed(Sink::App),
                seen: &[Signal::state("twilio_edge_sink_unavailable{sink=\"app\"}")],
                heals: Heals::Delivered,
                ..ACCEPTED
            },
            Row {
                told: Told::NobodyThere,
                gets: Gets::Nothing,
                seen: &[Signal::envoy(
                    "envoy_cluster_upstream_cx_connect_fail{envoy_cluster_name=\"backend\"}",
                )],
                ..OTHERS
            },
        ],
        sending: SENT,
    },
    Outage {
        part: Part::Sidecar,
        title: "The sidecar is away",
        note: "It was killed: connections are refused. One that hangs or talks nonsense is away as well, after `timeout_ms`.",
        stores: &[SidecarPlan::Sqlite],
        sinks: &[Sink::App],
        rows: &[
            UNDECIDED_FORWARDED,
            UNDECIDED_REJECTED,
            Row { delivery: Accept, ..UNDECIDED_FORWARDED },
            Row { delivery: Accept, ..UNDECIDED_REJECTED },
            OTHERS,
        ],
        sending: Sending { told: None, ..UNTAKEN },
    },
    Outage {
        part: Part::Redis,
        title: "Redis is away",
        note: "Claims are decided in SQL. It is a sink here as well, so that what is accepted waits for it.",
        stores: &[SidecarPlan::Redis, SidecarPlan::RedisPostgres],
        sinks: &[Sink::App, Sink::Live],
        rows: &[
            Row {
                seen: &[
                    Signal::sidecar("twilio_edge_store_fallthroughs_total{store=\"redis\"}"),
                    Signal::state("twilio_edge_redis_state{state=\"away\"}"),
                ],
                ..FORWARDED
            },
            Row {
                kept: Kept::Owed(Sink::Live),
                seen: &[
                    Signal::sidecar("twilio_edge_store_fallthroughs_total{store=\"redis\"}"),
                    Signal::state("twilio_edge_sink_unavailable{sink=\"live\"}"),
                ],
                heals: Heals::Delivered,
                ..ACCEPTED
            },
            OTHERS,
        ],
        sending: SENT,
    },
    Outage {
        part: Part::Postgres,
        title: "PostgreSQL is away",
        note: "With Redis or without: nothing is decided that could not be written down.",
        stores: &[SidecarPlan::Postgres, SidecarPlan::RedisPostgres],
        sinks: &[Sink::App],
        rows: &[
            Row { seen: UNAVAILABLE, ..UNDECIDED_FORWARDED },
            Row { seen: UNAVAILABLE, ..UNDECIDED_REJECTED },
            UNACCEPTED_FORWARDED,
            UNACCEPTED_REJECTED,
            OTHERS,
        ],
        sending: UNTAKEN,
    },
    Outage {
        part: Part::Sqlite,
        title: "SQLite cannot be written",
        note: "It is a file and cannot go away; another program holds its lock, or its disk is full. What has to be durable before its answer waits; the rest is in the spool.",
        stores: &[SidecarPlan::Sqlite],
        sinks: &[Sink::App],
        rows: &[
            Row {
                classes: &[Message, Status],
                kept: Kept::Spooled,
                seen: &[Signal::amount("twilio_edge_event_queue_age_seconds")],
                heals: Heals::Taken,
                ..FORWARDED
            },
            Row { classes: &[Stop], seen: UNAVAILABLE, ..UNDECIDED_FORWARDED },
            Row { classes: &[Stop], seen: UNAVAILABLE, ..UNDECIDED_REJECTED },
            UNACCEPTED_FORWARDED,
            UNACCEPTED_REJECTED,
            OTHERS,
        ],
        sending: UNTAKEN,
    },
    Outage {
        part: Part::Kafka,
        title: "Kafka is away",
        note: "It is one sink of two. One that is away keeps no other waiting.",
        stores: &[SidecarPlan::Sqlite],
        sinks: &[Sink::App, Sink::Bus],
        rows: &[
            FORWARDED,
            Row {
                kept: Kept::Owed(Sink::Bus),
                seen: &[Signal::state("twilio_edge_sink_unavailable{sink=\"bus\"}")],
                heals: Heals::Delivered,
                ..ACCEPTED
            },
            OTHERS,
        ],
        sending: SENT,
    },
    Outage {
        part: Part::ObjectStore,
        title: "The object store is away",
        note: "The archive's. What is owed to the archive stays in the ledger, whatever retention says.",
        stores: &[SidecarPlan::Sqlite],
        sinks: &[Sink::App],
        rows: &[
            Row {
                kept: Kept::TakenUnarchived,
                seen: UNARCHIVED,
                heals: Heals::Archived,
                ..FORWARDED
            },
            Row {
                kept: Kept::DeliveredUnarchived,
                seen: UNARCHIVED,
                heals: Heals::Archived,
                ..ACCEPTED
            },
            OTHERS,
        ],
        sending: SENT,
    },
    Outage {
        part: Part::Twilio,
        title: "Twilio's REST is away",
        note: "No webhook needs it: whoever hears Twilio asks nothing of it.",
        stores: &[SidecarPlan::Sqlite],
        sinks: &[Sink::App],
        rows: &[FORWARDED, ACCEPTED, OTHERS],
        sending: Sending {
            sent: false,
            seen: &[
                Signal::sidecar("twilio_edge_sends_total{outcome=\"retried\"}"),
                Signal::amount("twilio_edge_send_queue_age_seconds"),
            ],
            ..SENT
        },
    },
];
