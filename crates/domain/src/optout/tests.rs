use proptest::prelude::*;

use super::*;

fn shipped() -> Lexicon {
    crate::defaults::section::<crate::optout::Keywords>("optout").lexicon().unwrap()
}

fn everywhere() -> Keywords {
    let locales = LOCALES.iter().map(|locale| locale.tag.clone()).collect();
    Keywords { locales, ..crate::defaults::section("optout") }
}

#[test]
fn languages_are_complete_and_without_contradictions() {
    let tags: Vec<&str> = LOCALES.iter().map(|locale| locale.tag.as_str()).collect();
    assert!(tags.len() >= 15 && tags.is_sorted(), "{tags:?}");
    let all = everywhere().lexicon().unwrap();
    for locale in LOCALES.iter() {
        for (opt, words) in
            [(Opt::Stop, &locale.stop), (Opt::Start, &locale.start), (Opt::Help, &locale.help)]
        {
            assert!(!words.is_empty(), "{}", locale.tag);
            for word in words {
                assert_eq!(all.classify(word, None), Some((opt, Cause::Keyword)), "{word}");
                let lower = format!(" {}! ", word.to_lowercase());
                assert_eq!(all.classify(&lower, None), Some((opt, Cause::Keyword)), "{word}");
            }
        }
        for word in locale.ambiguous.keys() {
            assert_eq!(all.classify(word, None), None, "{word} is documented as left out");
        }
    }
}

#[test]
fn language_is_in_effect_where_it_is_chosen() {
    let shipped = shipped();
    assert_eq!(shipped.classify("ARRÊT", None), None);
    let french = Keywords { locales: vec!["fr".into()], ..crate::defaults::section("optout") };
    let french = french.lexicon().unwrap();
    for body in ["ARRÊT", "arrêt.", "ARRET", "arre\u{302}t", "Stop"] {
        assert_eq!(french.classify(body, None), Some((Opt::Stop, Cause::Keyword)), "{body}");
    }
    assert_eq!(french.classify("ALTO", None), None);
}

#[test]
fn keyword_has_the_languages_that_chose_it() {
    let locales = vec!["es".into(), "pt".into()];
    let both = Keywords { locales, ..crate::defaults::section("optout") };
    let both = both.lexicon().unwrap();
    assert_eq!(both.languages("Alto!"), ["es"]);
    assert_eq!(both.languages("ayuda"), ["es"]);
    for general in ["STOP", "start", "HELP", "Alto que", ""] {
        assert!(both.languages(general).is_empty(), "{general}");
    }
    assert!(shipped().languages("ALTO").is_empty(), "the language is not chosen");
    let all = everywhere().lexicon().unwrap();
    for locale in LOCALES.iter() {
        for word in locale.stop.iter().chain(&locale.start).chain(&locale.help) {
            let languages = all.languages(word);
            let is_general = shipped().classify(word, None).is_some();
            assert_eq!(languages.contains(&locale.tag), !is_general, "{word}: {languages:?}");
        }
    }
}

#[test]
fn invalid_or_ambiguous_keyword_is_refused() {
    let refused = |change: fn(&mut Keywords)| {
        let mut keywords: Keywords = crate::defaults::section("optout");
        change(&mut keywords);
        keywords.lexicon().unwrap_err().join("; ")
    };
    assert!(
        refused(|k| k.stop.push("do not write to me".into()))
            .contains("stop: \"do not write to me\" must have 1 to 2 words")
    );
    assert!(refused(|k| k.stop.push("!?".into())).contains("must have 1 to 2 words"));
    assert!(
        refused(|k| k.button_stop.push("Start".into()))
            .contains("button_stop: \"Start\" is also in optout.start")
    );
    assert!(
        refused(|k| k.marketing_error_codes.push("x".into()))
            .contains("marketing_error_codes: \"x\" is not an error code")
    );
    assert!(
        refused(|k| k.help.push("Stop!".into())).contains("help: \"Stop!\" is also in optout.stop")
    );
    assert!(
        refused(|k| k.locales.push("xx".into())).contains("locales: \"xx\" must be one of ar, da")
    );
    assert!(refused(|k| k.error_codes.push("x".into())).contains("error_codes: \"x\" is no"));
    let clash = refused(|k| {
        k.locales.push("es".into());
        k.help.push("baja".into());
    });
    assert!(clash.contains("locales, es: \"BAJA\" is also in optout.help"), "{clash}");
}

