use proptest::prelude::*;
use serde_json::json;

use super::*;

fn shipped() -> Policy {
    crate::defaults::section("policy")
}

#[test]
fn policy_document_contains_only_differences() {
    let base = shipped();
    let document = json!({
        "resubscribe": "never",
        "consent": {"freshness": [{"category": "marketing", "country": "FR", "days": 90}]},
    });
    let own = base.with(&document).unwrap();
    assert_eq!(own.resubscribe, Resubscribe::Never);
    assert_eq!(own.stop_reaches, base.stop_reaches);
    assert_eq!(own.consent.required_for, base.consent.required_for);
    let lasts = |country| own.consent_lasts_ms(Category::Marketing, country);
    assert_eq!(lasts(Some("FR")), Some(90 * DAY_MS));
    assert_eq!((lasts(Some("DE")), lasts(None)), (None, None), "a list replaces the one before");
    assert_eq!(base.with(&json!({})), Ok(base));
}

#[test]
fn policy_problem_names_its_path() {
    let refused = |document: Value| shipped().with(&document).unwrap_err().join("\n");
    for (document, problem) in [
        (json!([]), "the policy: must be a JSON object"),
        (json!({"resubscribes": "never"}), "resubscribes: is not a setting"),
        (
            json!({"consent": {"survives_stop": "no"}}),
            "consent.survives_stop: must be true or false",
        ),
        (json!({"consent": true}), "consent: must be an object"),
        (json!({"resubscribe": "always"}), "unknown variant `always`, expected one of `keyword`"),
        (
            json!({"start_ends": ["keywords"]}),
            "start_ends: \"keywords\" must be a source of suppressions or an error code",
        ),
        (
            json!({"shared_channels": [["sms", "Rcs"]]}),
            "shared_channels[0]: \"Rcs\" is not a channel",
        ),
        (
            json!({"shared_channels": [["sms", "rcs"], ["rcs", "whatsapp"]]}),
            "shared_channels[1]: \"rcs\" occurs twice",
        ),
        (
            json!({"shared_channels": [["sms"]]}),
            "shared_channels[0]: must name at least two channels",
        ),
        (
            json!({"windowed_channels": ["WhatsApp"]}),
            "windowed_channels: \"WhatsApp\" is not a channel",
        ),
        (
            json!({"consent": {"freshness": [{"category": "marketing", "days": 0}]}}),
            "consent.freshness[0].days: must be 1 to 36500",
        ),
        (
            json!({"consent": {"freshness": [{"category": "marketing", "country": "France", "days": 1}]}}),
            "consent.freshness[0].country: \"France\" is not a country",
        ),
        (
            json!({"consent": {"freshness": [{"category": "utility", "days": 1}, {"category": "utility", "days": 2}]}}),
            "consent.freshness[1]: an earlier rule has the same category and country",
        ),
    ] {
        let said = refused(document);
        assert!(said.contains(problem), "{said}");
    }
    let two = refused(json!({"a": 1, "b": 2}));
    assert_eq!(two.lines().count(), 2, "{two}");
}

#[test]
fn country_rule_precedes_the_general_rule() {
    let policy = shipped();
    let lasts = |category, country| policy.consent_lasts_ms(category, country);
    assert_eq!(lasts(Category::Marketing, None), Some(365 * DAY_MS));
    assert_eq!(lasts(Category::Marketing, Some("US")), Some(365 * DAY_MS));
    assert_eq!(lasts(Category::Marketing, Some("CA")), Some(180 * DAY_MS));
    assert_eq!(lasts(Category::Utility, Some("CA")), None);
}

#[test]
fn start_ends_suppressions_as_configured() {
    let may = |policy: &Policy, source, code, origin_channel| {
        policy.start_may_end(source, code, origin_channel, "sms")
    };
    let policy = shipped();
    assert!(may(&policy, Source::Keyword, "", Some("whatsapp")));
    assert!(may(&policy, Source::Callback, "21610", Some("sms")));
    assert!(
        !may(&policy, Source::Callback, "63014", Some("sms")),
        "the contact ends a block in the app"
    );
    assert!(!may(&policy, Source::Administrator, "", None));
    let same = policy.with(&json!({"resubscribe": "same_channel"})).unwrap();
    assert!(!may(&same, Source::Keyword, "", Some("whatsapp")));
    assert!(may(&same, Source::Keyword, "", Some("sms")));
    assert!(may(&same, Source::Keyword, "", Some("rcs")), "sms and rcs share opt-outs");
    let never = policy.with(&json!({"resubscribe": "never"})).unwrap();
    assert!(!may(&never, Source::Keyword, "", Some("sms")));
}

fn any_json() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "resubscribe",
        "start_ends",
        "consent",
        "freshness",
        "days",
        "category",
        "never",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        names.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names.clone().prop_map(String::from), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    /// A document is either refused with a reason, or its policy survives being stored whole.
    #[test]
    fn policy_document_is_refused_or_unambiguous(document in any_json()) {
        match shipped().with(&document) {
            Ok(policy) => {
                let whole = serde_json::to_value(&policy).unwrap();
                prop_assert_eq!(shipped().with(&whole), Ok(policy));
            }
            Err(problems) => prop_assert!(!problems.is_empty()),
        }
    }
}
