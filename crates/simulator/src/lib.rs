//! Simulator of Twilio on this machine, to develop and test without sending real messages: REST for messages, media and
//! content, SendGrid's API of e-mails, message statuses on a clock, signed webhooks, and faults on demand (docs/SIMULATOR.md).
//!
//! ```text
//! rest.rs, resources.rs ->  answer.rs, request.rs, faults.rs, content.rs, listing.rs, limit.rs  ->  messages.rs
//!                                                    requests and stored resources       pure, except rest.rs
//! send_grid.rs ->  send_grid_events.rs               e-mails, and SendGrid's signed events
//! verify.rs  ->  verifications.rs                   one-time passwords of Twilio Verify  pure, except verify.rs
//! studio.rs  ->  executions.rs                      executions of Studio flows           pure, except studio.rs
//! control.rs  ->  ledger.rs   ->  journey.rs         statuses of a message, with times   pure
//! delivery.rs ->  webhook.rs, post.rs                status callbacks, as Twilio sends them
//! inbound.rs  ->  webhook.rs, post.rs, twiml.rs      inbound messages, and the TwiML in the answers
//! ```
//!
//! Architecture invariant: shares no code with the service but its listener and its plain decisions, so that it can judge the service.

mod answer;
mod content;
mod control;
mod delivery;
mod executions;
mod faults;
mod inbound;
mod journey;
mod ledger;
mod limit;
mod line;
mod listing;
mod messages;
mod post;
mod refusal;
mod request;
mod resources;
mod rest;
mod samples;
mod send_grid;
mod send_grid_events;
mod state;
mod studio;
mod twiml;
mod verifications;
mod verify;
pub mod webhook;

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;

pub use self::content::{Content, usual as usual_catalogue};
use self::executions::Executions;
pub use self::faults::reference;
use self::ledger::Ledger;
use self::limit::Limit;
pub use self::send_grid::reference as email_reference;
pub use self::state::{Account, Settings};
use self::state::{Emails, Shared};
use self::verifications::Verifications;
pub use self::verifications::reference as verify_reference;
use twilio_edge_platform::{
    listener,
    listener::admission::{Admission, Limits},
    metrics::Metrics,
};

/// Time limit for running answers after the stop signal.
const GRACE: Duration = Duration::from_secs(2);

/// Serves `listener` until `stop`, and advances the messages.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let client = post::client(Duration::from_secs(5)).map_err(io::Error::other)?;
    let ledger = Mutex::new(Ledger::new(&settings));
    let limit = Mutex::new(Limit::new(settings.requests_per_second));
    let catalogue = Mutex::new(settings.catalogue.clone());
    let emails = Mutex::new(Emails::new(settings.email_events_url.clone()));
    let Settings { capacity, step_ms, speed, .. } = settings;
    let executions = Mutex::new(Executions::new(capacity));
    let verifications = Mutex::new(Verifications::new(capacity, step_ms, speed));
    let shared = Arc::new(Shared {
        settings,
        catalogue,
        verifications,
        executions,
        ledger,
        limit,
        planned: Notify::new(),
        client,
        counts: Mutex::default(),
        emails,
    });
    let router = rest::router()
        .merge(control::router())
        .merge(send_grid::router())
        .with_state(Arc::clone(&shared));
    let stopping = Arc::new(Notify::new());
    let notify = Arc::clone(&stopping);
    let admission = Admission::new(Limits::local(), Metrics::default().listeners.listener("main"));
    let stopped = async move { notify.notified().await };
    let served = listener::server::serve(line::Lines(listener), router, admission, stopped);
    let ending = async {
        stop.await;
        stopping.notify_one();
        // A request whose answer the simulator withholds would never end.
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = served => Ok(()),
        () = ending => Ok(()),
        () = delivery::run(&shared) => Ok(()),
    }
}
