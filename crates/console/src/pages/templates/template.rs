//! One template: its languages, a preview with the values of its variables, and a test message.

use std::collections::BTreeMap;

use axum::{
    Router,
    extract::{Path, RawQuery},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;
use twilio_edge_domain::template::variables::filled;

use super::{PAGE, Template};
use crate::{
    action::given,
    client::Api,
    components::{empty, facts, form_key, state, text, time},
    console::Console,
    failure::Failure,
    path::{join, query},
    viewer::Viewer,
};

/// Start of the names of the fields with values of variables.
const VARIABLE: &str = "variable.";

pub(super) fn routes() -> Router<Console> {
    Router::new().route("/templates/{name}", get(show).post(send))
}

#[derive(Debug, Deserialize)]
struct Languages {
    templates: Vec<Template>,
}

/// Fields of the form; the names of the variables depend on the template.
#[derive(Debug, Default, PartialEq, Eq)]
struct TestMessage {
    locale: String,
    to: String,
    from: String,
    form_key: String,
    variables: BTreeMap<String, String>,
}

impl TestMessage {
    fn read(form: &str) -> TestMessage {
        let mut message = TestMessage::default();
        for (name, value) in form_urlencoded::parse(form.as_bytes()) {
            let value = value.into_owned();
            match (name.as_ref(), name.strip_prefix(VARIABLE)) {
                ("locale", _) => message.locale = value,
                ("to", _) => message.to = value,
                ("from", _) => message.from = value,
                ("form_key", _) => message.form_key = value,
                (_, Some(variable)) => {
                    message.variables.insert(variable.to_owned(), value);
                }
                _ => {}
            }
        }
        message
    }
}

#[derive(Debug, Deserialize)]
struct Created {
    id: String,
}

async fn show(
    viewer: Viewer,
    Path(name): Path<String>,
    RawQuery(form): RawQuery,
) -> Result<Markup, Failure> {
    let message = TestMessage::read(form.as_deref().unwrap_or_default());
    page(&viewer, &name, &message, &Markup::default()).await
}

async fn send(viewer: Viewer, Path(name): Path<String>, form: String) -> Result<Response, Failure> {
    let message = TestMessage::read(&form);
    let sender = match message.from.trim() {
        service if service.starts_with("MG") => "messaging_service_sid",
        _ => "from",
    };
    let mut request = json!({
        "account_sid": viewer.account,
        "to": message.to.trim(),
        "template": { "name": name, "locale": message.locale, "variables": message.variables },
    });
    if let (Some(from), Some(fields)) = (given(&message.from), request.as_object_mut()) {
        fields.insert(sender.to_owned(), from.into());
    }
    let key = &message.form_key;
    let sent =
        viewer.client.send_once::<Created>(Api::Application, "/v1/messages", key, &request).await;
    match sent.map_err(Failure::refusal) {
        Ok(Created { id }) => {
            let message = query(&join("/console/messages", &id), [("done", Some("sent"))]);
            Ok(Redirect::to(&message).into_response())
        }
        Err(refusal) => {
            let refusal = refusal?;
            let page = page(&viewer, &name, &message, &refusal.notice()).await?;
            Ok((refusal.status(), page).into_response())
        }
    }
}

async fn page(
    viewer: &Viewer,
    name: &str,
    message: &TestMessage,
    notice: &Markup,
) -> Result<Markup, Failure> {
    let path = viewer.of_account(&join("/v1/templates", name), []);
    let Languages { templates } = viewer.client.get(Api::Application, &path).await?;
    let chosen = templates.iter().find(|template| template.locale == message.locale);
    let body = html! {
        p { a href=(PAGE.path) { "All templates" } }
        (notice)
        @if templates.len() > 1 {
            p.actions role="group" aria-label="Language" {
                @for template in &templates {
                    a.button href=(query(&join(PAGE.path, name), [("locale", Some(template.locale.as_str()))])) { (template.locale) }
                }
            }
        }
        @if let Some(template) = chosen.or(templates.first()) {
            (details(template))
            div.columns {
                section aria-labelledby="preview-title" {
                    h2 #preview-title { "Preview" }
                    (preview(template, message))
                }
                section aria-labelledby="test-title" {
                    h2 #test-title { "Test message" }
                    (form(template, message))
                }
            }
        }
    };
    Ok(viewer.page(&format!("Template {name}"), &body))
}

fn details(template: &Template) -> Markup {
    html! {
        @if let Some(reason) = &template.reason {
            div.notice.bad { p { strong { "WhatsApp rejected the template. " } (reason) } }
        }
        div.panel {
            (facts([
                ("Language", text(Some(&template.locale))),
                ("Approval", state(&template.approval)),
                ("Category", text(template.category.as_deref())),
                ("Variables", text(Some(&template.variables.join(", ")))),
                ("Source", text(Some(&template.source))),
                ("Content SID", text(Some(&template.content_sid))),
                ("Changed (UTC)", time(template.changed_at.as_deref())),
            ]))
        }
    }
}

/// Renders the text as the recipient sees it. A variable without a value stays as it is.
fn preview(template: &Template, message: &TestMessage) -> Markup {
    let Some(text) = &template.text else {
        return empty(
            "The text of the template is not known. Twilio lists no text for this type of content.",
        );
    };
    let value = |name: &String| {
        let value = message.variables.get(name).filter(|value| !value.is_empty());
        (name.clone(), value.cloned().unwrap_or_else(|| format!("{{{{{name}}}}}")))
    };
    let values: BTreeMap<String, String> = template.variables.iter().map(value).collect();
    html! {
        ol.conversation tabindex="0" aria-label="Preview" { li.mine #preview { (filled(text, &values)) } }
    }
}

fn form(template: &Template, message: &TestMessage) -> Markup {
    let here = join(PAGE.path, &template.name);
    html! {
        form.card method="post" action=(here) {
            input type="hidden" name="form_key" value=(form_key());
            input type="hidden" name="locale" value=(template.locale);
            @for (index, name) in template.variables.iter().enumerate() {
                label for={ "variable-" (index) } { "Variable " (name) }
                input id={ "variable-" (index) } name={ (VARIABLE) (name) } maxlength="1600"
                    value=(message.variables.get(name).map(String::as_str).unwrap_or_default());
            }
            label for="test-to" { "To" }
            input #test-to name="to" value=(message.to) placeholder="whatsapp:+14155550123" spellcheck="false";
            label for="test-from" { "From" }
            input #test-from name="from" value=(message.from) placeholder="whatsapp:+14155238886 or MG.."
                spellcheck="false" aria-describedby="test-from-hint";
            p #test-from-hint.small { "Empty: the route of the recipient's country chooses the sender." }
            div.actions {
                button type="submit" formmethod="get" { "Show the preview" }
                button.primary type="submit" { "Send the test message" }
            }
            p.small { "A test message is a real message: every rule applies, and Twilio bills it." }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preview_fills_the_given_variables_and_escapes_them() {
        let template: Template = serde_json::from_value(json!({
            "name": "a", "locale": "en", "content_sid": "HX", "source": "twilio", "approval": "approved",
            "variables": ["1", "2"], "text": "Hello {{1}}, {{2}}",
        }))
        .unwrap();
        let message = TestMessage::read("variable.1=%3Cb%3E&variable.2=&to=%2B1");
        let shown = preview(&template, &message).into_string();
        assert!(shown.contains("Hello &lt;b&gt;, {{2}}"), "{shown}");
        assert_eq!(message.to, "+1");
    }
}
