//! Contents of the failure table.

use twilio_edge_contract::Delivery::{Accept, Forward};

use super::Class::{Message, Other, Status, Stop};
use super::{
    BackendReceipt, Class, Outage, OutboundBehaviour, Part, Policy, Recovery, Row, Signal, Storage,
    TwilioAnswer,
};
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
    answer: TwilioAnswer::Application,
    receipt: BackendReceipt::First,
    storage: Storage::Accepted,
    signals: &[Signal::envoy("twilio_edge_verdict{decision=\"proceed\"}")],
    recovery: Recovery::Unchanged,
};

/// Behaviour without an outage, accept delivery.
const ACCEPTED: Row = Row {
    classes: CLAIMED,
    delivery: Accept,
    policies: EITHER,
    answer: TwilioAnswer::Accepted,
    receipt: BackendReceipt::Event,
    storage: Storage::Delivered,
    signals: &[Signal::envoy("twilio_edge_verdict{decision=\"accepted\"}")],
    recovery: Recovery::Unchanged,
};

/// Webhooks that are never claimed, so only the application affects them.
const OTHERS: Row = Row {
    classes: &[Other],
    delivery: Forward,
    policies: FORWARDING,
    answer: TwilioAnswer::Application,
    receipt: BackendReceipt::Unknown,
    storage: Storage::Nowhere,
    signals: &[Signal::envoy("twilio_edge_verified")],
    recovery: Recovery::CopyForwarded,
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
    receipt: BackendReceipt::Unknown,
    storage: Storage::FilterMemory,
    signals: NO_VERDICT,
    recovery: Recovery::CommitStored,
    ..FORWARDED
};

/// No verdict, and the policy of the route is reject.
const UNDECIDED_REJECTED: Row = Row {
    policies: REJECTING,
    answer: TwilioAnswer::Refusal,
    receipt: BackendReceipt::Nothing,
    recovery: Recovery::CopyDelivered,
    ..UNDECIDED_FORWARDED
};

/// The sidecar answers that it cannot accept the webhook, and the policy of the route is forward.
const UNACCEPTED_FORWARDED: Row =
    Row { delivery: Accept, signals: UNAVAILABLE, ..UNDECIDED_FORWARDED };

/// The sidecar answers that it cannot accept the webhook, and the policy of the route is reject.
const UNACCEPTED_REJECTED: Row =
    Row { delivery: Accept, signals: UNAVAILABLE, ..UNDECIDED_REJECTED };

const SENT_MESSAGE: OutboundBehaviour = OutboundBehaviour {
    status: Some(202),
    is_sent: true,
    signals: &[Signal::sidecar("twilio_edge_message_attempts_total{outcome=\"sent\"}")],
};

/// The message cannot be accepted.
const REFUSED_MESSAGE: OutboundBehaviour =
    OutboundBehaviour { status: Some(503), is_sent: false, signals: &[] };

