//! The signed text of a genuine webhook, cut into another one. Nothing of it reaches the application, suppresses a contact or is
//! stored. Signed text has no separators, so every request here carries a signature that fits its own parameters.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use twilio_edge_filter::reply::Reason;
use twilio_edge_filter::signature::hash_body;
use twilio_edge_wasm_tests::client::{Response, send};
use twilio_edge_wasm_tests::signers::Sdk;
use twilio_edge_wasm_tests::stack::{Plan, SidecarPlan, Signing, Stack};
use twilio_edge_wasm_tests::webhook::{
    ACCOUNT, Form, INBOUND, OTHER, Request, STATUS, fresh_phone, fresh_sid,
};

use crate::expect::{arrived, is_refusal, refused};
use crate::suite::{Scenario, Setting, scenarios};

/// A prefix route with the default methods and bodies.
const BELOW: &str = "/app/statuses/";
/// A prefix route that accepts GET too.
const BELOW_ANY: &str = "/app/any/statuses/";
/// A route whose signatures stay at the filter.
const PRIVATE: &str = "/app/private";
/// A route of class `other` with the default methods and bodies.
const PLAIN_OTHER: &str = "/app/other";

/// Routes that set neither `methods` nor `bodies`, except [`BELOW_ANY`].
const DEFAULTS: Plan = Plan::adapted(SidecarPlan::Sqlite, |config| {
    let routes = config.plugin["routes"].as_array_mut().context("the filter's routes")?;
    for route in routes.iter_mut().filter_map(Value::as_object_mut) {
        route.remove("methods");
        route.remove("bodies");
    }
    routes.extend([
        json!({ "prefix": BELOW, "class": "status" }),
        json!({ "prefix": BELOW_ANY, "class": "status", "methods": ["GET", "POST"] }),
        json!({ "path": PRIVATE, "class": "inbound", "forward_signature": false }),
        json!({ "path": PLAIN_OTHER, "class": "other" }),
    ]);
    Ok(())
});

pub(crate) fn scenarios() -> Vec<Scenario> {
    let shared = scenarios![Setting::Shared;
        text_is_not_cut_into_another_sender,
        text_is_not_cut_into_an_opt_out,
        status_is_not_cut_into_another_status,
        form_is_not_cut_into_a_get,
        get_is_not_cut_into_a_form,
        form_is_not_cut_into_a_hashed_body,
    ];
    let defaults = scenarios![Setting::Own(DEFAULTS);
        default_route_refuses_a_get,
        default_route_refuses_a_hashed_body,
        prefix_route_reads_no_form_from_its_path,
        signature_stays_at_the_filter,
    ];
    [shared.as_slice(), &defaults].concat()
}

/// A forged request, and what it would have changed.
struct Forgery {
    what: &'static str,
    reason: Reason,
    request: Request,
    /// Addresses that must not be suppressed.
    victims: Vec<String>,
    /// Messages that must not be stored.
    messages: Vec<String>,
}

impl Forgery {
    /// The parameters `forged` with the signature of `genuine`, which one of Twilio's SDKs makes for the first and the other for
    /// the second.
    async fn of_form(
        stack: &Stack,
        what: &'static str,
        reason: Reason,
        genuine: &Form,
        forged: &Form,
    ) -> Result<Self> {
        let by = |sdk| Signing { sdk: Some(sdk), ..Signing::default() };
        let signed = stack.post_as(genuine, by(Sdk::Python)).await?;
        let request = stack.post_as(forged, by(Sdk::Node)).await?;
        ensure!(request.headers == signed.headers, "{what}: another signed text");
        ensure!(request.body != signed.body, "{what}: the same parameters");
        Ok(Self::of_request(what, reason, request, &[genuine, forged]))
    }

    fn of_request(what: &'static str, reason: Reason, request: Request, forms: &[&Form]) -> Self {
        let values = |name: &str| -> Vec<String> {
            let values = forms.iter().map(|form| form.get(name).to_owned());
            values.filter(|value| !value.is_empty()).collect()
        };
        let victims = [values("From"), values("To")].concat();
        Self { what, reason, request, victims, messages: values("MessageSid") }
    }
}

/// Client of the sidecar's API.
struct Api<'a> {
    stack: &'a Stack,
    token: String,
}

