//! Profile of an account: its settings that differ from the general ones.

use axum::{
    Form, Router,
    extract::{Path, Query},
    http::Method,
    response::Response,
    routing::{get, post},
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::PAGE;
use crate::{
    action::{Done, answer, given},
    client::Api,
    components::{facts, state, success, text, time},
    console::Console,
    failure::Failure,
    path::{join, query},
    viewer::Viewer,
};

pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/accounts/{account_sid}", get(show).post(save))
        .route("/accounts/{account_sid}/close", post(close))
}

/// Profile of an account.
#[derive(Debug, Deserialize)]
pub(super) struct Profile {
    pub(super) account_sid: String,
    pub(super) parent_sid: Option<String>,
    pub(super) friendly_name: String,
    pub(super) senders: Vec<String>,
    services: Vec<String>,
    policy: Map<String, Value>,
    retention: Map<String, Value>,
    revision: i64,
    created_at: Option<String>,
    pub(super) updated_at: Option<String>,
    pub(super) closed_at: Option<String>,
}

/// Fields of the form.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ProfileForm {
    revision: String,
    parent_sid: String,
    friendly_name: String,
    senders: String,
    services: String,
    policy: String,
    retention: String,
}

impl ProfileForm {
    fn of(profile: &Profile) -> ProfileForm {
        let settings = |settings: &Map<String, Value>| match settings.is_empty() {
            true => String::new(),
            false => serde_json::to_string_pretty(settings).unwrap_or_default(),
        };
        ProfileForm {
            revision: profile.revision.to_string(),
            parent_sid: profile.parent_sid.clone().unwrap_or_default(),
            friendly_name: profile.friendly_name.clone(),
            senders: profile.senders.join("\n"),
            services: profile.services.join("\n"),
            policy: settings(&profile.policy),
            retention: settings(&profile.retention),
        }
    }

    fn request(&self) -> Result<Value, Failure> {
        let lines = |text: &str| text.lines().filter_map(given).map(str::to_owned).collect();
        let (senders, services): (Vec<String>, Vec<String>) =
            (lines(&self.senders), lines(&self.services));
        Ok(json!({
            "parent_sid": given(&self.parent_sid),
            "friendly_name": self.friendly_name.trim(),
            "senders": senders,
            "services": services,
            "policy": settings("policy", &self.policy)?,
            "retention": settings("retention", &self.retention)?,
        }))
    }

    /// Returns the ETag of the profile that the form shows; `None` for an account without one.
    fn etag(&self) -> Option<String> {
        given(&self.revision).map(|revision| format!("\"{revision}\""))
    }
}

/// Parses settings, which are a JSON object; an empty text means none.
fn settings(field: &str, text: &str) -> Result<Map<String, Value>, Failure> {
    let Some(text) = given(text) else { return Ok(Map::new()) };
    serde_json::from_str(text)
        .map_err(|error| Failure::Invalid(format!("{field}: must be a JSON object: {error}")))
}

async fn show(
    viewer: Viewer,
    Path(account_sid): Path<String>,
    Query(Done { done }): Query<Done>,
) -> Result<Markup, Failure> {
    let notice = match done.as_str() {
        "saved" => success(
            "The profile is in effect here, and in all other sidecars within about two seconds.",
        ),
        "closed" => {
            success("The account is closed. Keys of scope app that are bound to it get no answers.")
        }
        _ => Markup::default(),
    };
    page(&viewer, &account_sid, notice).await
}

/// Renders the profile of an account, or the form for a new one.
pub(super) async fn page(
    viewer: &Viewer,
    account_sid: &str,
    notice: Markup,
) -> Result<Markup, Failure> {
    let path = join("/v1/tenants", account_sid);
    let profile = match viewer.client.get::<Profile>(Api::Administration, &path).await {
        Ok(profile) => Some(profile),
        Err(failure) => {
            let refusal = failure.refusal()?;
            match refusal.code.as_str() {
                "no_such_tenant" => None,
                _ => return Ok(frame(viewer, account_sid, &html! { (notice) (refusal.notice()) })),
            }
        }
    };
    let fields = profile.as_ref().map(ProfileForm::of).unwrap_or_default();
    let body = html! {
        (notice)
        @match &profile {
            Some(profile) => (summary(profile)),
            None => p.empty { "The account has no profile: the general settings apply. Save one to change them for this account." },
        }
        h2 { "Profile" }
        (form(account_sid, &fields))
        @if profile.as_ref().is_some_and(|profile| profile.closed_at.is_none()) {
            h2 { "Close the account" }
            p { "Keys of scope " code { "app" } " that are bound to a closed account get no answers. Its webhooks are still verified and recorded, and a STOP still takes effect." }
            form method="post" action={ (join(PAGE.path, account_sid)) "/close" } {
                input type="hidden" name="revision" value=(fields.revision);
                div.actions {
                    button.danger type="submit" data-confirm={ "Close account " (account_sid) "?" } { "Close the account" }
                }
            }
        }
    };
    Ok(frame(viewer, account_sid, &body))
}

