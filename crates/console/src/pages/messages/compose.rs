//! Form for a new message.

use axum::{
    Form,
    extract::Query,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

use super::PAGE;
use crate::{
    client::Api,
    components::form_key,
    failure::Failure,
    path::{join, query},
    viewer::Viewer,
};

/// Purposes of a message, as the API names them.
const CATEGORIES: [&str; 4] = ["service", "utility", "marketing", "authentication"];

/// Fields of the form.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NewMessage {
    to: String,
    from: String,
    body: String,
    template: String,
    locale: String,
    variables: String,
    category: String,
    form_key: String,
}

#[derive(Debug, Deserialize)]
struct Created {
    id: String,
}

impl NewMessage {
    /// Returns the request of the API; a field without a value is left out.
    fn request(&self, account: Option<&str>) -> Result<Value, Failure> {
        let given = |value: &str| Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        let mut request = json!({ "to": self.to.trim() });
        let mut set = |name: &str, value: Option<Value>| {
            if let (Some(value), Some(fields)) = (value, request.as_object_mut()) {
                fields.insert(name.to_owned(), value);
            }
        };
        let sender = match self.from.trim() {
            service if service.starts_with("MG") => "messaging_service_sid",
            _ => "from",
        };
        set("account_sid", account.map(Value::from));
        set(sender, given(&self.from).map(Value::from));
        set("category", given(&self.category).map(Value::from));
        match given(&self.template) {
            Some(name) => {
                let variables: serde_json::Map<String, Value> = self.variables()?;
                let mut template = json!({ "name": name, "variables": variables });
                if let (Some(locale), Some(fields)) =
                    (given(&self.locale), template.as_object_mut())
                {
                    fields.insert("locale".to_owned(), locale.into());
                }
                set("template", Some(template));
            }
            None => set("body", Some(self.body.clone().into())),
        }
        Ok(request)
    }

    /// Parses lines such as `1=Ada`.
    fn variables(&self) -> Result<serde_json::Map<String, Value>, Failure> {
        let lines = self.variables.lines().filter(|line| !line.trim().is_empty());
        lines
            .map(|line| {
                let pair = line.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
                let (name, value) = pair.ok_or_else(|| {
                    Failure::Invalid("variables: each line must be NAME=VALUE".to_owned())
                })?;
                Ok((name.to_owned(), Value::from(value)))
            })
            .collect()
    }
}

/// Shows the form, with the fields of the query.
pub(super) async fn show(viewer: Viewer, Query(message): Query<NewMessage>) -> Markup {
    let message = NewMessage { form_key: form_key(), ..message };
    page(&viewer, &message, &Markup::default())
}

/// Sends the message, or shows the form with the refusal.
pub(super) async fn send(
    viewer: Viewer,
    Form(message): Form<NewMessage>,
) -> Result<Response, Failure> {
    let sent = match message.request(viewer.account.as_deref()) {
        Ok(request) => {
            let key = &message.form_key;
            viewer
                .client
                .send_once::<Created>(Api::Application, "/v1/messages", key, &request)
                .await
        }
        Err(failure) => Err(failure),
    };
    match sent.map_err(Failure::refusal) {
        Ok(Created { id }) => {
            let message = query(&join(PAGE.path, &id), [("done", Some("sent"))]);
            Ok(Redirect::to(&message).into_response())
        }
        Err(refusal) => {
            let refusal = refusal?;
            let message = NewMessage { form_key: form_key(), ..message };
            let page = page(&viewer, &message, &refusal.notice());
            Ok((refusal.status(), page).into_response())
        }
    }
}

fn page(viewer: &Viewer, message: &NewMessage, notice: &Markup) -> Markup {
    let category = message.category.as_str();
    let form = html! {
        p { a href=(PAGE.path) { "All messages" } }
        (notice)
        form.card method="post" action=(PAGE.path) {
            input type="hidden" name="form_key" value=(message.form_key);
            label for="to" { "To" }
            input #to name="to" value=(message.to) placeholder="whatsapp:+14155550123" required spellcheck="false";
            label for="from" { "From" }
            input #from name="from" value=(message.from) placeholder="whatsapp:+14155238886 or MG.."
                spellcheck="false" aria-describedby="from-hint";
            p #from-hint.small { "Empty: the route of the recipient's country chooses the sender." }
            label for="body" { "Text" }
            textarea #body name="body" rows="4" maxlength="1600" { (message.body) }
            details open[!message.template.is_empty()] {
                summary { "Template instead of a text" }
                label for="template" { "Name" }
                input #template name="template" value=(message.template) spellcheck="false";
                label for="locale" { "Language" }
                input #locale name="locale" value=(message.locale) placeholder="en_US" spellcheck="false";
                label for="variables" { "Variables, one NAME=VALUE on each line" }
                textarea #variables name="variables" rows="3" { (message.variables) }
            }
            label for="category" { "Purpose" }
            select #category name="category" {
                option value="" selected[category.is_empty()] { "default" }
                @for name in CATEGORIES { option value=(name) selected[category == name] { (name) } }
            }
            button.primary type="submit" { "Send" }
        }
    };
    viewer.page("New message", &form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_form_become_a_request() {
        let message = NewMessage {
            to: " whatsapp:+14155550123 ".into(),
            from: "MG0".into(),
            template: "shipping_update".into(),
            variables: "1=Ada\n2 = a=b\n".into(),
            ..NewMessage::default()
        };
        assert_eq!(
            message.request(Some("AC1")).unwrap(),
            json!({
                "account_sid": "AC1", "to": "whatsapp:+14155550123", "messaging_service_sid": "MG0",
                "template": {"name": "shipping_update", "variables": {"1": "Ada", "2": "a=b"}},
            })
        );
        let text = NewMessage { to: "+1".into(), body: " hi ".into(), ..NewMessage::default() };
        assert_eq!(text.request(None).unwrap(), json!({"to": "+1", "body": " hi "}));
        let wrong = NewMessage { template: "a".into(), variables: "x".into(), ..text };
        assert!(matches!(wrong.request(None), Err(Failure::Invalid(_))));
    }
}
