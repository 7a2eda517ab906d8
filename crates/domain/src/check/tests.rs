use super::*;
use crate::{
    address::Address,
    suppression::{EVERY_CHANNEL, Source},
};

const DAY: i64 = 24 * 60 * 60 * 1000;
const NOW: i64 = 1_000 * DAY;

fn suppressed(source: Source, error_code: &str, channel: &str, since_ms: i64) -> Suppression {
    Suppression {
        account_sid: "AC1".into(),
        address: Address { channel: channel.into(), number: "+16132345678".into() },
        source,
        error_code: error_code.into(),
        is_open: true,
        since_ms,
        expires_at_ms: None,
        changed_at_ms: since_ms,
        message_sid: None,
        route: None,
        origin_channel: Some("whatsapp".into()),
        sender: None,
        service_sid: None,
        changed_by: None,
    }
}

fn consent(state: State, at_ms: i64) -> Consent {
    Consent {
        account_sid: "AC1".into(),
        address: Address::parse("whatsapp:+16132345678").unwrap(),
        category: Category::Marketing,
        state,
        at_ms,
        source: "form".into(),
        proof: None,
        ip: None,
        user_agent: None,
        recorded_at_ms: at_ms,
        recorded_by: "key 1".into(),
        stored_id: None,
    }
}

/// Returns the failing codes for a marketing template to a Canadian number on WhatsApp.
fn refuse(facts: Facts) -> Vec<(RefusalCode, Actor)> {
    let question = Question {
        channel: "whatsapp",
        number: "+16132345678",
        category: Category::Marketing,
        kind: Kind::Template,
    };
    codes(&question, &facts)
}

fn codes(question: &Question<'_>, facts: &Facts) -> Vec<(RefusalCode, Actor)> {
    let policy: crate::policy::Policy = crate::defaults::section("policy");
    let verdicts = may_send(&policy, question, facts, NOW);
    assert_eq!(verdicts.len(), 4, "every rule answers");
    for verdict in &verdicts {
        assert_eq!(verdict.ok, verdict.code.is_none(), "{verdict:?}");
        assert!(!verdict.detail.contains("613"), "{verdict:?}");
    }
    verdicts.iter().filter_map(|verdict| verdict.code.zip(verdict.actor)).collect()
}

#[test]
fn rules_return_independent_verdicts() {
    let fresh = || Some(consent(State::Granted, NOW - 10 * DAY));
    let stop = |since| suppressed(Source::Keyword, "", "whatsapp", since);
    let ended = |known: Suppression| Suppression { is_open: false, ..known };
    let with = |suppressions: Vec<Suppression>, consent| {
        refuse(Facts { suppressions, consent, ..Facts::default() })
    };
    let recipient = (RefusalCode::Suppressed, Actor::Recipient);
    let administrator = (RefusalCode::Suppressed, Actor::Administrator);
    let no_consent = (RefusalCode::NoConsent, Actor::Caller);
    assert_eq!(with(vec![], fresh()), []);
    assert_eq!(with(vec![], None), [no_consent]);
    assert_eq!(with(vec![], Some(consent(State::Withdrawn, NOW - DAY))), [no_consent]);
    let stale = (RefusalCode::ConsentStale, Actor::Caller);
    assert_eq!(with(vec![], Some(consent(State::Granted, NOW - 180 * DAY))), [stale]);
    assert_eq!(with(vec![], Some(consent(State::Granted, NOW - 179 * DAY))), []);

    assert_eq!(with(vec![stop(NOW - DAY)], fresh()), [recipient, no_consent]);
    assert_eq!(with(vec![ended(stop(NOW - DAY))], fresh()), [no_consent], "a START is no consent");
    assert_eq!(with(vec![ended(stop(NOW - 11 * DAY))], fresh()), [], "given after the STOP");
    let by_us = suppressed(Source::Administrator, "", EVERY_CHANNEL, NOW - DAY);
    assert_eq!(with(vec![by_us.clone()], fresh()), [administrator]);
    assert_eq!(with(vec![ended(by_us.clone())], fresh()), [], "no word of the person");
    assert_eq!(with(vec![stop(NOW - 20 * DAY), by_us], fresh()), [administrator]);
    let blocked = suppressed(Source::Callback, "63014", "whatsapp", NOW - 20 * DAY);
    assert_eq!(with(vec![blocked], fresh()), [administrator]);
    assert_eq!(with(vec![suppressed(Source::Keyword, "", "sms", NOW)], fresh()), []);
}

#[test]
fn expiring_suppression_refuses_up_to_its_last_millisecond() {
    let until = |expires_at_ms| Suppression {
        expires_at_ms: Some(expires_at_ms),
        ..suppressed(Source::Application, "", "whatsapp", NOW - DAY)
    };
    let consent = Some(consent(State::Granted, NOW - DAY));
    let with =
        |suppressions| refuse(Facts { suppressions, consent: consent.clone(), ..Facts::default() });
    assert_eq!(with(vec![until(NOW)]), []);
    let administrator = (RefusalCode::Suppressed, Actor::Administrator);
    assert_eq!(with(vec![until(NOW + 1)]), [administrator]);
    let stop = suppressed(Source::Keyword, "", "whatsapp", NOW - 2 * DAY);
    let recipient = (RefusalCode::Suppressed, Actor::Recipient);
    assert_eq!(with(vec![until(NOW), stop]), [recipient], "the STOP outlasts the other one");
}

#[test]
fn free_text_takes_an_open_window_where_there_is_one() {
    let question = |channel, kind: Kind| Question {
        channel,
        number: "+16132345678",
        category: kind.default_category(),
        kind,
    };
    let wrote = |ago: i64| Facts { last_inbound_ms: Some(NOW - ago), ..Facts::default() };
    let closed = [(RefusalCode::WindowClosed, Actor::Caller)];
    let session = question("whatsapp", Kind::Session);
    assert_eq!(codes(&session, &Facts::default()), closed);
    assert_eq!(codes(&session, &wrote(DAY)), closed);
    assert_eq!(codes(&session, &wrote(DAY - 1)), []);
    assert_eq!(codes(&question("sms", Kind::Session), &Facts::default()), []);
}
