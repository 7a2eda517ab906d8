//! The signed text of a genuine webhook, cut in another way: nothing forged reaches the backend or the sidecar, and
//! nothing genuine is refused.

use anyhow::{Result, ensure};
use serde_json::json;
use twilio_edge_contract::headers;
use twilio_edge_filter::reply::Reason;
use twilio_edge_wasm_tests::host::HttpMessage;
use twilio_edge_wasm_tests::webhook::{Form, INBOUND, OTHER, STATUS};

use super::{MakeScenario, Scenario, named, on_every_route};
use crate::request::Request;
use crate::world::{Record, Step};

const VICTIM: &str = "+14155559999";
const FORGED_SID: &str = "SM99999999999999999999999999999999";

pub(crate) fn scenarios() -> Vec<(&'static str, MakeScenario)> {
    named![
        text_is_not_cut_into_another_sender,
        text_is_not_cut_into_an_opt_out,
        button_title_is_not_cut_into_a_payload,
        status_is_not_cut_into_another,
        form_is_not_cut_into_a_get,
        get_is_not_cut_into_a_form,
        form_is_not_cut_into_another_body,
        method_that_is_not_listed_is_refused,
        signature_is_removed_if_the_route_disables_forwarding_it,
        genuine_messages_pass,
        genuine_statuses_pass,
        signed_request_passes_on_a_route_of_class_other,
    ]
}

/// The forged parameters with the genuine signature, which is theirs as well.
fn cut(genuine: &Form, forged: &Form) -> Result<Request> {
    let signed = Request::post(genuine)?;
    let forged = Request::post(forged)?;
    let same = ["x-twilio-signature"].map(|name| (signed.header(name), forged.header(name)));
    ensure!(same.iter().all(|(signed, forged)| signed == forged), "another text: {forged:?}");
    Ok(forged)
}

fn all_refused(record: &Record) -> Result<()> {
    ensure!(record.claims.is_empty(), "the sidecar was claims: {:?}", record.claims);
    for stream in 0..record.streams.len() {
        record.not_forwarded(stream)?;
        let reason = record.answered(stream, 403)?.header(headers::REASON).unwrap_or_default();
        ensure!(
            reason.ends_with("-fields")
                || ["unknown-parameter", "malformed-name", "malformed-field", "missing-field"]
                    .contains(&reason.as_str()),
            "stream {stream}: {reason}"
        );
    }
    Ok(())
}

fn all_forwarded(record: &Record) -> Result<()> {
    (0..record.streams.len())
        .try_for_each(|stream| record.forwarded(stream).map(|_: &HttpMessage| ()))
}

fn sent(requests: Vec<Request>) -> Vec<Step> {
    requests.into_iter().map(Step::Send).collect()
}

/// A WhatsApp message as Twilio sends it.
fn whatsapp(body: &str) -> Form {
    Form::inbound(body)
        .set("From", "whatsapp:+14155550123")
        .set("To", "whatsapp:+14155238886")
        .set("WaId", "14155550123")
        .set("ProfileName", "Ava From Body")
        .set("MessageType", "text")
}

