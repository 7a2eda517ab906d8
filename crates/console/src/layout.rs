//! Frame of every page: head, navigation, main part.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{assets, pages, viewer::Viewer};

impl Viewer {
    /// Renders a page of the viewer.
    pub(crate) fn page(&self, title: &str, body: &Markup) -> Markup {
        let is_current = |path: &str| match path {
            crate::ROOT => self.here.split('?').next() == Some(path),
            path => self.here.starts_with(path),
        };
        let header = html! {
            header.top {
                a.brand href=(crate::ROOT) { (logo()) "twilio-edge" }
                div.who {
                    @if self.key.account_sid.is_none() { (self.account_form()) }
                    span.key title="API key of this session" { (self.key.name) " " span.badge { (self.key.scope) } }
                    form method="post" action="/console/sign-out" { button.quiet type="submit" { "Sign out" } }
                }
            }
            nav.pages aria-label="Pages" {
                ul {
                    @for page in pages::of(self) {
                        li { a href=(page.path) aria-current=[is_current(page.path).then_some("page")] { (page.title) } }
                    }
                }
            }
        };
        document(title, &header, body)
    }

    fn account_form(&self) -> Markup {
        html! {
            form.account method="post" action="/console/account" {
                input type="hidden" name="next" value=(self.here);
                label for="account" { "Account" }
                input #account name="account" value=(self.account.as_deref().unwrap_or_default())
                    placeholder="AC.., or empty" pattern="AC[0-9a-f]{32}" size="36" spellcheck="false";
                button type="submit" { "Show" }
            }
        }
    }
}

/// Renders a page for a browser that is not signed in, or whose viewer is unknown.
pub(crate) fn without_viewer(title: &str, body: &Markup) -> Markup {
    let header = html! {
        header.top { a.brand href=(crate::ROOT) { (logo()) "twilio-edge" } }
    };
    document(title, &header, body)
}

fn document(title: &str, header: &Markup, body: &Markup) -> Markup {
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

fn logo() -> Markup {
    PreEscaped(include_str!("../assets/logo.svg").to_owned())
}