#[test]
fn keyword_table_of_the_document_is_current() {
    let guide = include_str!("../../../../docs/COMPLIANCE.md");
    let table = reference(&crate::defaults::section("optout"));
    let problem = "docs/COMPLIANCE.md is not what `twilio-edge reference keywords` prints";
    assert!(guide.contains(&table), "{problem}:\n{table}");
}

#[test]
fn codes_of_callbacks_are_data() {
    let shipped = shipped();
    assert!(shipped.suppresses("21610") && shipped.suppresses("63014"));
    assert!(!shipped.suppresses("30003") && !shipped.suppresses(""));
    assert!(shipped.withdraws_marketing("63033") && !shipped.suppresses("63033"));
    assert!(!shipped.withdraws_marketing("21610") && !shipped.withdraws_marketing(""));
}

#[test]
fn documented_keywords_are_found_in_common_spellings() {
    let shipped = shipped();
    for (body, want) in [
        // Twilio's defaults
        ("STOP", Some(Opt::Stop)),
        ("Unsubscribe", Some(Opt::Stop)),
        ("end", Some(Opt::Stop)),
        ("QUIT", Some(Opt::Stop)),
        ("STOPALL", Some(Opt::Stop)),
        ("revoke", Some(Opt::Stop)),
        ("OptOut", Some(Opt::Stop)),
        ("cancel", Some(Opt::Stop)),
        ("START", Some(Opt::Start)),
        ("yes", Some(Opt::Start)),
        ("UNSTOP", Some(Opt::Start)),
        ("HELP", Some(Opt::Help)),
        ("info", Some(Opt::Help)),
        // our own additions
        ("Subscribe", Some(Opt::Start)),
        // as typed
        (" Stop \r\n", Some(Opt::Stop)),
        ("STOP.", Some(Opt::Stop)),
        ("\"stop!\"", Some(Opt::Stop)),
        ("ＳＴＯＰ", Some(Opt::Stop)),
        ("\u{3000}ｓｔｏｐ！", Some(Opt::Stop)),
        ("stop \u{1f6d1}", Some(Opt::Stop)),
        // not exactly one word of the lists
        ("", None),
        ("!?", None),
        ("please stop", None),
        ("STOP IT", None),
        ("stop\nnow", None),
        ("stopped", None),
        ("don't stop", None),
        ("s t o p", None),
        ("yes please", None),
    ] {
        assert_eq!(shipped.classify(body, None).map(|(opt, _)| opt), want, "{body:?}");
    }
}

#[test]
fn keyword_of_several_words_is_found_where_it_is_configured() {
    assert_eq!(shipped().classify("OPT OUT", None), None);
    let mut keywords: Keywords = crate::defaults::section("optout");
    keywords.stop.push("Opt  out".into());
    let lexicon = keywords.lexicon().unwrap();
    for body in ["OPT OUT", " opt \t out!", "opt\nout", "ＯＰＴ\u{3000}ＯＵＴ"] {
        assert_eq!(lexicon.classify(body, None), Some((Opt::Stop, Cause::Keyword)), "{body:?}");
    }
    for body in ["opt", "out", "opt out now", "please opt out", "stop out"] {
        assert_eq!(lexicon.classify(body, None), None, "{body:?}");
    }
    assert_eq!(lexicon.classify("stop", None), Some((Opt::Stop, Cause::Keyword)));
}

