use proptest::prelude::*;

use super::*;

const NUMBER: &str = "+15551234567";

fn policy() -> Policy {
    crate::defaults::section("policy")
}

fn event(opt: Opt, message_sid: &str) -> OptEvent {
    OptEvent {
        opt,
        source: Source::Keyword,
        arrival: Arrival::OnTime,
        account_sid: "AC1".into(),
        message_sid: message_sid.into(),
        address: Address { channel: "whatsapp".into(), number: NUMBER.into() },
        error_code: String::new(),
        route: "/in".into(),
        sender: "+15559".into(),
        service_sid: None,
    }
}

fn by_application(now_ms: i64, expires_at_ms: Option<i64>) -> Suppression {
    Suppression {
        source: Source::Application,
        expires_at_ms,
        message_sid: None,
        ..event(Opt::Stop, "SM0").suppression(&policy(), now_ms)
    }
}

fn is_suppressed(set: &SuppressionSet, now_ms: i64) -> bool {
    set.reasons.values().any(|known| known.is_in_force(now_ms))
}

#[test]
fn stop_outlasts_an_expiring_suppression() {
    let mut set = SuppressionSet::default();
    assert!(set.begin(by_application(0, Some(100))));
    assert!(set.apply(&event(Opt::Stop, "SM1"), &policy(), 50));
    assert_eq!(set.expire(100), 1);
    assert!(is_suppressed(&set, 100), "the STOP holds");
    assert!(set.reasons.values().any(|known| known.is_begun_by("SM1")));
    // The same holds for a STOP on the row of an expiring one.
    let limited = Policy { stop_lasts_days: 1, ..policy() };
    let mut set = SuppressionSet::default();
    let day_ms = period::DAY_MS;
    assert!(set.apply(&event(Opt::Stop, "SM1"), &limited, 0));
    assert!(!set.apply(&event(Opt::Stop, "SM2"), &limited, day_ms - 1), "a repeat is not new");
    assert_eq!(set.expire(day_ms), 0, "the second STOP prolonged it");
    assert!(!set.apply(&event(Opt::Stop, "SM3"), &policy(), day_ms));
    assert!(is_suppressed(&set, i64::MAX), "the third one for ever");
    assert!(!set.apply(&event(Opt::Help, "SM4"), &policy(), day_ms));
    assert!(set.apply(&event(Opt::Start, "SM5"), &policy(), day_ms));
    assert!(!is_suppressed(&set, day_ms));
}

#[test]
fn expired_suppression_begins_again() {
    let mut set = SuppressionSet::default();
    set.begin(by_application(0, Some(100)));
    assert!(set.begin(by_application(100, Some(200))), "it had ended by itself");
    let known = set.changes();
    assert_eq!((known[0].since_ms, known[0].expires_at_ms), (100, Some(200)));
    let mut set = SuppressionSet::new(known);
    assert_eq!(set.end(|_| true, "key 1", 200), 0, "nothing is left to end");
    assert_eq!((set.expire(199), set.expire(200), set.expire(200)), (0, 1, 0));
    let known = set.changes();
    assert!(!known[0].is_open && known[0].changed_at_ms == 200 && known[0].changed_by.is_none());
}

proptest! {
    /// Property: with any history, a contact is suppressed exactly while the last permanent reason or the longest limit
    /// says so, whether or not the expiry has been stored.
    #[test]
    fn history_of_limits_and_ends_is_exact(
        steps in prop::collection::vec((0u8..6, 1i64..30), 1..40),
    ) {
        let (mut set, mut now_ms) = (SuppressionSet::default(), 0);
        // Expected: the end of the application's reason, and whether the STOP is in force.
        let (mut until_ms, mut is_stopped) = (i64::MIN, false);
        for (place, (step, ms)) in steps.into_iter().enumerate() {
            now_ms += ms;
            let sid = format!("SM{place}");
            match step {
                0 => {
                    set.begin(by_application(now_ms, Some(now_ms + ms)));
                    until_ms = until_ms.max(now_ms + ms);
                }
                1 => {
                    set.begin(by_application(now_ms, None));
                    until_ms = i64::MAX;
                }
                2 => {
                    let is_new = set.apply(&event(Opt::Stop, &sid), &policy(), now_ms);
                    prop_assert_eq!(is_new, !is_stopped);
                    is_stopped = true;
                }
                3 => {
                    // START ends what a contact began, not what an application decided.
                    let has_ended = set.apply(&event(Opt::Start, &sid), &policy(), now_ms);
                    prop_assert_eq!(has_ended, is_stopped);
                    is_stopped = false;
                }
                4 => {
                    set.end(|_| true, "key 1", now_ms);
                    (until_ms, is_stopped) = (i64::MIN, false);
                }
                _ => {
                    set.expire(now_ms);
                }
            }
            for at_ms in [now_ms, until_ms.saturating_sub(1).max(now_ms), until_ms.max(now_ms)] {
                let is_held = at_ms < until_ms || until_ms == i64::MAX;
                prop_assert_eq!(is_suppressed(&set, at_ms), is_stopped || is_held);
            }
        }
    }
}