impl<'a> Api<'a> {
    async fn open(stack: &'a Stack) -> Result<Self> {
        Ok(Self { stack, token: stack.api_key().await? })
    }

    async fn get(&self, path: &str) -> Result<Response> {
        let request = Request::new("GET", &format!("{path}?account_sid={ACCOUNT}"), "")
            .header("Authorization", format!("Bearer {}", self.token));
        send(self.stack.sidecar()?.address(), &request).await
    }

    /// Reports whether any suppression of an address was ever recorded, on any channel.
    async fn is_suppressed(&self, address: &str) -> Result<bool> {
        let path = format!("/v1/suppressions/{}", address.replace('+', "%2B"));
        let response = self.get(&path).await?;
        ensure!(response.status == 200, "{address}: {} {}", response.status, response.text());
        let page: Value = serde_json::from_slice(&response.body)?;
        Ok(!page["suppressions"].as_array().context("no list")?.is_empty())
    }

    /// Reports whether a message is stored.
    async fn has(&self, message_sid: &str) -> Result<bool> {
        let response = self.get(&format!("/v1/messages/{message_sid}")).await?;
        ensure!([200, 404].contains(&response.status), "{message_sid}: {}", response.text());
        Ok(response.status == 200)
    }
}

/// Sends each forgery. It must be refused for its reason, without a suppression and without a stored message.
async fn all_change_nothing(stack: &Stack, forgeries: &[Forgery]) -> Result<()> {
    for forgery in forgeries {
        refused(stack, &forgery.request, forgery.reason).await.context(forgery.what)?;
    }
    let api = Api::open(stack).await?;
    // The events that came before this one are written before it.
    let stop = Form::inbound("STOP");
    ensure!(stack.send(&stack.post(&stop).await?).await?.status == 200);
    let ledger = stack.ledger().await?;
    ledger.settled(stop.get("MessageSid"), "accepted", 1).await?;
    ensure!(api.is_suppressed(stop.get("From")).await?, "a genuine STOP suppresses");
    ensure!(api.has(stop.get("MessageSid")).await?, "a genuine message is stored");
    for Forgery { what, victims, messages, .. } in forgeries {
        for victim in victims {
            ensure!(!api.is_suppressed(victim).await?, "{what}: {victim} is suppressed");
        }
        for message in messages {
            ensure!(!api.has(message).await?, "{what}: {message} is stored");
            let events = ledger.events(message).await?;
            ensure!(events.is_empty(), "{what}: {events:?}");
            ensure!(ledger.opt(message).await?.is_none(), "{what}: an opt-out is recorded");
        }
    }
    Ok(())
}

/// A WhatsApp message as Twilio sends it.
fn whatsapp(body: &str) -> Form {
    let number = fresh_phone();
    Form::inbound(body)
        .set("From", &format!("whatsapp:{number}"))
        .set("To", "whatsapp:+14155238886")
        .set("WaId", number.trim_start_matches('+'))
        .set("ProfileName", "Ava From Body")
        .set("MessageType", "text")
}

/// The signed text of a form behind its URL, without the parameters of these names.
fn text(form: &Form, without: &[&str]) -> String {
    let mut params = form.params.clone();
    params.sort();
    let kept = params.iter().filter(|(name, _)| without.iter().all(|it| it != name));
    kept.map(|(name, value)| format!("{name}{value}")).collect()
}

/// An empty form that is sent to `target`.
fn empty(target: &str) -> Form {
    Form { target: target.to_owned(), params: Vec::new() }
}