#[test]
fn button_opts_out_by_an_unambiguous_word_only() {
    let shipped = shipped();
    for text in ["STOP", "Stop all", "stopall", "Unsubscribe", "OPTOUT", "revoke", "Stop!"] {
        let want = (text != "Stop all").then_some((Opt::Stop, Cause::Keyword));
        assert_eq!(shipped.classify_button([text], None), want, "{text}");
    }
    for text in ["Cancel", "End", "Quit", "Yes", "Start", "Unstop", "Subscribe", "Help", ""] {
        assert_eq!(shipped.classify_button([text], None), None, "{text}");
    }
    assert_eq!(
        shipped.classify_button(["Cancel"], Some("STOP")),
        Some((Opt::Stop, Cause::OptOutType))
    );
    let spanish = Keywords { locales: vec!["es".into()], ..crate::defaults::section("optout") };
    let spanish = spanish.lexicon().unwrap();
    assert_eq!(spanish.classify_button(["Cancelar"], None), None);
    assert_eq!(spanish.classify_button(["Baja"], None), Some((Opt::Stop, Cause::Keyword)));
}

#[test]
fn opt_out_type_of_twilio_takes_precedence() {
    let shipped = shipped();
    let with = |body, opt_out_type| shipped.classify(body, Some(opt_out_type));
    assert_eq!(with("Arrêt", "STOP"), Some((Opt::Stop, Cause::OptOutType)));
    assert_eq!(with("stop", "START"), Some((Opt::Start, Cause::OptOutType)));
    assert_eq!(with("hello", "help"), Some((Opt::Help, Cause::OptOutType)));
    // an unknown value is ignored, so the word still decides
    assert_eq!(with("stop", ""), Some((Opt::Stop, Cause::Keyword)));
    assert_eq!(with("stop", "SNOOZE"), Some((Opt::Stop, Cause::Keyword)));
}

#[test]
fn late_start_does_not_end_a_possibly_later_stop() {
    assert!(is_ended_by_start(Arrival::OnTime, 1000, 1001));
    assert!(!is_ended_by_start(Arrival::Late, 1000, 1001));
    assert!(!is_ended_by_start(Arrival::Late, 1000, 1000 + LATE_MS));
    assert!(is_ended_by_start(Arrival::Late, 1000, 1001 + LATE_MS));
}

proptest! {
    #[test]
    fn keyword_is_found_among_punctuation_and_emoji(
        pick in any::<prop::sample::Index>(),
        upper in prop::collection::vec(any::<bool>(), 16),
        wide in prop::collection::vec(any::<bool>(), 16),
        before in "[ \\t\\r\\n.,!?\"'(…]{0,5}",
        after in "[ \\t\\r\\n.,!?\"')…🙏]{0,5}",
    ) {
        let keywords = everywhere();
        let all: Vec<(Opt, String)> = keywords
            .lists()
            .flat_map(|(opt, _, words)| words.iter().map(move |word| (opt, word.clone())))
            .collect();
        let (opt, word) = &all[pick.index(all.len())];
        let dressed: String = word
            .chars()
            .enumerate()
            .map(|(i, c)| if upper[i % 16] { c.to_ascii_uppercase() } else { c })
            .enumerate()
            .map(|(i, c)| match wide[i % 16] && c.is_ascii_graphic() {
                true => char::from_u32(u32::from(c) + 0xfee0).unwrap(),
                false => c,
            })
            .collect();
        let body = format!("{before}{dressed}{after}");
        prop_assert_eq!(keywords.lexicon().unwrap().classify(&body, None), Some((*opt, Cause::Keyword)), "{:?}", body);
    }

    #[test]
    fn two_words_are_never_a_keyword(body in "\\PC{0,20}[a-zA-Z] +[a-zA-Z]\\PC{0,20}") {
        prop_assert_eq!(shipped().classify(&body, None), None);
    }

    #[test]
    fn folding_is_idempotent_for_any_text(body in any::<String>(), kind in any::<Option<String>>()) {
        shipped().classify(&body, kind.as_deref());
        // Case folding may expose one more edge to trim ("ŉ" becomes "ʼn"), never two.
        let once = fold(&fold(&body));
        prop_assert_eq!(fold(&once), once);
    }
}
