use proptest::prelude::*;

use super::*;
use crate::{suppression::Suppression, window::rfc3339};

fn about() -> ImportContext {
    let region = "US".parse().ok();
    let (account_sid, by) = ("AC1".into(), "key 1".into());
    ImportContext {
        account_sid,
        region,
        channel: None,
        known: BTreeSet::new(),
        by,
        now_ms: 1_795_436_897_042,
    }
}

fn channel_and_number(new: &NewSuppression) -> String {
    format!("{} {}", new.address.channel, new.address.number)
}

#[test]
fn suppression_line_has_an_expiry_in_the_future() {
    let csv = "number,expires_at\n+14155552671,2027-01-02T03:04:05Z\n+14155552672,\n\
               +14155552673,2026-01-01\n+14155552674,soon\n+14155552675,2127-01-01\n";
    let rest = ImportContext { channel: Some("sms".into()), ..about() };
    let list = CsvList::of_suppressions(csv, rest).unwrap();
    let valid: Vec<_> = list.valid_rows().map(|new| new.expires_at_ms.and_then(rfc3339)).collect();
    assert_eq!(valid, [Some("2027-01-02T03:04:05.000Z".to_owned()), None]);
    let problems: Vec<_> = list.check().invalid.into_iter().map(|line| line.problem).collect();
    for (problem, end) in problems.iter().zip(["is not in the future", "YYYY-MM-DD", "instead"]) {
        assert!(problem.starts_with("expires_at: ") && problem.ends_with(end), "{problem}");
    }
    assert_eq!(problems.len(), 3);
}

#[test]
fn invalid_line_is_reported_with_its_number() {
    let csv = "number,channel,note\r\n(415) 555-2671,sms,\"two\r\nlines\"\r\n12,whatsapp,\r\n\r\n\
               whatsapp:+14155552672,,\r\n+14155552673\r\n+1415,sms,x\r\n+14155552674,*,\r\n";
    let list = CsvList::of_suppressions(csv, about()).unwrap();
    let valid: Vec<_> = list.valid_rows().map(|new| channel_and_number(&new)).collect();
    assert_eq!(valid, ["sms +14155552671", "whatsapp +14155552672", "* +14155552674"]);
    let checked = list.check();
    assert_eq!((checked.valid, checked.invalid_lines), (3, 3));
    let invalid: Vec<_> =
        checked.invalid.iter().map(|invalid| (invalid.line, invalid.problem.as_str())).collect();
    assert_eq!(invalid.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4, 7, 8], "{invalid:?}");
    assert_eq!(invalid[1].1, "has 1 columns, but line 1 names 3");
    assert!(
        checked
            .error_summary()
            .unwrap()
            .starts_with("line 4: number: \"12\" is not a phone number")
    );
    let none = CsvList::of_suppressions("phone\n+14155552671\n", about()).unwrap_err();
    assert!(none.contains("the column `number` is missing"), "{none}");
    let rest = ImportContext { channel: Some("whatsapp".into()), ..about() };
    let list = CsvList::of_suppressions("number\n+14155552671\nsms:+14155552672\n", rest).unwrap();
    let channels: Vec<_> = list.valid_rows().map(|new| new.address.channel).collect();
    assert_eq!(channels, ["whatsapp", "sms"]);
}

#[test]
fn consent_line_needs_its_required_fields() {
    let csv = "number,category,source,at,state,ip\n\
               +14155552671,marketing,form,2026-01-02,,192.0.2.1\n\
               +14155552671,sales,form,,,\n\
               +14155552671,utility,form,tomorrow,,\n\
               +14155552671,utility,,,,\n\
               +14155552671,utility,form,,no,\n";
    let list = CsvList::of_consents(csv, about()).unwrap();
    let valid: Vec<_> = list.valid_rows().collect();
    assert_eq!(valid.len(), 1);
    assert_eq!(rfc3339(valid[0].at_ms).unwrap(), "2026-01-02T00:00:00.000Z");
    let checked = list.check();
    let problems: Vec<_> = checked.invalid.iter().map(|invalid| invalid.problem.as_str()).collect();
    for (problem, start) in problems.iter().zip(["category:", "at:", "source:", "state:"]) {
        assert!(problem.starts_with(start), "{problem}");
    }
    assert_eq!(problems.len(), 4);
    // A consent names one channel: later checks never look for one of every channel.
    let everywhere = "number,channel,category,source\n+14155552671,*,marketing,form\n";
    let invalid =
        CsvList::of_consents(everywhere, about()).unwrap().check().error_summary().unwrap();
    assert_eq!(
        invalid,
        "line 2: number: \"*\" is not a channel such as sms, whatsapp or messenger"
    );
}

#[test]
fn known_address_is_accepted() {
    let csv = "number,channel,category,source\nO'Reilly,,utility,form\n12,sms,utility,form\n\
               no-one,,utility,form\n+14155552671,sms,utility,form\n";
    let list = CsvList::of_consents(csv, about()).unwrap();
    assert_eq!(list.check().invalid_lines, 3);
    let unread: Vec<String> = list.unparsed_addresses().iter().map(Address::written).collect();
    assert_eq!(unread, ["12", "O'Reilly", "no-one"]);
    let known = ["O'Reilly", "12"].into_iter().filter_map(Address::parse).collect();
    let list = list.with_known(known);
    let valid: Vec<String> = list.valid_rows().map(|said| said.address.written()).collect();
    assert_eq!(valid, ["O'Reilly", "12", "+14155552671"]);
    let many: String = (0..3000).map(|n| format!("name{n}\n")).collect();
    let list = CsvList::of_suppressions(format!("number\n{many}"), about()).unwrap();
    assert_eq!(list.unparsed_addresses().len(), 1000, "no list makes more questions");
}