fn text_is_not_cut_into_another_sender() -> Result<Scenario> {
    let swallowed = |form: &Form, names: &[&str]| -> String {
        let mut params = form.params.clone();
        params.sort();
        let kept = params.iter().filter(|(name, _)| names.iter().all(|it| it != name));
        kept.map(|(name, value)| format!("{name}{value}")).collect()
    };
    // The text holds a whole webhook, and `z` takes in the genuine one.
    let script = format!("From{VICTIM}MessageSid{FORGED_SID}To+15005550006z");
    let genuine = Form::inbound(&format!("STOP{script}"));
    let head = ["AccountSid", "ApiVersion", "Body"];
    let whole = Form { target: INBOUND.to_owned(), params: Vec::new() }
        .set("AccountSid", genuine.get("AccountSid"))
        .set("ApiVersion", "2010-04-01")
        .set("Body", "STOP")
        .set("From", VICTIM)
        .set("MessageSid", FORGED_SID)
        .set("To", "+15005550006")
        .set("z", &swallowed(&genuine, &head));
    let mut requests = vec![cut(&genuine, &whole)?];
    // The genuine sender becomes the value, or the name, of what Twilio sends behind it.
    let genuine = whatsapp(&format!("hiFromwhatsapp:{VICTIM}FromCarrier"));
    let value = genuine
        .clone()
        .set("Body", "hi")
        .set("From", &format!("whatsapp:{VICTIM}"))
        .add("FromCarrier", "Fromwhatsapp:+14155550123");
    requests.push(cut(&genuine, &value)?);
    // In signed order the name comes after those of places, so there are none.
    let genuine = ["FromCity", "FromCountry", "FromState", "FromZip"]
        .iter()
        .fold(whatsapp(&format!("hiFromwhatsapp:{VICTIM}")), |form, name| form.without(name));
    let name = genuine
        .clone()
        .set("Body", "hi")
        .set("From", &format!("whatsapp:{VICTIM}"))
        .add("Fromwhatsapp:+14155550123", "");
    requests.push(cut(&genuine, &name)?);
    // A text sender has no shape.
    let genuine = Form::inbound(&format!("hiFrom{VICTIM}FromCarrier")).set("From", "ACME");
    let text = genuine.clone().set("Body", "hi").set("From", VICTIM).add("FromCarrier", "FromACME");
    requests.push(cut(&genuine, &text)?);
    Ok(Scenario::new(sent(requests), all_refused))
}

/// The text of a pressed button stands twice in the signed text, as `Body` and as `ButtonText`.
fn button_title_is_not_cut_into_a_payload() -> Result<Scenario> {
    let title = "xButtonPayloadpay_all";
    let genuine = whatsapp(title)
        .set("ButtonText", title)
        .set("ButtonPayload", "yes")
        .set("MessageType", "button");
    // The last mention of the name is in the title.
    let later = genuine
        .clone()
        .without("ButtonText")
        .set("Body", "xButtonPayloadpay_allButtonPayloadyesButtonTextx")
        .set("ButtonPayload", "pay_all");
    // A text is not a button, with any content.
    let typed = whatsapp("stopButtonPayloadx").set("MessageType", "text");
    let pressed = typed
        .clone()
        .without("MessageType")
        .set("Body", "stop")
        .add("ButtonPayload", "x")
        .add("MessageTy", "petext");
    // The first mention is in the body.
    let earlier = genuine.clone().set("Body", "x").set("ButtonPayload", "pay_allButtonPayloadyes");
    Ok(Scenario::new(
        sent(vec![cut(&genuine, &later)?, cut(&genuine, &earlier)?, cut(&typed, &pressed)?]),
        all_refused,
    ))
}

fn text_is_not_cut_into_an_opt_out() -> Result<Scenario> {
    let genuine = Form::inbound("STOPCalling me");
    let shorter = genuine.clone().set("Body", "STOP").add("Calling", " me");
    let hidden = Form::inbound("STOP");
    let moved = hidden.clone().without("Body").add("BodyS", "TOP");
    let button = whatsapp("STOPButtonPayloadx");
    let payload = button.clone().set("Body", "STOP").add("ButtonPayload", "x");
    let profile = whatsapp("hi").set("ProfileName", "xOptOutTypeSTOPProfileNamey");
    let kind = profile
        .clone()
        .without("NumSegments")
        .set("ProfileName", "y")
        .add("NumSeg", "ments1ProfileNamex")
        .add("OptOutType", "STOP");
    Ok(Scenario::new(
        sent(vec![
            cut(&genuine, &shorter)?,
            cut(&hidden, &moved)?,
            cut(&button, &payload)?,
            cut(&profile, &kind)?,
        ]),
        all_refused,
    ))
}