/// Every part that can be unavailable; the first entry is the behaviour without an outage.
pub const OUTAGES: &[Outage] = &[
    Outage {
        part: Part::None,
        title: "All parts are available",
        note: "The following tables show the differences from this one.",
        stores: &[SidecarPlan::Sqlite],
        sinks: &[Sink::App],
        rows: &[FORWARDED, ACCEPTED, OTHERS],
        outbound: SENT_MESSAGE,
    },
    Outage {
        part: Part::Application,
        title: "The application is unavailable",
        note: "The application is the backend of Envoy and a sink of the sidecar. Its port is closed, so connections are refused.",
        stores: &[SidecarPlan::Sqlite],
        sinks: &[Sink::App],
        rows: &[
            Row {
                answer: TwilioAnswer::EnvoyError,
                receipt: BackendReceipt::Nothing,
                storage: Storage::Refused,
                signals: &[Signal::envoy("twilio_edge_settlements{outcome=\"release\"}")],
                recovery: Recovery::CopyDelivered,
                ..FORWARDED
            },
            Row {
                receipt: BackendReceipt::Nothing,
                storage: Storage::PendingDelivery(Sink::App),
                signals: &[Signal::state("twilio_edge_sink_unavailable{sink=\"app\"}")],
                recovery: Recovery::DeliveryCompleted,
                ..ACCEPTED
            },
            Row {
                answer: TwilioAnswer::EnvoyError,
                receipt: BackendReceipt::Nothing,
                signals: &[Signal::envoy(
                    "envoy_cluster_upstream_cx_connect_fail{envoy_cluster_name=\"backend\"}",
                )],
                ..OTHERS
            },
        ],
        outbound: SENT_MESSAGE,
    },
    Outage {
        part: Part::Sidecar,
        title: "The sidecar is unavailable",
        note: "The sidecar was killed, so connections are refused. A sidecar that does not answer within `timeout_ms`, or answers something else, has the same effect.",
        stores: &[SidecarPlan::Sqlite],
        sinks: &[Sink::App],
        rows: &[
            UNDECIDED_FORWARDED,
            UNDECIDED_REJECTED,
            Row { delivery: Accept, ..UNDECIDED_FORWARDED },
            Row { delivery: Accept, ..UNDECIDED_REJECTED },
            OTHERS,
        ],
        outbound: OutboundBehaviour { status: None, ..REFUSED_MESSAGE },
    },
    Outage {
        part: Part::Redis,
        title: "Redis is unavailable",
        note: "The sidecar decides claims in SQL. In this test Redis is a sink too, so deliveries of accepted webhooks wait for it.",
        stores: &[SidecarPlan::Redis, SidecarPlan::RedisPostgres],
        sinks: &[Sink::App, Sink::Live],
        rows: &[
            Row {
                signals: &[
                    Signal::sidecar("twilio_edge_store_fallthroughs_total{store=\"redis\"}"),
                    Signal::state("twilio_edge_redis_state{state=\"unavailable\"}"),
                ],
                ..FORWARDED
            },
            Row {
                storage: Storage::PendingDelivery(Sink::Live),
                signals: &[
                    Signal::sidecar("twilio_edge_store_fallthroughs_total{store=\"redis\"}"),
                    Signal::state("twilio_edge_sink_unavailable{sink=\"live\"}"),
                ],
                recovery: Recovery::DeliveryCompleted,
                ..ACCEPTED
            },
            OTHERS,
        ],
        outbound: SENT_MESSAGE,
    },
    Outage {
        part: Part::Postgres,
        title: "PostgreSQL is unavailable",
        note: "With and without Redis, the sidecar decides no claim that it cannot store.",
        stores: &[SidecarPlan::Postgres, SidecarPlan::RedisPostgres],
        sinks: &[Sink::App],
        rows: &[
            Row { signals: UNAVAILABLE, ..UNDECIDED_FORWARDED },
            Row { signals: UNAVAILABLE, ..UNDECIDED_REJECTED },
            UNACCEPTED_FORWARDED,
            UNACCEPTED_REJECTED,
            OTHERS,
        ],
        outbound: REFUSED_MESSAGE,
    },
    Outage {
        part: Part::Sqlite,
        title: "SQLite cannot be written",
        note: "Another program holds the lock of the file, or its disk is full. Webhooks that must be durable before they are answered get no verdict; the spool stores the others.",
        stores: &[SidecarPlan::Sqlite],
        sinks: &[Sink::App],
        rows: &[
            Row {
                classes: &[Message, Status],
                storage: Storage::Spool,
                signals: &[Signal::amount("twilio_edge_event_queue_age_seconds")],
                recovery: Recovery::CommitStored,
                ..FORWARDED
            },
            Row { classes: &[Stop], signals: UNAVAILABLE, ..UNDECIDED_FORWARDED },
            Row { classes: &[Stop], signals: UNAVAILABLE, ..UNDECIDED_REJECTED },
            UNACCEPTED_FORWARDED,
            UNACCEPTED_REJECTED,
            OTHERS,
        ],
        outbound: REFUSED_MESSAGE,
    },
    Outage {
        part: Part::Kafka,
        title: "Kafka is unavailable",
        note: "Kafka is one of two sinks. An unavailable sink does not delay the other one.",
        stores: &[SidecarPlan::Sqlite],
        sinks: &[Sink::App, Sink::Bus],
        rows: &[
            FORWARDED,
            Row {
                storage: Storage::PendingDelivery(Sink::Bus),
                signals: &[Signal::state("twilio_edge_sink_unavailable{sink=\"bus\"}")],
                recovery: Recovery::DeliveryCompleted,
                ..ACCEPTED
            },
            OTHERS,
        ],
        outbound: SENT_MESSAGE,
    },
    Outage {
        part: Part::ObjectStore,
        title: "The object store is unavailable",
        note: "It is the store of the archive. Webhooks that are not archived stay in the ledger, even if retention would remove them.",
        stores: &[SidecarPlan::Sqlite],
        sinks: &[Sink::App],
        rows: &[
            Row {
                storage: Storage::AcceptedUnarchived,
                signals: UNARCHIVED,
                recovery: Recovery::Archived,
                ..FORWARDED
            },
            Row {
                storage: Storage::DeliveredUnarchived,
                signals: UNARCHIVED,
                recovery: Recovery::Archived,
                ..ACCEPTED
            },
            OTHERS,
        ],
        outbound: SENT_MESSAGE,
    },
    Outage {
        part: Part::Twilio,
        title: "Twilio's REST API is unavailable",
        note: "Webhooks do not need it: neither the filter nor the sidecar calls Twilio because of a webhook.",
        stores: &[SidecarPlan::Sqlite],
        sinks: &[Sink::App],
        rows: &[FORWARDED, ACCEPTED, OTHERS],
        outbound: OutboundBehaviour {
            is_sent: false,
            signals: &[
                Signal::sidecar("twilio_edge_message_attempts_total{outcome=\"retried\"}"),
                Signal::amount("twilio_edge_message_queue_age_seconds"),
            ],
            ..SENT_MESSAGE
        },
    },
];
