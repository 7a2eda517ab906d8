//! Forms of any bytes. Each is parsed or has too many parameters, and an accepted webhook agrees with the parsed form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twilio_edge_contract::Class;
use twilio_edge_filter::form::{Form, SignedParameters, Webhook};

fuzz_target!(|raw: &[u8]| {
    let Ok(form) = Form::parse(raw) else { return };
    let canonical: Vec<_> = form.canonical().collect();
    assert!(canonical.len() <= form.len());
    assert!(canonical.is_sorted());
    for class in [Class::Inbound, Class::Status, Class::Other] {
        let signed = SignedParameters::posted(&form, raw, "/in");
        let Ok(webhook) = Webhook::read(class, &signed) else { continue };
        assert!(std::str::from_utf8(raw).is_ok(), "an accepted form is UTF-8");
        let Some(identity) = webhook.identity else { continue };
        assert_eq!(form.get("MessageSid"), Some(identity.message_sid.as_str()));
        assert_eq!(form.iter().filter(|(name, _)| *name == "MessageSid").count(), 1);
        let parts = if class == Class::Status { 4 } else { 2 };
        assert_eq!(identity.dedupe_key().matches(':').count(), parts, "no part contains a colon");
    }
});