#[test]
fn report_lists_the_first_invalid_lines_and_counts_all() {
    let csv = "number\n".to_owned() + &"no-one\n".repeat(1000) + "+14155552671\n";
    let checked = CsvList::of_suppressions(csv, about()).unwrap().check();
    assert_eq!((checked.valid, checked.invalid.len(), checked.invalid_lines), (1, 100, 1000));
    let error_summary = checked.error_summary().unwrap();
    assert!(error_summary.ends_with("; and 980 more"), "{error_summary}");
}

proptest! {
    #[test]
    fn exported_suppression_is_imported_with_its_expiry(
        after_ms in prop::option::of(1_i64..100 * 365 * 86_400_000), is_everywhere: bool,
    ) {
        let now_ms = about().now_ms;
        let channel = if is_everywhere { suppression::EVERY_CHANNEL } else { "whatsapp" };
        let expires_at_ms = after_ms.map(|after_ms| now_ms + after_ms);
        let address = Address { channel: channel.to_owned(), number: "+14155552671".to_owned() };
        let known = Suppression {
            account_sid: "AC1".into(),
            address: address.clone(),
            source: suppression::Source::Import,
            error_code: String::new(),
            is_open: true,
            since_ms: now_ms,
            expires_at_ms,
            changed_at_ms: now_ms,
            message_sid: None,
            route: None,
            origin_channel: None,
            sender: None,
            service_sid: None,
            changed_by: None,
        };
        let lines = [SUPPRESSION_COLUMNS.map(str::to_owned), suppression_row(&known)];
        let list = CsvList::of_suppressions(to_csv(lines), about()).unwrap();
        let expected = NewSuppression { address, expires_at_ms };
        prop_assert_eq!(list.valid_rows().collect::<Vec<_>>(), [expected]);
    }

    /// Property: a text is read as an expiry only if it is a time in the future.
    #[test]
    fn expiry_of_any_text_is_in_the_future(text in "\\PC{0,30}|[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:]{8}Z)?") {
        let now_ms = about().now_ms;
        if let Ok(expires_at_ms) = suppression::parse_expiry(&text, now_ms) {
            prop_assert!(now_ms < expires_at_ms && expires_at_ms - now_ms <= 36_525 * 86_400_000);
        }
    }

    #[test]
    fn exported_consent_is_imported_unchanged(
        source in "[a-z][a-z ]{0,20}[a-z]", proof in "['=+@-]{0,2}[^\0\r]{0,60}", ip in prop::option::of(Just("::1")),
    ) {
        let proof = Some(proof).filter(|proof| !proof.is_empty());
        let now_ms = about().now_ms;
        let consent = Consent {
            account_sid: "AC1".into(),
            address: Address::parse("whatsapp:+14155552671").unwrap(),
            category: Category::Utility,
            state: State::Withdrawn,
            at_ms: now_ms - 5,
            source,
            proof,
            ip: ip.map(str::to_owned),
            user_agent: None,
            recorded_at_ms: now_ms,
            recorded_by: "key 1".into(),
            stored_id: None,
        };
        let lines = [CONSENT_COLUMNS.map(str::to_owned), consent_row(&consent)];
        let list = CsvList::of_consents(to_csv(lines), about()).unwrap();
        prop_assert_eq!(list.valid_rows().collect::<Vec<_>>(), [consent]);
        prop_assert_eq!(list.check(), ImportReport { valid: 1, ..ImportReport::default() });
    }

    /// Property: no program takes a cell for a formula, and the import reads the text that was exported.
    #[test]
    fn cells_of_any_text_come_back(
        rows in prop::collection::vec(prop::array::uniform3("['=+@\\-\t\r\n \",;\u{ff0b}a1]{0,6}|\\PC{0,20}|(?s:.){0,10}"), 1..5),
    ) {
        let names = ["a", "b", "c"].map(str::to_owned);
        let text = to_csv([names].into_iter().chain(rows.clone()));
        let mut reader = reader(&text);
        let mut read = Vec::new();
        for record in reader.byte_records() {
            let record = record.unwrap();
            prop_assert!(record.iter().all(|cell| !cell.starts_with(b"=") && !cell.starts_with(b"+")));
            let cells = as_written(&record).iter().map(|cell| String::from_utf8(cell.to_vec()).unwrap()).collect::<Vec<_>>();
            read.push(cells);
        }
        prop_assert_eq!(read, rows);
    }

    #[test]
    fn list_of_any_bytes_is_read_without_panic(csv: Vec<u8>, text in "(number|channel|category|source|,|\"|\r|\n|[+0-9a-z])*") {
        let _ = CsvList::of_suppressions(csv.as_slice(), about()).map(|list| list.check());
        let _ = CsvList::of_consents(text, about()).map(|list| list.check());
        let named = [b"number\n", csv.as_slice()].concat();
        let _ = CsvList::of_suppressions(named, about()).map(|list| list.check());
    }
}
