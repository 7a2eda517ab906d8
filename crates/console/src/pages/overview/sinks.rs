//! Sinks on the overview: their backlogs and their health, for viewers who may see them.

use maud::{Markup, html};

use crate::{
    components::{state, time},
    failure::Failure,
    pages::deliveries::{self, Sink},
    path::query,
    viewer::Viewer,
};

/// Fetches the sinks; none for a viewer who is no administrator.
pub(super) async fn fetch(viewer: &Viewer) -> Result<Vec<Sink>, Failure> {
    match viewer.is_administrator() {
        true => deliveries::sinks(viewer).await,
        false => Ok(Vec::new()),
    }
}

/// Renders the backlog of each sink.
pub(super) fn queues(sinks: &[Sink]) -> Markup {
    html! {
        @if !sinks.is_empty() {
            div.cards.more {
                @for sink in sinks {
                    div.panel {
                        div.number { (sink.waiting) }
                        "deliveries wait for sink " (sink.name)
                        @if sink.oldest_waiting_at.is_some() { ", the oldest since " (time(sink.oldest_waiting_at.as_deref())) " UTC" }
                        @if sink.dead_letters > 0 {
                            p { a href=(query("/console/deliveries", [("sink", Some(sink.name.as_str()))])) { (sink.dead_letters) " dead letters" } }
                        }
                    }
                }
            }
        }
    }
}

/// Renders the health of each sink.
pub(super) fn dependencies(sinks: &[Sink]) -> Markup {
    html! {
        @for sink in sinks {
            div.panel { "Sink " (sink.name) " " (state(if sink.available { "ok" } else { "unavailable" })) }
        }
    }
}