fn frame(viewer: &Viewer, account_sid: &str, body: &Markup) -> Markup {
    let body = html! { p { a href=(PAGE.path) { "Accounts and keys" } } (body) };
    viewer.page(&format!("Account {account_sid}"), &body)
}

fn summary(profile: &Profile) -> Markup {
    html! {
        div.panel {
            (facts([
                ("State", state(if profile.closed_at.is_some() { "closed" } else { "open" })),
                ("Name", text(Some(&profile.friendly_name))),
                ("Revision", html! { (profile.revision) }),
                ("Created (UTC)", time(profile.created_at.as_deref())),
                ("Changed (UTC)", time(profile.updated_at.as_deref())),
                ("Closed (UTC)", time(profile.closed_at.as_deref())),
            ]))
        }
    }
}

fn form(account_sid: &str, fields: &ProfileForm) -> Markup {
    html! {
        form.card method="post" action=(join(PAGE.path, account_sid)) {
            input type="hidden" name="revision" value=(fields.revision);
            label for="friendly-name" { "Name" }
            input #friendly-name name="friendly_name" value=(fields.friendly_name) maxlength="100";
            label for="senders" { "Own numbers and senders, one on each line" }
            textarea #senders name="senders" rows="3" spellcheck="false" { (fields.senders) }
            label for="services" { "Messaging Services, one on each line" }
            textarea #services name="services" rows="2" spellcheck="false" placeholder="MG.." { (fields.services) }
            label for="parent" { "Parent account, for a subaccount" }
            input #parent name="parent_sid" value=(fields.parent_sid) placeholder="AC.." spellcheck="false";
            label for="policy" { "Settings that replace those of [policy], as a JSON object" }
            textarea #policy name="policy" rows="5" spellcheck="false" { (fields.policy) }
            label for="retention" { "Settings that replace those of [retention], as a JSON object" }
            textarea #retention name="retention" rows="3" spellcheck="false" { (fields.retention) }
            button.primary type="submit" { "Save the profile" }
        }
    }
}

async fn save(
    viewer: Viewer,
    Path(account_sid): Path<String>,
    Form(fields): Form<ProfileForm>,
) -> Result<Response, Failure> {
    let saved = match fields.request() {
        Ok(request) => change(&viewer, Method::PUT, &account_sid, &fields, &request).await,
        Err(failure) => Err(failure),
    };
    // The refused form keeps what was written.
    let refused = async |notice: Markup| {
        let body = html! { (notice) (form(&account_sid, &fields)) };
        Ok(frame(&viewer, &account_sid, &body))
    };
    answer(saved, |_| done(&account_sid, "saved"), refused).await
}

async fn close(
    viewer: Viewer,
    Path(account_sid): Path<String>,
    Form(fields): Form<ProfileForm>,
) -> Result<Response, Failure> {
    let closed = change(&viewer, Method::DELETE, &account_sid, &fields, &json!({})).await;
    let refused = async |notice| page(&viewer, &account_sid, notice).await;
    answer(closed, |_| done(&account_sid, "closed"), refused).await
}

async fn change(
    viewer: &Viewer,
    method: Method,
    account_sid: &str,
    fields: &ProfileForm,
    request: &Value,
) -> Result<Value, Failure> {
    let (path, etag) = (join("/v1/tenants", account_sid), fields.etag());
    viewer.client.send_if_match(Api::Administration, method, &path, etag.as_deref(), request).await
}

fn done(account_sid: &str, word: &str) -> String {
    query(&join(PAGE.path, account_sid), [("done", Some(word))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_has_the_etag_of_its_profile_and_names_a_wrong_field() {
        let fields = ProfileForm {
            revision: "7".into(),
            senders: " +1 \n\n+2".into(),
            policy: "[1]".into(),
            ..ProfileForm::default()
        };
        assert_eq!(fields.etag().as_deref(), Some("\"7\""));
        assert!(
            matches!(fields.request(), Err(Failure::Invalid(text)) if text.starts_with("policy"))
        );
        let request = ProfileForm { policy: String::new(), ..fields }.request().unwrap();
        assert_eq!((&request["senders"], &request["policy"]), (&json!(["+1", "+2"]), &json!({})));
        assert_eq!(ProfileForm::default().etag(), None);
    }
}
