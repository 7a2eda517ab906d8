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
mod failure;
mod layout;
mod pages;
mod path;
mod security;
mod session;
mod viewer;

use std::sync::Arc;

use axum::{
    Router, middleware,
    response::Redirect,
    routing::{get, post},
};

pub use self::pages::phone::Simulator;
use self::{failure::Failure, viewer::Viewer};

/// Path of the console.
const ROOT: &str = "/console";

/// Parts of one listener's console. Copies share them.
#[derive(Clone)]
pub struct Console(Arc<Parts>);

struct Parts {
    application: Router,
    administration: Option<Router>,
    simulator: Option<Simulator>,
}

impl Console {
    /// Creates a console with the API of applications, without the pages of administrators.
    pub fn new(application: Router) -> Console {
        Console(Arc::new(Parts { application, administration: None, simulator: None }))
    }

    /// Adds the API of administrators.
    pub fn with_administration(self, administration: Router) -> Console {
        let Parts { application, simulator, .. } = &*self.0;
        let (application, simulator) = (application.clone(), simulator.clone());
        Console(Arc::new(Parts { application, administration: Some(administration), simulator }))
    }

    /// Adds the phone of a simulated contact.
    pub fn with_simulator(self, simulator: Simulator) -> Console {
        let Parts { application, administration, .. } = &*self.0;
        let (application, administration) = (application.clone(), administration.clone());
        Console(Arc::new(Parts { application, administration, simulator: Some(simulator) }))
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

    fn simulator(&self) -> Option<&Simulator> {
        self.0.simulator.as_ref()
    }
}

async fn not_found(_: Viewer) -> Failure {
    Failure::NoSuchPage
}
