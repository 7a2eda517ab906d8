//! Accounts and keys: the profiles of accounts, and the API keys.

mod keys;
mod profile;

use axum::{Router, extract::Query, routing::get};
use maud::{Markup, html};
use serde::Deserialize;

use self::profile::Profile;
use crate::{
    client::Api,
    components::{Field, empty, next_page, search, state, text, time},
    console::{Console, Page},
    failure::Failure,
    path::join,
    viewer::Viewer,
};

pub(super) const PAGE: Page = Page {
    path: "/console/accounts",
    title: "Accounts and keys",
    api: Api::Administration,
    needs_simulator: false,
    routes,
};

fn routes() -> Router<Console> {
    Router::new().route("/accounts", get(list)).merge(keys::routes()).merge(profile::routes())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    account: String,
    cursor: String,
}

#[derive(Debug, Deserialize)]
struct ProfileList {
    tenants: Vec<Profile>,
    next_cursor: Option<String>,
}

async fn list(viewer: Viewer, Query(filter): Query<Filter>) -> Result<Markup, Failure> {
    if let Some(account) = crate::action::given(&filter.account) {
        return profile::page(&viewer, account, Markup::default()).await;
    }
    let path = viewer.of_account("/v1/tenants", [("cursor", Some(filter.cursor.as_str()))]);
    let profiles = match viewer.client.get::<ProfileList>(Api::Administration, &path).await {
        Ok(list) if list.tenants.is_empty() => empty(
            "No account has a profile: the general settings apply to all. Enter an account to give it a profile.",
        ),
        Ok(list) => html! {
            (table(&list.tenants))
            (next_page(PAGE.path, &[], list.next_cursor.as_deref()))
        },
        Err(failure) => failure.refusal()?.notice(),
    };
    let field = Field::Text { name: "account", label: "Account", example: "AC..", value: "" };
    let body = html! {
        h2 { "Accounts" }
        (search(PAGE.path, &[field]))
        (profiles)
        h2 { "API keys" }
        (keys::section(&viewer, "").await?)
    };
    Ok(viewer.page(PAGE.title, &body))
}

fn table(profiles: &[Profile]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Accounts" {
            table {
                caption { "Accounts with a profile" }
                thead {
                    tr {
                        th scope="col" { "Account" }
                        th scope="col" { "Name" }
                        th scope="col" { "State" }
                        th scope="col" { "Senders" }
                        th scope="col" { "Parent" }
                        th scope="col" { "Changed (UTC)" }
                    }
                }
                tbody {
                    @for profile in profiles {
                        tr data-row=(profile.account_sid) {
                            td { a href=(join(PAGE.path, &profile.account_sid)) { code { (profile.account_sid) } } }
                            td.wide { (text(Some(&profile.friendly_name))) }
                            td { (state(if profile.closed_at.is_some() { "closed" } else { "open" })) }
                            td.wide { (text(Some(&profile.senders.join(", ")))) }
                            td { (text(profile.parent_sid.as_deref())) }
                            td { (time(profile.updated_at.as_deref())) }
                        }
                    }
                }
            }
        }
    }
}
