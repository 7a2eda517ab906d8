//! Frame of a viewer's pages: the name of the key, the account, the navigation.

use maud::{Markup, html};

use crate::{
    client::Api,
    console::Page,
    layout::{document, logo},
    path::ROOT,
    viewer::Viewer,
};

impl Viewer {
    /// Renders a page of the viewer.
    pub(crate) fn page(&self, title: &str, body: &Markup) -> Markup {
        let is_current = |path: &str| match path {
            ROOT => self.here.split('?').next() == Some(path),
            path => self.here.starts_with(path),
        };
        let header = html! {
            header.top {
                a.brand href=(ROOT) { (logo()) "twilio-edge" }
                div.who {
                    @if self.key.account_sid.is_none() { (self.account_form()) }
                    span.key title="API key of this session" { (self.key.name) " " span.badge { (self.key.scope) } }
                    form method="post" action="/console/sign-out" { button.quiet type="submit" { "Sign out" } }
                }
            }
            nav.pages aria-label="Pages" {
                ul {
                    @for page in self.pages() {
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

    /// Returns the pages that the viewer can use.
    fn pages(&self) -> impl Iterator<Item = &'static Page> {
        let is_administrator = self.is_administrator();
        let has_simulator = self.console.simulator().is_some();
        self.console.0.pages.iter().filter(move |page| {
            (page.api == Api::Application || is_administrator)
                && (!page.needs_simulator || has_simulator)
        })
    }
}