async fn text_is_not_cut_into_another_sender(stack: &Stack) -> Result<()> {
    let (victim, forged_sid) = (fresh_phone(), fresh_sid("SM"));
    // The text holds a whole webhook, and `z` takes in the genuine one.
    let whole = Form::inbound(&format!("STOPFrom{victim}MessageSid{forged_sid}To+15005550006z"));
    let cut = empty(INBOUND)
        .set("AccountSid", ACCOUNT)
        .set("ApiVersion", "2010-04-01")
        .set("Body", "STOP")
        .set("From", &victim)
        .set("MessageSid", &forged_sid)
        .set("To", "+15005550006")
        .set("z", &text(&whole, &["AccountSid", "ApiVersion", "Body"]));
    let mut forgeries = vec![
        Forgery::of_form(stack, "a whole webhook", Reason::AmbiguousFields, &whole, &cut).await?,
    ];
    // The genuine sender becomes the value, or the name, of a parameter that Twilio sends behind it.
    let victim = format!("whatsapp:{}", fresh_phone());
    for (what, place, reason) in [
        ("an unknown parameter", "FromCarrier", Reason::AmbiguousFields),
        ("a city", "FromCity", Reason::AmbiguousFields),
    ] {
        let genuine = whatsapp(&format!("STOPFrom{victim}{place}")).without(place).without("WaId");
        let value = format!("From{}", genuine.get("From"));
        let cut = genuine.clone().set("Body", "STOP").set("From", &victim).add(place, &value);
        forgeries.push(Forgery::of_form(stack, what, reason, &genuine, &cut).await?);
        // A genuine WhatsApp message has the number once more.
        let number = genuine.get("From").trim_start_matches("whatsapp:+").to_owned();
        let (genuine, cut) = (genuine.add("WaId", &number), cut.add("WaId", &number));
        let reason = Reason::ContradictoryFields;
        forgeries.push(Forgery::of_form(stack, what, reason, &genuine, &cut).await?);
    }
    // In signed order this name comes after those of places, so there are none.
    let victim = format!("whatsapp:{}", fresh_phone());
    let genuine = ["FromCity", "FromCountry", "FromState", "FromZip", "WaId"]
        .iter()
        .fold(whatsapp(&format!("STOPFrom{victim}")), |form, name| form.without(name));
    let name = format!("From{}", genuine.get("From"));
    let cut = genuine.clone().set("Body", "STOP").set("From", &victim).add(&name, "");
    forgeries.push(Forgery::of_form(stack, "a name", Reason::MalformedName, &genuine, &cut).await?);
    // A text sender has no shape.
    let victim = fresh_phone();
    let genuine = Form::inbound(&format!("STOPFrom{victim}FromCarrier")).set("From", "ACME");
    let cut =
        genuine.clone().set("Body", "STOP").set("From", &victim).add("FromCarrier", "FromACME");
    let forgery =
        Forgery::of_form(stack, "a text sender", Reason::AmbiguousFields, &genuine, &cut).await?;
    // A text sender is no address of a contact that the API could look up.
    let victims = vec![victim];
    forgeries.push(Forgery { victims, ..forgery });
    all_change_nothing(stack, &forgeries).await
}

async fn text_is_not_cut_into_an_opt_out(stack: &Stack) -> Result<()> {
    let longer = Form::inbound("STOPCalling me");
    let shorter = longer.clone().set("Body", "STOP").add("Calling", " me");
    let stop = Form::inbound("STOP");
    let hidden = stop.clone().without("Body").add("BodyS", "TOP");
    let button = whatsapp("STOPButtonPayloadx");
    let payload = button.clone().set("Body", "STOP").add("ButtonPayload", "x");
    let profile = whatsapp("hi").set("ProfileName", "xOptOutTypeSTOPProfileNamey");
    let kind = profile
        .clone()
        .without("NumSegments")
        .set("ProfileName", "y")
        .add("NumSeg", "ments1ProfileNamex")
        .add("OptOutType", "STOP");
    let mut forgeries = Vec::new();
    for (what, reason, genuine, forged) in [
        ("a longer text", Reason::UnknownParameter, &longer, &shorter),
        ("an opt-out that is hidden", Reason::AmbiguousFields, &stop, &hidden),
        ("a button", Reason::ContradictoryFields, &button, &payload),
        ("an opt-out type", Reason::AmbiguousFields, &profile, &kind),
    ] {
        forgeries.push(Forgery::of_form(stack, what, reason, genuine, forged).await?);
    }
    all_change_nothing(stack, &forgeries).await
}

async fn status_is_not_cut_into_another_status(stack: &Stack) -> Result<()> {
    let failed = Form::status("undelivered").set("ErrorCode", "30003");
    let shifted = failed.clone().without("ErrorCode").add("ErrorCode3", "0003");
    let hidden = failed.clone().without("ErrorCode").set("ApiVersion", "2010-04-01ErrorCode30003");
    let swallowed = failed
        .clone()
        .without("From")
        .without("ErrorCode")
        .add("ErrorCode30003From", failed.get("From"));
    let mut forgeries = Vec::new();
    for (what, reason, forged) in [
        ("a code that begins in its name", Reason::AmbiguousFields, &shifted),
        ("a code within the version", Reason::MalformedField, &hidden),
        ("a code within a name", Reason::AmbiguousFields, &swallowed),
    ] {
        let genuine = failed.clone();
        forgeries.push(Forgery::of_form(stack, what, reason, &genuine, forged).await?);
    }
    all_change_nothing(stack, &forgeries).await
}

