//! No cut of a genuine webhook's signed text is believed to say something else, and no genuine webhook is refused for
//! the words in it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected fails, and so do the functions it calls"
)]

#[path = "recut/model.rs"]
mod model;

use model::{Choices, Genuine, attack, forged_text};
use proptest::prelude::*;

/// Cuts of each webhook that are tried.
const CUTS: usize = 48;

/// 2000 cases, or as many as PROPTEST_CASES names.
fn config() -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => config,
        None => ProptestConfig { cases: 2000, ..config },
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn forged_text_is_refused_in_every_cut(bytes in proptest::collection::vec(any::<u8>(), 3000)) {
        let mut choices = Choices(&bytes);
        let genuine = Genuine::choose(&mut choices, forged_text);
        for _ in 0..CUTS {
            let finding = attack(&genuine, &mut choices);
            prop_assert!(finding.is_none(), "{}", finding.unwrap_or_default());
        }
    }

    #[test]
    fn genuine_webhook_passes_with_any_content(
        bytes in proptest::collection::vec(any::<u8>(), 64),
        texts in proptest::collection::vec(prose(), 8),
        extra in proptest::collection::vec(("[A-Z][a-z]{3,9}[A-Z][a-z]{3,9}[0-9]?", prose()), 0..3),
    ) {
        let mut texts = texts.into_iter().cycle();
        let mut choices = Choices(&bytes);
        let genuine = Genuine::choose(&mut choices, |_| texts.next().unwrap_or_default());
        prop_assert_eq!(genuine.refusal(), None, "{}", genuine.show());
        // Behind the sender of such a webhook an unknown name could be the sender's end.
        let certain = |name: &str| !name.starts_with("From") && !("From".."MessageSid").contains(&name);
        // Nor does Twilio write the names of Body and ProfileName into a parameter in front of them.
        let neutral = |text: String| text.replace("ProfileName", "name").replace("Body", "text");
        let extra = extra.into_iter().map(|(name, value)| (name, neutral(value)));
        let extra: Vec<_> = extra.filter(|(name, _)| certain(name)).collect();
        let extended = genuine.with(&extra);
        prop_assert_eq!(extended.refusal(), None, "{}", extended.show());
    }
}

/// Texts that people write, also about parameters.
fn prose() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "From",
        "To",
        "Body",
        "lotion",
        "me",
        "you",
        "MessageSid",
        "AccountSid",
        "ErrorCode",
        "STOP",
        "Calling",
        "ProfileName",
        "OptOutType",
        "WaId",
        "SmsStatus",
        "MessageStatus",
        "delivered",
        "ButtonText",
        "Label",
        "NumMedia",
        "ApiVersion",
        "+14155550123",
        "12345",
        "SM00112233445566778899aabbccddeeff",
        "שלום",
        "مرحبا",
        "👍🏽",
        "é",
        "https://example.com/?From=me&To=you",
        "{\"From\": \"+14155550123\", \"Body\": \"hi\"}",
        "let From = To;",
        "where",
        "are",
        "HowTo101",
        "Open24Hours",
        "\n",
        "a=b&c=d",
        "O'Hara",
        "100%",
        "ToCity",
        "FromCity",
        "Username",
    ]);
    // Two words at least: one alone may be an opt-out, behind which an unknown parameter is refused.
    proptest::collection::vec(words, 2..12).prop_map(|words| format!("well, {}", words.join(" ")))
}
