//! Pages of the console. A page is one module with a constant `PAGE`, and one line of [`ALL`].

mod accounts;
mod audit;
mod contacts;
mod deliveries;
mod messages;
mod notifications;
mod overview;
mod phone;
mod refusals;
mod settings;
mod templates;
mod webhooks;

use axum::Router;

use crate::console::{Console, Page};

/// Pages in the order of the navigation.
pub(crate) static ALL: &[Page] = &[
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

/// Returns the routes of all pages.
pub(crate) fn router() -> Router<Console> {
    ALL.iter().fold(Router::new(), |router, page| router.merge((page.routes)()))
}