/// The parameters of a status in a query, as they stand within the text of another webhook, whose rest `z` takes in.
fn status_query(sid: &str, to: &str) -> String {
    format!(
        "AccountSid={ACCOUNT}&MessageSid={sid}&MessageStatus=failed&From=15005550006&To={}&z=",
        to.trim_start_matches('+')
    )
}

/// A GET whose URL is the signed text of the form.
async fn as_get(stack: &Stack, genuine: &Form) -> Result<Request> {
    let signed = stack.post(genuine).await?;
    let target = format!("{}{}", genuine.target, text(genuine, &[]));
    let signature = signed.headers.iter().find(|(name, _)| name == "X-Twilio-Signature");
    let (name, signature) = signature.context("unsigned")?;
    Ok(Request::new("GET", &target, "").header(name, signature))
}

async fn form_is_not_cut_into_a_get(stack: &Stack) -> Result<()> {
    let (sid, to) = (fresh_sid("SM"), fresh_phone());
    let query = status_query(&sid, &to);
    let genuine = Form::status("failed")
        .to(&format!("{STATUS}?x=1"))
        .set("ChannelStatusMessage", &format!("x&{query}"));
    let request = as_get(stack, &genuine).await?;
    let forged = empty(STATUS).set("MessageSid", &sid).set("To", &to);
    let forgery =
        Forgery::of_request("a form", Reason::AmbiguousFields, request, &[&genuine, &forged]);
    all_change_nothing(stack, &[forgery]).await
}

async fn get_is_not_cut_into_a_form(stack: &Stack) -> Result<()> {
    let (sid, to) = (fresh_sid("SM"), fresh_phone());
    let (to, from) = (to.trim_start_matches('+'), "15005550006");
    let script = format!("AccountSid{ACCOUNT}From{from}MessageSid{sid}MessageStatusfailedTo{to}Z");
    let genuine = Form::status("failed");
    let genuine = Form {
        params: [vec![("Aa".to_owned(), script)], genuine.params.clone()].concat(),
        ..genuine
    };
    let signed = stack.get_as(&genuine, Signing::default()).await?;
    let (before, rest) = signed.target.split_once("Z&").context("the text is there")?;
    let (before, _) = before.split_once("AccountSidAC").context("the text is there")?;
    let forged = empty(before)
        .set("AccountSid", ACCOUNT)
        .set("From", from)
        .set("MessageSid", &sid)
        .set("MessageStatus", "failed")
        .set("To", to)
        .set("Z", &format!("&{rest}"));
    let request = stack.post(&forged).await?;
    let signature = |request: &Request| {
        request.headers.iter().find(|(name, _)| name == "X-Twilio-Signature").cloned()
    };
    ensure!(signature(&request) == signature(&signed), "another signed text");
    let forged = forged.set("To", &format!("+{to}")).set("From", "+15005550006");
    let forgery =
        Forgery::of_request("a GET", Reason::AmbiguousFields, request, &[&genuine, &forged]);
    all_change_nothing(stack, &[forgery]).await
}

async fn form_is_not_cut_into_a_hashed_body(stack: &Stack) -> Result<()> {
    let body = r#"{"event":"forged"}"#;
    let genuine = empty(&format!("{OTHER}?x=1"))
        .set("answer", &format!("&bodySHA256={}", hash_body(body.as_bytes())));
    let request = Request { method: "POST".to_owned(), ..as_get(stack, &genuine).await? };
    let request =
        Request { body: body.into(), ..request }.header("Content-Type", "application/json");
    refused(stack, &request, Reason::AmbiguousFields).await?;
    // The same body with the hash that Twilio makes of it is another webhook, and it passes.
    let signed = stack.json_as(OTHER, body, Signing::default()).await?;
    ensure!(stack.send(&signed).await?.status == 200);
    arrived(stack, &signed).await?;
    Ok(())
}