fn status_is_not_cut_into_another() -> Result<Scenario> {
    let failed = Form::status("undelivered").set("ErrorCode", "63016");
    let shifted = failed.clone().without("ErrorCode").add("ErrorCode6", "3016");
    let hidden = failed.clone().without("ErrorCode").set("ApiVersion", "2010-04-01ErrorCode63016");
    let sender = failed.clone().without("From").set("ErrorUrl", "").without("ErrorUrl");
    let swallowed =
        sender.clone().without("ErrorCode").add("ErrorCode63016From", failed.get("From"));
    let plain = sender.clone().without("ErrorCode");
    let explained = plain.clone().add("ChannelStatusMessage", "hiFromStatetrue");
    let invented = plain.add("Channe", "lStatusMessagehi").add("From", "Statetrue");
    Ok(Scenario::new(
        sent(vec![
            cut(&failed, &shifted)?,
            cut(&failed, &hidden)?,
            cut(&failed, &swallowed)?,
            cut(&explained, &invented)?,
        ]),
        all_refused,
    ))
}

fn form_is_not_cut_into_a_get() -> Result<Scenario> {
    let pairs = format!(
        "x&AccountSid=AC00112233445566778899aabbccddeeff&MessageSid={FORGED_SID}&MessageStatus=failed&From=15005550006&To=14155559999"
    );
    let genuine =
        Form::status("failed").to(&format!("{STATUS}?x=1")).set("ChannelStatusMessage", &pairs);
    let signed = Request::post(&genuine)?;
    let mut params = genuine.params.clone();
    params.sort();
    let text: String = params.iter().map(|(name, value)| format!("{name}{value}")).collect();
    let get = Request::new("GET", &format!("{STATUS}?x=1{text}"), b"")
        .with("x-twilio-signature", signed.header("x-twilio-signature"));
    Ok(Scenario::new(sent(vec![get]), all_refused))
}

fn get_is_not_cut_into_a_form() -> Result<Scenario> {
    let text = format!(
        "AccountSidAC00112233445566778899aabbccddeeffFrom15005550006MessageSid{FORGED_SID}MessageStatusfailedTo14155559999Z"
    );
    let genuine = Form::status("failed");
    let genuine = Form {
        params: [vec![("Aa".to_owned(), text)], genuine.params.clone()].concat(),
        ..genuine
    };
    let signed = Request::get(&genuine)?;
    let target = signed.header(":path");
    let (before, rest) = target.split_once("Z&").unwrap_or_default();
    let (before, _) = before.split_once("AccountSidAC").unwrap_or_default();
    let forged = Form { target: before.to_owned(), params: Vec::new() }
        .set("AccountSid", "AC00112233445566778899aabbccddeeff")
        .set("From", "15005550006")
        .set("MessageSid", FORGED_SID)
        .set("MessageStatus", "failed")
        .set("To", "14155559999")
        .set("Z", &format!("&{rest}"));
    let posted = Request::post(&forged)?;
    ensure!(posted.header("x-twilio-signature") == signed.header("x-twilio-signature"));
    Ok(Scenario::new(sent(vec![posted]), all_refused))
}

fn form_is_not_cut_into_another_body() -> Result<Scenario> {
    let body = br#"{"event": "forged"}"#;
    let hash = twilio_edge_filter::signature::hash_body(body);
    let genuine = Form { target: format!("{OTHER}?x=1"), params: Vec::new() }
        .set("answer", &format!("&bodySHA256={hash}"));
    let signed = Request::post(&genuine)?;
    let forged = Request::new("POST", &format!("{OTHER}?x=1answer&bodySHA256={hash}"), body)
        .with("content-type", "application/json")
        .with("x-twilio-signature", signed.header("x-twilio-signature"));
    Ok(Scenario::new(sent(vec![forged]), all_refused))
}

fn method_that_is_not_listed_is_refused() -> Result<Scenario> {
    let request = Request::get(&Form::inbound("hello"))?;
    Ok(Scenario::new(sent(vec![request]), |record| {
        ensure!(record.answered(0, 405)?.header("allow").as_deref() == Some("POST"));
        record.refused(0, Reason::MethodNotEnabled)
    }))
}

