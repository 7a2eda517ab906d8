//! Parts that several pages share: times, states, fields, lists.

use maud::{Markup, html};

use crate::path::query;

/// Renders a time of the API, to the second, in UTC. Its title has the milliseconds.
pub(crate) fn time(at: Option<&str>) -> Markup {
    let Some(at) = at else { return html! { span.none { "-" } } };
    let (day, rest) = at.split_once('T').unwrap_or((at, ""));
    let clock: String = rest.chars().take(8).collect();
    html! { time datetime=(at) title=(at) { (day) " " (clock) } }
}

/// Renders a sentence of the API, with names between backticks as code.
pub(crate) fn prose(sentence: &str) -> Markup {
    html! {
        @for (index, part) in sentence.split('`').enumerate() {
            @if index % 2 == 0 { (part) } @else { code { (part) } }
        }
    }
}

/// Renders a text, or a dash if there is none.
pub(crate) fn text(text: Option<&str>) -> Markup {
    match text.filter(|text| !text.is_empty()) {
        Some(text) => html! { (text) },
        None => html! { span.none { "-" } },
    }
}

/// Renders a state of a message, webhook or delivery, in the colour of its meaning.
pub(crate) fn state(state: &str) -> Markup {
    let class = match state {
        "delivered" | "read" | "received" | "accepted" | "done" | "ok" | "granted" | "open"
        | "approved" => "good",
        "failed" | "undelivered" | "refused" | "dead" | "unavailable" | "not_sent"
        | "withdrawn" | "suppressed" | "rejected" => "bad",
        "unknown" | "stale" | "waiting" | "queued" | "attempting" | "running" => "wait",
        _ => "plain",
    };
    html! { span class={ "badge " (class) } { (state.replace('_', " ")) } }
}

/// Renders names with their values.
pub(crate) fn facts<'a>(facts: impl IntoIterator<Item = (&'a str, Markup)>) -> Markup {
    html! {
        dl.facts {
            @for (name, value) in facts {
                div { dt { (name) } dd { (value) } }
            }
        }
    }
}

/// Renders a text with a button that copies it.
pub(crate) fn copyable(id: &str, label: &str, text: &str) -> Markup {
    html! {
        div.copyable {
            div.head {
                span { (label) }
                button.quiet type="button" data-copy=(id) hidden { "Copy" }
            }
            pre id=(id) tabindex="0" aria-label=(label) { (text) }
        }
    }
}

/// Renders a notice that an action succeeded.
pub(crate) fn success(text: &str) -> Markup {
    html! { div.notice.good role="status" { p { (text) } } }
}

/// Renders the sentence of an empty list.
pub(crate) fn empty(sentence: &str) -> Markup {
    html! { p.empty { (sentence) } }
}

/// Renders the link to the next page of a list; `parameters` are those of the list.
pub(crate) fn next_page(path: &str, parameters: &[(&str, &str)], cursor: Option<&str>) -> Markup {
    let Some(cursor) = cursor else { return Markup::default() };
    let all = parameters.iter().copied().filter(|(name, _)| *name != "cursor");
    let all = all.chain([("cursor", cursor)]).map(|(name, value)| (name, Some(value)));
    html! { p.next { a.button href=(query(path, all)) rel="next" { "Older entries" } } }
}

/// A field of a search form.
pub(crate) enum Field<'a> {
    /// Any text, with an example.
    Text { name: &'static str, label: &'static str, example: &'static str, value: &'a str },
    /// One of these values; the first option means all.
    Choice { name: &'static str, label: &'static str, options: &'a [&'a str], value: &'a str },
}

/// Renders a search form.
pub(crate) fn search(path: &str, fields: &[Field<'_>]) -> Markup {
    html! {
        form.search method="get" action=(path) role="search" {
            @for (index, field) in fields.iter().enumerate() {
                @match field {
                    Field::Text { name, label, example, value } => {
                        div {
                            label for={ "search-" (name) } { (label) }
                            input id={ "search-" (name) } name=(name) value=(value) placeholder=(example)
                                spellcheck="false" autocomplete="off" data-search[index == 0];
                        }
                    }
                    Field::Choice { name, label, options, value } => {
                        div {
                            label for={ "search-" (name) } { (label) }
                            select id={ "search-" (name) } name=(name) {
                                option value="" selected[value.is_empty()] { "all" }
                                @for option in *options {
                                    option value=(option) selected[option == value] { (option.replace('_', " ")) }
                                }
                            }
                        }
                    }
                }
            }
            button.primary type="submit" { "Search" }
            a.button href=(path) { "Clear" }
        }
    }
}

/// Renders a section that the script keeps up to date while its page is open.
pub(crate) fn live(id: &str, body: &Markup) -> Markup {
    html! { div id=(id) data-live { (body) } }
}

/// As [`live`], for a page that may be the answer to a form: the script fetches the section from this path.
pub(crate) fn live_from(path: &str, id: &str, body: &Markup) -> Markup {
    html! { div id=(id) data-live data-from=(path) { (body) } }
}

/// As [`live`], for a list that changes when the stream of this path reports a webhook. The script announces new entries, and lets
/// the viewer pause the list.
pub(crate) fn streamed(path: &str, id: &str, body: &Markup) -> Markup {
    html! {
        div.live-bar {
            button type="button" data-pause=(id) aria-pressed="false" hidden { "Pause" }
            span.small role="status" data-news=(id) {}
        }
        div id=(id) data-live data-stream=(path) { (body) }
    }
}

/// Returns a key that makes a form have one effect, however often it is sent.
pub(crate) fn form_key() -> String {
    let mut random = [0; 16];
    match getrandom::fill(&mut random) {
        Ok(()) => random.iter().map(|byte| format!("{byte:02x}")).collect(),
        Err(_) => String::new(),
    }
}