/// The refusal must name the setting to change, to the caller and in Envoy's log.
async fn is_explained(
    stack: &Stack,
    response: &Response,
    reason: Reason,
    setting: &str,
) -> Result<()> {
    is_refusal(response, reason)?;
    ensure!(response.text().contains(setting), "{}", response.text());
    let log = stack.envoy.log()?;
    let lines = || log.lines().filter(|line| line.contains("webhook rejected"));
    let is_logged = lines().any(|line| line.contains(reason.slug()) && line.contains(setting));
    ensure!(is_logged, "no line names {reason:?} and {setting:?}");
    Ok(())
}

async fn default_route_refuses_a_get(stack: &Stack) -> Result<()> {
    for form in [Form::inbound("GET"), Form::status("sent"), Form::other()] {
        let get = stack.get_as(&form, Signing::default()).await?;
        let response = stack.send(&get).await?;
        let setting = "add it to the route's methods in the filter's configuration";
        is_explained(stack, &response, Reason::MethodNotEnabled, setting).await?;
        assert_eq!(response.status, 405);
        assert_eq!(response.header("allow").as_deref(), Some("POST"));
        stack.nothing_reached(&get).await?;
        // The same webhook as a form is what the route accepts.
        let post = stack.post(&form).await?;
        assert_eq!(stack.send(&post).await?.status, 200);
        arrived(stack, &post).await?;
    }
    Ok(())
}

async fn default_route_refuses_a_hashed_body(stack: &Stack) -> Result<()> {
    let body = r#"{"specversion":"1.0","type":"com.twilio.messaging.message.sent"}"#;
    for target in [INBOUND, STATUS, OTHER, PLAIN_OTHER, BELOW_ANY] {
        let request = stack.json_as(target, body, Signing::default()).await?;
        let response = stack.send(&request).await?;
        let setting = "add form or hash to the route's bodies in the filter's configuration";
        is_explained(stack, &response, Reason::BodyNotEnabled, setting)
            .await
            .with_context(|| target.to_owned())?;
        assert_eq!(response.status, 415, "{target}");
        stack.nothing_reached(&request).await?;
    }
    Ok(())
}

async fn prefix_route_reads_no_form_from_its_path(stack: &Stack) -> Result<()> {
    let mut forgeries = Vec::new();
    for (prefix, what, reason) in [
        (BELOW, "a route for POST", Reason::MethodNotEnabled),
        (BELOW_ANY, "a route for GET and POST", Reason::AmbiguousFields),
    ] {
        let (sid, to) = (fresh_sid("SM"), fresh_phone());
        let genuine = Form::status("failed")
            .to(&format!("{prefix}x"))
            .set("ChannelStatusMessage", &format!("x?{}", status_query(&sid, &to)));
        let request = as_get(stack, &genuine).await?;
        let forged = empty(prefix).set("MessageSid", &sid).set("To", &to);
        forgeries.push(Forgery::of_request(what, reason, request, &[&genuine, &forged]));
    }
    all_change_nothing(stack, &forgeries).await?;
    // The original webhooks are no forgeries, so the routes work.
    for prefix in [BELOW, BELOW_ANY] {
        let request = stack.post(&Form::status("failed").to(&format!("{prefix}x"))).await?;
        assert_eq!(stack.send(&request).await?.status, 200);
        arrived(stack, &request).await?;
    }
    let form = Form::status("failed").to(&format!("{BELOW_ANY}x"));
    let request = stack.get_as(&form, Signing::default()).await?;
    assert_eq!(stack.send(&request).await?.status, 200);
    arrived(stack, &request).await?;
    Ok(())
}

async fn signature_stays_at_the_filter(stack: &Stack) -> Result<()> {
    let settings = "x-twilio-webhooks-signature-settings";
    for (target, is_forwarded) in [(PRIVATE, false), (INBOUND, true)] {
        let request = stack.post(&Form::inbound("private").to(target)).await?;
        assert_eq!(stack.send(&request).await?.status, 200);
        let seen = arrived(stack, &request).await?;
        assert_eq!(seen.header("x-twilio-signature").is_some(), is_forwarded, "{target}");
    }
    let request = stack.post(&Form::inbound("settings").to(PRIVATE)).await?;
    let request = request.header(settings, "algorithm=HMAC_SHA1");
    assert_eq!(stack.send(&request).await?.status, 200);
    let seen = arrived(stack, &request).await?;
    assert_eq!(seen.header(settings), None);
    Ok(())
}
