use std::collections::BTreeMap;

use super::*;
use crate::{
    address::Address,
    sending::routing::Routing,
    template::{Approval, catalogue},
};

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn text(body: &str, media: &[&str]) -> Content {
    let media = media.iter().map(|url| (*url).to_owned()).collect();
    Content::Session { body: body.to_owned(), media }
}

fn codes(sender: Option<&str>, content: Content, to: &str) -> Vec<&'static str> {
    codes_of(&request(sender, content, to), &MediaCheck::Valid, Vec::new())
}

fn request(sender: Option<&str>, content: Content, to: &str) -> Request {
    let account_sid = "AC00112233445566778899aabbccddeeff".to_owned();
    Request {
        sender: sender.map(|from| Sender::From(address(from))),
        ..Request::new(account_sid, address(to), content)
    }
}

fn codes_of(
    request: &Request,
    media: &MediaCheck,
    checks: Vec<check::Verdict>,
) -> Vec<&'static str> {
    let routing = Routing::parse("deny_countries: [FR]").unwrap();
    let routes = routing.of(&request.account_sid);
    let offers = Vec::new();
    let facts =
        Facts { has_credentials: true, has_email_templates: true, routes, checks, media, offers };
    let verdicts = evaluate(request, facts);
    assert!(verdicts.iter().all(|verdict| verdict.ok == verdict.code.is_none()));
    verdicts.iter().filter_map(|verdict| verdict.code.map(RefusalCode::as_str)).collect()
}

/// Returns the verdict about a template of the catalogue, on a channel, with an open or closed window.
fn of_template(
    approval: Approval,
    to: &str,
    is_closed: bool,
    variables: &[(&str, &str)],
) -> Vec<&'static str> {
    let template = catalogue::template("a", "en", approval);
    let given = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let content =
        Content::Template { content_sid: template.content_sid.clone(), variables: given.collect() };
    let from = to.replace("2345678", "5550100");
    let asked = Request { template: Some(template), ..request(Some(&from), content, to) };
    let window = check::Verdict {
        rule: check::Rule::Window,
        ok: !is_closed,
        code: is_closed.then_some(RefusalCode::WindowClosed),
        detail: String::new(),
        actor: None,
    };
    codes_of(&asked, &MediaCheck::NoMedia, vec![window])
}

#[test]
fn template_verdict_follows_the_approval() {
    use Approval::{Approved, Paused, Pending, Rejected, Unsubmitted};
    let (whatsapp, sms) = ("whatsapp:+16132345678", "+16132345678");
    let ada = &[("1", "Ada")];
    assert_eq!(of_template(Approved, whatsapp, false, ada), [""; 0]);
    for barred in [Paused, Rejected, Approval::Disabled] {
        assert_eq!(of_template(barred, whatsapp, false, ada), ["template_not_approved"]);
        assert_eq!(of_template(barred, sms, false, ada), [""; 0], "only WhatsApp asks");
    }
    for free in [Pending, Unsubmitted] {
        assert_eq!(of_template(free, whatsapp, false, ada), [""; 0], "within a window");
        let codes = ["template_not_approved", "window_closed"];
        assert_eq!(of_template(free, whatsapp, true, ada), codes);
    }
    assert_eq!(of_template(Approved, whatsapp, false, &[]), ["variables_rejected"]);
    let named = Content::Named { name: "b".into(), variables: BTreeMap::new() };
    assert_eq!(codes(Some("+16135550100"), named, sms), ["template_unknown"]);
}

#[test]
fn category_is_that_of_the_registered_template() {
    use crate::{check::Kind, policy::Category};
    let content = || Content::Template { content_sid: "HX".into(), variables: BTreeMap::new() };
    let to = "whatsapp:+16132345678";
    let unknown = request(None, content(), to);
    assert_eq!((unknown.category(), unknown.kind()), (Category::Marketing, Kind::Template));
    let template = |approval| Some(catalogue::template("a", "en", approval));
    let known = Request { template: template(Approval::Approved), ..unknown };
    assert_eq!((known.category(), known.kind()), (Category::Utility, Kind::Template));
    let pending = Request { template: template(Approval::Pending), ..known.clone() };
    assert_eq!((pending.category(), pending.kind()), (Category::Utility, Kind::Session));
    let said = Request { category: Some(Category::Authentication), ..known };
    assert_eq!(said.category(), Category::Authentication);
    assert_eq!(request(None, text("hi", &[]), to).category(), Category::Service);
}

#[test]
fn rules_return_independent_verdicts() {
    let (ours, to) = ("whatsapp:+16135550100", "whatsapp:+16132345678");
    let hello = || text("hello", &[]);
    assert_eq!(codes(Some(ours), hello(), to), [""; 0]);
    assert_eq!(codes(None, hello(), to), ["sender_unknown"]);
    assert_eq!(codes(Some("+16135550100"), hello(), to), ["sender_unknown"]);
    assert_eq!(codes(Some(to), hello(), to), ["sender_unknown"]);
    assert_eq!(codes(Some(ours), hello(), "whatsapp:+33612345678"), ["region_blocked"]);
    assert_eq!(codes(Some(ours), text(&"x".repeat(1601), &[]), to), ["content_rejected"]);
    assert_eq!(codes(Some(ours), text(&"é".repeat(1600), &[]), to), [""; 0]);
    let landline = "493012345678";
    let to_landline = |channel: &str| format!("{channel}+{landline}");
    assert_eq!(codes(Some("+16135550100"), hello(), &to_landline("")), ["invalid_recipient"]);
    assert_eq!(codes(Some(ours), hello(), &to_landline("whatsapp:")), [""; 0]);
    let medium = request(Some(ours), text("", &["https://a.example/1"]), to);
    let media = |looked| codes_of(&medium, &looked, Vec::new());
    for (why, code) in [
        (MediaProblemKind::NotPublic, "media_rejected"),
        (MediaProblemKind::Mismatch, "media_rejected"),
        (MediaProblemKind::Size, "media_too_large"),
        (MediaProblemKind::Status, "media_unreachable"),
    ] {
        assert_eq!(media(MediaCheck::Invalid(0, MediaProblem::new(why, "is not"))), [code]);
    }
    assert_eq!(media(MediaCheck::NotFetched("media.check is off")), [""; 0]);
    let template = Content::Template { content_sid: "HX".into(), variables: BTreeMap::new() };
    assert_eq!(
        codes(None, template, "whatsapp:+33612345678"),
        ["sender_unknown", "region_blocked"]
    );
}