fn signature_is_removed_if_the_route_disables_forwarding_it() -> Result<Scenario> {
    Ok(Scenario::new(sent(vec![Request::post(&Form::inbound("hello"))?]), |record| {
        ensure!(record.forwarded(0)?.header("x-twilio-signature").is_none());
        Ok(())
    })
    .configured(|configuration| on_every_route(configuration, "forward_signature", json!(false))))
}

fn genuine_messages_pass() -> Result<Scenario> {
    let mut forms = vec![
        Form::inbound("Body lotion From me To you"),
        Form::inbound("where are you From"),
        Form::inbound("MessageSid, AccountSid and ErrorCode 30003: what are they? HowTo101"),
        Form::inbound("hi").set("Mood", "good").set("ZoneOfTomorrow", "7"),
        Form::inbound("STOP").set("Mood", "good"),
        Form::inbound("hi").set("ErrorCode", "11200").set("ErrorUrl", "https://app.example.com/"),
        Form::inbound("hi").set("To", "12345"),
        whatsapp("hello From Ava"),
        whatsapp("Cancel")
            .set("MessageType", "button")
            .set("ButtonText", "Cancel")
            .set("ButtonPayload", "appt_cancel_123")
            .set("OriginalRepliedMessageSid", "SMaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        whatsapp("STOP")
            .set("ExternalUserId", "whatsapp:US.31491208655302741900")
            .set("Username", "ada"),
        whatsapp("hi")
            .without("WaId")
            .set("From", "whatsapp:US.31491208655302741900")
            .set("ExternalUserId", "whatsapp:US.31491208655302741900"),
        whatsapp("")
            .set("Label", "Gifts From Kashmir")
            .set("Address", "1 Body Street, To")
            .set("Latitude", "1.5"),
        Form::inbound("STOP").set("From", "rcs:+14155557901").set("To", "rcs:acme_h6ud9ab1_agent"),
    ];
    for sender in ["St Mary's", "Västtrafik", "*INFO*", "A/B", "50", "1234567890123456"] {
        forms.push(Form::inbound("Hello").set("From", sender));
    }
    let requests = forms.iter().map(Request::post).collect::<Result<Vec<_>>>()?;
    Ok(Scenario::new(sent(requests), all_forwarded))
}

fn genuine_statuses_pass() -> Result<Scenario> {
    let service = "MG11111111111111111111111111111111";
    let forms = [
        Form::status("failed")
            .without("From")
            .set("ErrorCode", "21610")
            .set("MessagingServiceSid", service),
        Form::status("canceled").set("From", "").set("MessagingServiceSid", service),
        Form::status("read")
            .set("From", "whatsapp:+14155238886")
            .set("To", "whatsapp:+14155557922")
            .set("EventType", "READ"),
    ];
    let requests = forms.iter().map(Request::post).collect::<Result<Vec<_>>>()?;
    Ok(Scenario::new(sent(requests), |record| {
        all_forwarded(record)?;
        let sender = |stream| record.forwarded(stream).map(|passed| passed.header(headers::FROM));
        ensure!(sender(0)?.is_none() && sender(1)?.is_none() && sender(2)?.is_some());
        Ok(())
    }))
}

fn signed_request_passes_on_a_route_of_class_other() -> Result<Scenario> {
    let form = |pairs: &[(&str, &str)]| {
        let empty = Form { target: OTHER.to_owned(), params: Vec::new() };
        pairs.iter().fold(empty, |form, (name, value)| form.add(name, value))
    };
    let forms = [
        form(&[("interactionAccountSid", "AC1"), ("interactionSid", "KI1")]),
        form(&[("phone", "+14155550123"), ("answer", "yes")]),
        form(&[("AccountSid", "my account"), ("a b", "=")]),
        form(&[]),
    ];
    let mut requests = forms.iter().map(Request::post).collect::<Result<Vec<_>>>()?;
    requests.push(Request::get(&forms[1])?);
    Ok(Scenario::new(sent(requests), all_forwarded))
}
