use proptest::prelude::*;

use super::*;

fn claim(form: &str) -> Claim {
    let identity = Identity {
        class: Class::Inbound,
        account_sid: "AC1".into(),
        message_sid: "SM1".into(),
        status: None,
        error_code: None,
    };
    Claim::new("c1".into(), identity, "/in".into(), form.into())
}

fn read(form: &str) -> Webhook {
    Webhook::from_claim(
        claim(form),
        &crate::defaults::section::<crate::optout::Keywords>("optout").lexicon().unwrap(),
    )
    .unwrap()
}

proptest! {
    /// Expected result: the first parameters of the whole form, decoded.
    #[test]
    fn parameters_are_those_of_the_form(form in "([FTo%+=&a46rm]|From=|To=|&|=|%46rom|Fr%6Fm|é|%ff){0,16}") {
        let first = |wanted: &str| {
            let mut all = form_urlencoded::parse(form.as_bytes());
            all.find(|(name, _)| name == wanted).map(|(_, value)| value)
        };
        let found = parameters(&form, ["From", "To"]).map(|found| found.map(Parameter::value));
        prop_assert_eq!(found, [first("From"), first("To")]);
    }

    /// A body that is not decoded is never a keyword.
    #[test]
    fn words_are_words(body in "([a-z0-9é+&=!]|%[0-9A-F]{2}|%|%C3%A9|STOP|%20){0,8}") {
        let parameter = Parameter(&body);
        if parameter.has_more_words(1) {
            let value = parameter.value();
            let words = value.split_whitespace();
            let words = words.filter(|word| word.chars().any(char::is_alphanumeric));
            prop_assert!(words.count() > 1, "{}", value);
        }
    }
}

#[test]
fn whatsapp_stop_is_read_from_its_form() {
    let webhook = read("From=whatsapp%3A%2B15551234567&To=whatsapp%3A%2B15559&Body=+Stop%21");
    let inbound = webhook.inbound.unwrap();
    assert_eq!(inbound.participants.theirs, Address::parse("whatsapp:+15551234567").unwrap());
    assert_eq!(inbound.participants.ours, "+15559");
    assert_eq!(inbound.opt, Some((Opt::Stop, Cause::Keyword)));
    assert_eq!(webhook.key, "inbound:AC1:SM1");
}

#[test]
fn keyword_of_a_language_is_read_with_it() {
    let locales = vec!["fr".into()];
    let french = crate::optout::Keywords { locales, ..crate::defaults::section("optout") };
    let french = french.lexicon().unwrap();
    let languages = |rest: &str| {
        let form = format!("From=whatsapp%3A%2B15551234567&To=whatsapp%3A%2B15559&{rest}");
        Webhook::from_claim(claim(&form), &french).unwrap().inbound.unwrap().languages
    };
    assert_eq!(languages("Body=arr%C3%AAt%20!"), ["fr"]);
    assert_eq!(languages("Body=ARRET&ButtonText=ARRET"), ["fr"]);
    assert!(languages("Body=stop").is_empty(), "STOP is a keyword of all languages");
    assert!(languages("Body=bonjour").is_empty());
    assert!(languages("Body=bonjour&ButtonText=bonjour").is_empty());
}

#[test]
fn user_id_beside_a_number_is_linked_and_certain_if_it_has_one_place() {
    let links = |rest: &str| {
        let form = format!("From=whatsapp%3A%2B14155557903&To=whatsapp%3A%2B15559&{rest}");
        read(&form).inbound.unwrap().links
    };
    let found = links("Body=hi&ExternalUserId=whatsapp%3AUS.3149&Username=ada");
    let link = Link {
        account_sid: "AC1".into(),
        number: "+14155557903".into(),
        user_id: "US.3149".into(),
        is_certain: true,
    };
    assert_eq!(found, [link]);
    let found =
        links("Body=hi&ExternalUserId=whatsapp%3AUS.3149&ParentExternalUserId=whatsapp%3AUS.ENT.7");
    assert!(found.len() == 2 && found.iter().all(|link| link.is_certain), "{found:?}");
    // The writer's own id is hidden in a parameter name that Twilio does not document.
    for cut in [
        "Body=hi&ExternalUserId=whatsapp%3AUS.1&ExternalUserIdw=hatsapp%3AUS.3149",
        "Body=hi+ExternalUserIdwhatsapp%3AUS.1&ExternalUserId=whatsapp%3AUS.3149",
    ] {
        assert!(links(cut).iter().all(|link| !link.is_certain), "{cut}");
    }
    for none in [
        "Body=hi",
        "ExternalUserId=US.3149",
        "ExternalUserId=whatsapp%3Aus.1",
        "ExternalUserId=whatsapp%3AUS.3whatsapp%3AUS.1",
    ] {
        assert_eq!(links(none), [], "{none}");
    }
    let by_id =
        read("From=whatsapp%3AUS.3149&To=whatsapp%3A%2B15559&ExternalUserId=whatsapp%3AUS.3149");
    assert_eq!(by_id.inbound.unwrap().links, []);
}

#[test]
fn status_is_about_the_recipient() {
    let form = "MessageStatus=sent&To=whatsapp%3A%2B15551234567&From=whatsapp%3A%2B15559";
    let mut claim = claim(form);
    (claim.identity.class, claim.identity.status) = (Class::Status, Some("sent".into()));
    let webhook = Webhook::from_claim(claim, &Lexicon::default()).unwrap();
    assert_eq!(webhook.inbound, None, "it opens no window");
    let participants = webhook.participants().unwrap();
    assert_eq!(participants.theirs, Address::parse("whatsapp:+15551234567").unwrap());
    assert_eq!(participants.ours, "+15559");
}

