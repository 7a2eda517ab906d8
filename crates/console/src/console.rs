//! Parts of one listener's console, and the form of its pages.

use std::sync::Arc;

use axum::Router;

use crate::{client::Api, simulator::Simulator};

/// Parts of one listener's console. Copies share them.
#[derive(Clone)]
pub struct Console(pub(crate) Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) application: Router,
    pub(crate) administration: Option<Router>,
    pub(crate) simulator: Option<Simulator>,
    /// Pages in the order of the navigation.
    pub(crate) pages: &'static [Page],
}

/// A page, with the pages below it.
pub(crate) struct Page {
    /// Path of the page; pages below it begin with it.
    pub(crate) path: &'static str,
    /// Name in the navigation.
    pub(crate) title: &'static str,
    /// API that the page needs.
    pub(crate) api: Api,
    /// True if the page needs the simulator of Twilio.
    pub(crate) needs_simulator: bool,
    /// Routes, relative to `/console`.
    pub(crate) routes: fn() -> Router<Console>,
}

impl Console {
    /// Returns the simulator of Twilio, if the service runs against it.
    pub(crate) fn simulator(&self) -> Option<&Simulator> {
        self.0.simulator.as_ref()
    }
}
