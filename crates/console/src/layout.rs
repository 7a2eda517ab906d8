//! HTML document of every page: head, header, main part.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{assets, path::ROOT};

/// Renders a page for a browser that is not signed in, or whose viewer is unknown.
pub(crate) fn without_viewer(title: &str, body: &Markup) -> Markup {
    let header = html! {
        header.top { a.brand href=(ROOT) { (logo()) "twilio-edge" } }
    };
    document(title, &header, body)
}

/// Renders a document with a header and a main part.
pub(crate) fn document(title: &str, header: &Markup, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " - twilio-edge" }
                link rel="icon" href=(assets::ICON.path()) type="image/svg+xml";
                link rel="stylesheet" href=(assets::STYLE.path());
                script src=(assets::SCRIPT.path()) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                (header)
                main #main tabindex="-1" {
                    h1 { (title) }
                    (body)
                }
            }
        }
    }
}

/// Renders the mark of the product.
pub(crate) fn logo() -> Markup {
    PreEscaped(include_str!("../assets/logo.svg").to_owned())
}