fn status(form: &str, word: &str, code: Option<&str>) -> Webhook {
    let mut claim = claim(form);
    (claim.identity.class, claim.identity.status) = (Class::Status, Some(word.into()));
    claim.identity.error_code = code.map(Into::into);
    let lexicon = crate::defaults::section::<crate::optout::Keywords>("optout").lexicon().unwrap();
    Webhook::from_claim(claim, &lexicon).unwrap()
}

#[test]
fn status_without_sender_is_about_its_recipient() {
    for form in ["To=%2B15551234567", "From=&To=%2B15551234567", "From=+&To=%2B15551234567"] {
        let webhook = status(form, "failed", Some("21610"));
        let participants = webhook.outbound.clone().unwrap();
        assert_eq!(participants.theirs, Address::parse("+15551234567").unwrap(), "{form}");
        assert_eq!(participants.ours, "", "{form}");
        assert!(webhook.suppresses, "{form}");
        assert_eq!(webhook.ordering_key(), "AC1:sms:+15551234567");
    }
}

#[test]
fn status_of_an_inbound_message_is_about_its_sender() {
    let form = "From=%2B15551234567&To=%2B15550000001";
    for (word, code) in
        [("failed", Some("30039")), ("receiving", None), ("received", Some("21610"))]
    {
        let webhook = status(form, word, code);
        assert_eq!(webhook.ordering_key(), "AC1:sms:+15551234567", "{word}");
        assert!(webhook.is_about_inbound && !webhook.suppresses, "{word}");
    }
    let failed = status(form, "failed", Some("21610"));
    assert_eq!(failed.ordering_key(), "AC1:sms:+15550000001");
    let known = failed.about_inbound();
    assert_eq!(known.ordering_key(), "AC1:sms:+15551234567");
    assert!(!known.suppresses);
}

#[test]
fn failure_is_looked_up_only_where_it_may_be_of_an_inbound_message() {
    let form = "From=%2B15551234567&To=%2B15550000001";
    for (word, code, may_be) in [
        ("failed", None, true),
        ("failed", Some("30009"), true),
        ("failed", Some("99999"), true),
        // Its error code would suppress.
        ("failed", Some("21610"), true),
        ("failed", Some("30003"), false),
        ("failed", Some("63016"), false),
        ("undelivered", None, false),
        ("delivered", None, false),
        ("sent", Some("99999"), false),
        // The status itself already names the direction.
        ("failed", Some("30039"), false),
        ("receiving", None, false),
    ] {
        let webhook = status(form, word, code);
        assert_eq!(webhook.may_be_about_inbound(), may_be, "{word} {code:?}");
    }
    let own = Webhook { message_id: Some("ms_1".into()), ..status(form, "failed", None) };
    assert!(!own.may_be_about_inbound(), "the signed URL names a message of ours");
    assert!(!status("Body=x", "failed", None).may_be_about_inbound(), "no contact is named");
}

#[test]
fn reply_by_button_opts_out_by_an_unambiguous_word_only() {
    let opt = |rest: &str| {
        let form = format!("From=whatsapp%3A%2B15551234567&To=whatsapp%3A%2B15559&{rest}");
        read(&form).inbound.unwrap().opt
    };
    let stop = Some((Opt::Stop, Cause::Keyword));
    for rest in [
        "Body=Cancel&ButtonText=Cancel&ButtonPayload=appt_cancel_123&MessageType=button",
        "Body=Yes&ButtonText=Yes",
        "Body=End&ListTitle=End&ListId=row_9",
        "Body=Quit&MessageType=interactive",
        "Body=Start&ButtonPayload=START",
    ] {
        assert_eq!(opt(rest), None, "{rest}");
    }
    for rest in [
        "Body=Stop&ButtonText=Stop&ButtonPayload=x1",
        "Body=No+more+offers&ButtonText=No+more+offers&ButtonPayload=STOP",
        "Body=Unsubscribe&ListTitle=Unsubscribe&ListId=1",
        "Body=Cancel&ButtonText=&ButtonPayload=&MessageType=text",
        "Body=Cancel&MessageType=text",
    ] {
        assert_eq!(opt(rest), stop, "{rest}");
    }
    let twilios = opt("Body=Cancel&ButtonText=Cancel&OptOutType=STOP");
    assert_eq!(twilios, Some((Opt::Stop, Cause::OptOutType)));
}

#[test]
fn form_without_a_sender_is_stored() {
    let webhook = read("Body=STOP");
    assert_eq!(webhook.inbound, None);
    assert_eq!(webhook.form, "Body=STOP");
}

#[test]
fn no_form_can_hold_what_a_text_column_refuses() {
    assert_eq!(read("From=%2B1&Body=a\0b").form, "From=%2B1&Body=a%00b");
}

#[test]
fn invalid_field_is_refused_by_name_before_a_store_sees_it() {
    let lexicon = Lexicon::default();
    let refused = |change: fn(&mut Claim)| {
        let mut claim = claim("Body=hi");
        change(&mut claim);
        Webhook::from_claim(claim, &lexicon).unwrap_err()
    };
    assert!(refused(|c| c.claim_id.clear()).starts_with("claim_id:"));
    assert!(refused(|c| c.claim_id = "x".repeat(256)).starts_with("claim_id:"));
    assert!(refused(|c| c.identity.account_sid = "AC:1".into()).starts_with("account_sid:"));
    assert!(refused(|c| c.identity.message_sid = "SM\0".into()).starts_with("message_sid:"));
    assert!(refused(|c| c.identity.class = Class::Other).starts_with("class:"));
    assert!(refused(|c| c.identity.class = Class::Status).starts_with("status:"));
    assert!(refused(|c| c.route = "/\n".into()).starts_with("route:"));
}
