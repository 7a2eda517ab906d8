//! The console: pages for operators and developers, rendered on the server. A page shows what the JSON API answers to the
//! viewer's own key, and an action is a request to that API.
//!
//! ```text
//! browser -> security.rs -> session.rs, pages/*.rs -> client.rs -> the API's router, in the same process
//! ```
//!
//! Architecture invariant: has no rights, no rules and no data of its own. It reaches the service through the JSON API alone,
//! and so depends on none of its crates above `platform`.

mod action;
mod assets;
mod chart;
mod client;
mod components;
mod console;
mod failure;
mod frame;
mod layout;
mod pages;
mod path;
mod security;
mod session;
mod simulator;
mod viewer;

use std::sync::Arc;

use axum::{
    Router, middleware,
    response::Redirect,
    routing::{get, post},
};

pub use self::{console::Console, simulator::Simulator};
use self::{console::Parts, failure::Failure, path::ROOT, viewer::Viewer};

impl Console {
    /// Creates a console with the API of applications, without the pages of administrators.
    pub fn new(application: Router) -> Console {
        let pages = pages::ALL;
        Console(Arc::new(Parts { application, administration: None, simulator: None, pages }))
    }

    /// Adds the API of administrators.
    pub fn with_administration(self, administration: Router) -> Console {
        let Parts { application, simulator, pages, .. } = &*self.0;
        let (application, simulator) = (application.clone(), simulator.clone());
        let administration = Some(administration);
        Console(Arc::new(Parts { application, administration, simulator, pages }))
    }

    /// Adds the phone of a simulated contact.
    pub fn with_simulator(self, simulator: Simulator) -> Console {
        let Parts { application, administration, pages, .. } = &*self.0;
        let (application, administration) = (application.clone(), administration.clone());
        let simulator = Some(simulator);
        Console(Arc::new(Parts { application, administration, simulator, pages }))
    }

    /// Returns the routes of the console, and a redirect from `/` to it.
    pub fn router(self) -> Router {
        let pages = pages::router()
            .route("/sign-in", get(session::show).post(session::sign_in))
            .route("/sign-out", post(session::sign_out))
            .route("/account", post(viewer::choose_account))
            .fallback(not_found)
            .merge(assets::router())
            .layer(middleware::from_fn(security::refuse_other_sites))
            .layer(middleware::from_fn(security::add_headers));
        let to_console = get(async || Redirect::to(ROOT));
        Router::new().route("/", to_console).nest(ROOT, pages).with_state(self)
    }
}

async fn not_found(_: Viewer) -> Failure {
    Failure::NoSuchPage
}
