//! Codes, checks and faults of verifications.

use super::*;

const ACCOUNT: &str = "AC1";
const SERVICE: &str = "VA1";

fn pairs(given: &[(&str, &str)]) -> Vec<(String, String)> {
    given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn start(all: &mut Verifications, to: &str, channel: &str, now_ms: i64) -> Result<Value, u32> {
    let pairs = pairs(&[("To", to), ("Channel", channel)]);
    let sids = (format!("VE{now_ms}"), format!("VL{now_ms}"));
    let start = Start { account: ACCOUNT, service: SERVICE, pairs: &pairs, sids, dice: 42 };
    all.start(start, now_ms).map_err(|refusal| refusal.code)
}

fn check(all: &mut Verifications, code: &str, now_ms: i64) -> Result<Value, u32> {
    let pairs = pairs(&[("Code", code), ("To", "+14155550123")]);
    all.check(ACCOUNT, SERVICE, &pairs, now_ms).map_err(|refusal| refusal.code)
}

#[test]
fn document_lists_every_fault_of_verifications() {
    let guide = include_str!("../../../../docs/SIMULATOR.md");
    let hint = "docs/SIMULATOR.md: insert the output of `twilio-edge reference simulator`";
    assert!(guide.contains(&reference()), "{hint}:\n{}", reference());
}

#[test]
fn right_code_approves_once() {
    let mut all = Verifications::new(10, 10, 1);
    start(&mut all, "+14155550123", "sms", 0).unwrap();
    assert_eq!(check(&mut all, "000000", 1).unwrap()["status"], "pending");
    assert_eq!(check(&mut all, "000042", 2).unwrap()["status"], "approved");
    assert_eq!(check(&mut all, "000042", 3), Err(20404), "an approved one is gone");
}

#[test]
fn code_expires_and_has_five_checks_and_five_sends() {
    let mut all = Verifications::new(10, 10, 1);
    for at_ms in 0..5 {
        let started = start(&mut all, "+14155550123", "sms", at_ms).unwrap();
        assert_eq!(started["sid"], "VE0", "the pending one is sent again");
    }
    assert_eq!(start(&mut all, "+14155550123", "sms", 5), Err(60203));
    for _ in 0..5 {
        check(&mut all, "111111", 6).unwrap();
    }
    assert_eq!(check(&mut all, "000042", 7), Err(60202));
    assert_eq!(check(&mut all, "000042", VALID_MS), Err(20404));
}

#[test]
fn suffix_selects_a_refusal_or_a_failed_delivery() {
    let mut all = Verifications::new(10, 10, 1);
    for (suffix, channel, code) in [
        ("9101", "sms", 60200),
        ("9102", "sms", 60203),
        ("9104", "whatsapp", 60410),
        ("9110", "whatsapp", 60223),
        ("9111", "auto", 68008),
    ] {
        assert_eq!(start(&mut all, &format!("+1415555{suffix}"), channel, 0), Err(code));
    }
    assert!(start(&mut all, "+14155559110", "sms", 0).is_ok());
    start(&mut all, "+14155559112", "whatsapp", 0).unwrap();
    let query = pairs(&[("ChannelData.To", "+14155559112")]);
    let status = |now_ms| all.attempts(ACCOUNT, &query, now_ms)[0]["channel_data"].clone();
    assert_eq!(status(10)["message_status"], "sent");
    assert_eq!(status(20)["message_status"], "undelivered");
    assert_eq!(status(20)["error_code"], "63024");
}
