//! API keys: the list, a new key with its token, and revocation.

use axum::{
    Form, Router,
    extract::{Path, Query},
    http::Method,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

use super::PAGE;
use crate::{
    action::{Done, answer, given},
    client::Api,
    components::{copyable, empty, facts, form_key, next_page, state, success, text, time},
    console::Console,
    failure::Failure,
    path::{join, query},
    viewer::Viewer,
};

const PATH: &str = "/console/accounts/keys";

pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/accounts/keys", get(list).post(create))
        .route("/accounts/keys/{id}", get(show))
        .route("/accounts/keys/{id}/revoke", post(revoke))
}

/// An API key.
#[derive(Debug, Deserialize)]
struct Key {
    id: String,
    name: String,
    scope: String,
    account_sid: Option<String>,
    created_at: Option<String>,
    created_by: String,
    last_used_at: Option<String>,
    revoked_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct KeyList {
    keys: Vec<Key>,
    next_cursor: Option<String>,
}

/// A new key with its token.
#[derive(Debug, Deserialize)]
struct CreatedKey {
    key: Key,
    token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    cursor: String,
}

async fn list(viewer: Viewer, Query(Filter { cursor }): Query<Filter>) -> Result<Markup, Failure> {
    let body = html! {
        p { a href=(PAGE.path) { "Accounts and keys" } }
        (section(&viewer, &cursor).await?)
    };
    Ok(viewer.page("API keys", &body))
}

/// Renders the list of the keys, and the form for a new one.
pub(super) async fn section(viewer: &Viewer, cursor: &str) -> Result<Markup, Failure> {
    let path = viewer.of_account("/v1/keys", [("cursor", Some(cursor))]);
    let found = match viewer.client.get::<KeyList>(Api::Administration, &path).await {
        Ok(list) if list.keys.is_empty() => {
            empty("No key is bound to this account. Create one below.")
        }
        Ok(list) => html! {
            (table(&list.keys))
            (next_page(PATH, &[], list.next_cursor.as_deref()))
        },
        Err(failure) => failure.refusal()?.notice(),
    };
    Ok(html! { (found) (form(viewer)) })
}

fn table(keys: &[Key]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="API keys" {
            table {
                caption { "API keys, the newest first" }
                thead {
                    tr {
                        th scope="col" { "Name" }
                        th scope="col" { "Scope" }
                        th scope="col" { "Account" }
                        th scope="col" { "State" }
                        th scope="col" { "Last used (UTC)" }
                        th scope="col" { "Created (UTC)" }
                    }
                }
                tbody {
                    @for key in keys {
                        tr data-row=(key.id) {
                            td.wide { a href=(join(PATH, &key.id)) { (key.name) } }
                            td { (key.scope) }
                            td { (text(key.account_sid.as_deref().or(Some("all")))) }
                            td { (validity(key)) }
                            td { (time(key.last_used_at.as_deref())) }
                            td { (time(key.created_at.as_deref())) " by " (key.created_by) }
                        }
                    }
                }
            }
        }
    }
}

fn validity(key: &Key) -> Markup {
    html! {
        @match key.revoked_at.as_deref() {
            Some(at) => { (state("revoked")) " " (time(Some(at))) }
            None => (state("ok")),
        }
    }
}

/// Form of a key.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NewKey {
    name: String,
    scope: String,
    account_sid: String,
    form_key: String,
}

fn form(viewer: &Viewer) -> Markup {
    html! {
        details {
            summary { "Create an API key" }
            form.card method="post" action=(PATH) {
                input type="hidden" name="form_key" value=(form_key());
                label for="key-name" { "Name" }
                input #key-name name="name" required maxlength="100" placeholder="shop";
                label for="key-scope" { "Scope" }
                select #key-scope name="scope" {
                    option value="app" { "app: messages, webhooks, contacts" }
                    option value="admin" { "admin: everything" }
                }
                label for="key-account" { "Account, empty for all" }
                input #key-account name="account_sid" placeholder="AC.." pattern="AC[0-9a-f]{32}" spellcheck="false"
                    value=(viewer.account.as_deref().unwrap_or_default());
                button.primary type="submit" { "Create the key" }
            }
        }
    }
}

/// Creates a key, and shows its token. A copy of the form shows the key without its token.
async fn create(viewer: Viewer, Form(new): Form<NewKey>) -> Result<Response, Failure> {
    let request = json!({
        "name": new.name.trim(), "scope": new.scope, "account_sid": given(&new.account_sid),
    });
    let created = viewer
        .client
        .send_once::<CreatedKey>(Api::Administration, "/v1/keys", &new.form_key, &request)
        .await;
    let (status, body) = match created {
        Ok(created) => (axum::http::StatusCode::OK, token(&created)),
        Err(failure) => {
            let refusal = failure.refusal()?;
            (refusal.status(), html! { (refusal.notice()) (section(&viewer, "").await?) })
        }
    };
    let body = html! { p { a href=(PAGE.path) { "Accounts and keys" } } (body) };
    Ok((status, viewer.page("API keys", &body)).into_response())
}

fn token(CreatedKey { key, token }: &CreatedKey) -> Markup {
    html! {
        (success("The key is created."))
        @match token {
            Some(token) => {
                p { "Copy the token of " strong { (key.name) } " now. It is shown once; only its digest is stored." }
                (copyable("token", "Token", token))
            }
            None => p { "The token of " strong { (key.name) } " was shown already. If it is lost, revoke the key and create another." },
        }
        p { a href=(join(PATH, &key.id)) { "Show the key" } }
    }
}

async fn show(
    viewer: Viewer,
    Path(id): Path<String>,
    Query(Done { done }): Query<Done>,
) -> Result<Markup, Failure> {
    let notice = match done.as_str() {
        "revoked" => success("The key is revoked, and its sessions have ended."),
        _ => Markup::default(),
    };
    page(&viewer, &id, notice).await
}

async fn page(viewer: &Viewer, id: &str, notice: Markup) -> Result<Markup, Failure> {
    let key: Key = viewer.client.get(Api::Administration, &join("/v1/keys", id)).await?;
    let body = html! {
        p { a href=(PAGE.path) { "Accounts and keys" } }
        (notice)
        div.panel {
            (facts([
                ("State", validity(&key)),
                ("Scope", text(Some(&key.scope))),
                ("Account", text(key.account_sid.as_deref().or(Some("all")))),
                ("Last used (UTC)", time(key.last_used_at.as_deref())),
                ("Created (UTC)", time(key.created_at.as_deref())),
                ("Created by", text(Some(&key.created_by))),
                ("Id", text(Some(&key.id))),
            ]))
        }
        @if key.revoked_at.is_none() {
            form method="post" action={ (join(PATH, &key.id)) "/revoke" } {
                div.actions {
                    button.danger type="submit" data-confirm={ "Revoke the key " (key.name) "? Programs that use it are refused from now on." } {
                        "Revoke the key"
                    }
                }
            }
        }
    };
    Ok(viewer.page(&format!("API key {}", key.name), &body))
}

async fn revoke(viewer: Viewer, Path(id): Path<String>) -> Result<Response, Failure> {
    let path = join("/v1/keys", &id);
    let revoked =
        viewer.client.send::<Value>(Api::Administration, Method::DELETE, &path, &json!({})).await;
    let next = |_| query(&join(PATH, &id), [("done", Some("revoked"))]);
    answer(revoked, next, async |notice| page(&viewer, &id, notice).await).await
}
