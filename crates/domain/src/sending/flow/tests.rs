use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::sending::errors::built_in;

const ID: &str = "ms_00112233445566778899aabbccddeeff";

fn flow_sid() -> String {
    format!("FW{}", "1".repeat(32))
}

fn execution_sid(digit: char) -> String {
    format!("FN{}", digit.to_string().repeat(32))
}

fn request() -> FlowRequest {
    let on = |number: &str| Address { channel: "whatsapp".into(), number: number.into() };
    FlowRequest {
        account_sid: "AC".into(),
        flow_sid: flow_sid(),
        to: on("+15551234567"),
        sender: Some(Sender::From(on("+14155238886"))),
        parameters: json!({"name": "Ada"}).as_object().unwrap().clone(),
        first_message: Kind::Session,
        category: None,
        metadata: Metadata::default(),
    }
}

fn pairs(form: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(form.as_bytes()).into_owned().collect()
}

#[test]
fn form_has_the_addresses_and_the_parameters_with_our_id() {
    let form = request().form(ID);
    let pairs = pairs(&form);
    assert_eq!(pairs[0], ("To".to_owned(), "whatsapp:+15551234567".to_owned()));
    assert_eq!(pairs[1], ("From".to_owned(), "whatsapp:+14155238886".to_owned()));
    let parameters: Value = serde_json::from_str(&pairs[2].1).unwrap();
    assert_eq!(parameters, json!({"name": "Ada", "twilio_edge_id": ID}));
    assert_eq!(sender_of_form(&form).unwrap().number, "+14155238886");
    let service = Some(Sender::Service(format!("MG{}", "0".repeat(32))));
    assert_eq!(sender_of_form(&FlowRequest { sender: service, ..request() }.form(ID)), None);
}

#[test]
fn parameters_are_bounded_and_leave_our_id_free() {
    let of = |parameters: Value| parameters_problem(parameters.as_object().unwrap());
    assert_eq!(of(json!({"name": "Ada"})), None);
    assert!(of(json!({"twilio_edge_id": "ms_"})).unwrap().starts_with("must not have"));
    assert!(of(json!({"text": "x".repeat(MAX_PARAMETERS)})).unwrap().starts_with("must have"));
}

#[test]
fn answer_means_started_refused_or_unknown() {
    let http = |status: u16, body: String| CallResponse::Http {
        status,
        retry_after: None,
        body: body.into_bytes(),
    };
    let started = json!({"sid": execution_sid('a'), "status": "active"}).to_string();
    assert_eq!(
        start_outcome(http(201, started), &built_in()),
        SendOutcome::Sent { message_sid: execution_sid('a') }
    );
    for (answer, expected) in [
        (http(201, "{\"sid\":\"SM1\"}".to_owned()), "unknown"),
        (http(400, "{\"code\":84004,\"message\":\"wrong\"}".to_owned()), "refused"),
        (http(404, "{\"code\":20404}".to_owned()), "refused"),
        (http(429, "{\"code\":20429}".to_owned()), "retry"),
        (http(500, String::new()), "unknown"),
        (CallResponse::Lost(String::new()), "unknown"),
        (CallResponse::NotConnected(String::new()), "retry"),
    ] {
        let outcome = match start_outcome(answer.clone(), &built_in()) {
            SendOutcome::Sent { .. } => "sent",
            SendOutcome::Retry { .. } => "retry",
            SendOutcome::Refused { .. } => "refused",
            SendOutcome::Unknown { .. } => "unknown",
        };
        assert_eq!(outcome, expected, "{answer:?}");
    }
}

#[test]
fn execution_is_ours_by_contact_time_and_id() {
    let form = request().form(ID);
    let begun_ms = instant("2026-11-30T12:00:00Z").unwrap();
    let search = ExecutionSearch { form: &form, begun_ms, until_ms: begun_ms + 15_000 };
    let execution = |to: &str, at: &str| Execution {
        sid: execution_sid('a'),
        contact_channel_address: Some(to.to_owned()),
        status: None,
        date_created: Some(at.to_owned()),
    };
    let theirs = "whatsapp:+15551234567";
    for (to, at, is_candidate) in [
        (theirs, "2026-11-30T12:00:05Z", true),
        (theirs, "2026-11-30T11:58:59Z", false),
        (theirs, "2026-11-30T12:01:16Z", false),
        ("+15551234567", "2026-11-30T12:00:05Z", false),
    ] {
        assert_eq!(search.may_be(&execution(to, at)), is_candidate, "{to} {at}");
    }
    assert!(has_id(
        format!("{{\"flow\":{{\"data\":{{\"twilio_edge_id\":\"{ID}\"}}}}}}").as_bytes(),
        ID
    ));
    assert!(!has_id(b"{}", ID) && !has_id(b"{}", ""));
    let (one, two) = (execution_sid('a'), execution_sid('b'));
    assert_eq!(search.conclude(std::slice::from_ref(&one), false), Match::Found(one.clone()));
    assert_eq!(search.conclude(&[], true), Match::Absent);
    assert_eq!(search.conclude(&[], false), Match::Unclear);
    assert_eq!(search.conclude(&[one, two], true), Match::Unclear);
}

fn triggers(value: Value) -> Result<Vec<FlowTrigger>, Vec<String>> {
    FlowTrigger::read_all(&value)
}

#[test]
fn trigger_admits_the_messages_that_meet_every_condition() {
    let message = ReceivedMessage {
        route: "/twilio/inbound",
        channel: "whatsapp",
        number: "+14155238886",
        text: " Book ",
    };
    for (conditions, admits) in [
        (json!({}), true),
        (json!({"texts": ["book", "reserve"]}), true),
        (json!({"texts": ["reserve"]}), false),
        (json!({"channels": ["whatsapp"], "numbers": ["+14155238886"]}), true),
        (json!({"channels": ["sms"]}), false),
        (json!({"numbers": ["+14155238887"]}), false),
        (json!({"routes": ["/twilio/inbound"]}), true),
        (json!({"routes": ["/other"]}), false),
    ] {
        let mut trigger = conditions.clone();
        trigger["flow"] = flow_sid().into();
        let read = triggers(json!([trigger])).unwrap();
        assert_eq!(read[0].admits(message), admits, "{conditions}");
    }
}

#[test]
fn triggers_report_all_problems_at_once() {
    let found = triggers(json!([
        {"flow": "FW1", "texts": [" "]},
        {"flow": flow_sid(), "parameters": {"twilio_edge_id": 1}},
    ]));
    let problems = found.unwrap_err();
    for path in
        ["[0].flow: must be FW", "[0].texts: must have no empty", "[1].parameters: must not"]
    {
        assert!(problems.iter().any(|problem| problem.starts_with(path)), "{path} {problems:?}");
    }
    assert!(triggers(json!([{"flow": flow_sid(), "text": []}])).is_err(), "an unknown field");
    assert!(triggers(json!(7)).is_err());
}

proptest! {
    #[test]
    fn form_of_any_parameters_is_read_back(name in "\\PC{0,12}", value in "\\PC{0,40}") {
        prop_assume!(name != ID_PARAMETER);
        let mut parameters = Parameters::new();
        parameters.insert(name.clone(), value.clone().into());
        let form = FlowRequest { parameters, ..request() }.form(ID);
        let read: Value = serde_json::from_str(&pairs(&form)[2].1).unwrap();
        prop_assert_eq!(read.get(&name), Some(&Value::from(value)));
    }

    #[test]
    fn any_context_is_searched_without_panic(context in prop::collection::vec(any::<u8>(), 0..60), id in "[a-z0-9_]{0,40}") {
        let _ = has_id(&context, &id);
    }
}
