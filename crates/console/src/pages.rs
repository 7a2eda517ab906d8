//! Pages of the console. A page is one module with a constant `PAGE`, and one line of [`PAGES`].

mod accounts;
mod audit;
mod contacts;
mod deliveries;
mod messages;
mod notifications;
mod overview;
pub(crate) mod phone;
mod refusals;
mod settings;
mod templates;
mod webhooks;

use axum::Router;

use crate::{Console, client::Api, viewer::Viewer};

/// Pages in the order of the navigation.
const PAGES: [Page; 12] = [
    overview::PAGE,
    phone::PAGE,
    webhooks::PAGE,
    refusals::PAGE,
    messages::PAGE,
    notifications::PAGE,
    contacts::PAGE,
    templates::PAGE,
    deliveries::PAGE,
    accounts::PAGE,
    audit::PAGE,
    settings::PAGE,
];

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

/// Returns the routes of all pages.
pub(crate) fn router() -> Router<Console> {
    PAGES.iter().fold(Router::new(), |router, page| router.merge((page.routes)()))
}

/// Returns the pages that a viewer can use.
pub(crate) fn of(viewer: &Viewer) -> impl Iterator<Item = &'static Page> {
    static ALL: [Page; PAGES.len()] = PAGES;
    let is_administrator = viewer.is_administrator();
    let has_simulator = viewer.console.simulator().is_some();
    ALL.iter().filter(move |page| {
        (page.api == Api::Application || is_administrator)
            && (!page.needs_simulator || has_simulator)
    })
}
