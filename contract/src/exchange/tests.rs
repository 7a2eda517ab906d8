use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::{
    Class, Decision, Delivery, Envelope, FieldProblem, Identity, MediaLink, Opt, Outcome,
    SavedAnswer, SettlementResult, UnclaimedWebhook,
};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,12}", "[a-z=&%0-9]{0,300}"]
}

fn identity() -> impl Strategy<Value = Identity> {
    (select(&Class::ALL), text(), text(), of(text()), of(text())).prop_map(
        |(class, account_sid, message_sid, status, error_code)| Identity {
            class,
            account_sid,
            message_sid,
            status,
            error_code,
        },
    )
}

fn envelope() -> impl Strategy<Value = Envelope> {
    (of(text()), of(text()), of(text()), of(text())).prop_map(
        |(method, url, content_type, idempotency_token)| Envelope {
            method,
            url,
            content_type,
            idempotency_token,
        },
    )
}

fn answer() -> impl Strategy<Value = SavedAnswer> {
    (any::<u16>(), text(), text()).prop_map(|(status, content_type, body)| SavedAnswer {
        status,
        content_type,
        body,
    })
}

fn claim() -> impl Strategy<Value = Claim> {
    let texts = (text(), text(), text(), of(text()), of(text()), of(text()), of(text()));
    (texts, identity(), select(&Delivery::ALL), envelope()).prop_map(
        |(
            (claim_id, route, form, request_id, traceparent, message_id, url_digest),
            identity,
            delivery,
            envelope,
        )| Claim {
            claim_id,
            identity,
            route,
            form,
            delivery,
            request_id,
            traceparent,
            message_id,
            envelope,
            url_digest,
        },
    )
}

fn settlement() -> impl Strategy<Value = Settlement> {
    let unclaimed = (text(), text(), envelope())
        .prop_map(|(route, form, envelope)| UnclaimedWebhook { route, form, envelope });
    let rest = (of(unclaimed), of(answer()), of(text()), of(text()));
    (text(), identity(), select(&Outcome::ALL), rest).prop_map(
        |(claim_id, identity, outcome, (unclaimed, answer, url_digest, step))| Settlement {
            claim_id,
            identity,
            outcome,
            unclaimed,
            answer,
            url_digest,
            step,
        },
    )
}

fn verdict() -> impl Strategy<Value = Verdict> {
    let attempt = of(0..u32::MAX);
    let rest = (of(select(&Opt::ALL)), any::<bool>(), of(text()), of(answer()), of(text()));
    let link = (text(), text(), text());
    let link = link.prop_map(|(id, content_type, url)| MediaLink { id, content_type, url });
    (text(), select(&Decision::ALL), attempt, rest, vec(link, 0..3)).prop_map(
        |(claim_id, decision, attempt, (opt, suppressed, window_expires, answer, step), media)| {
            Verdict {
                claim_id,
                decision,
                attempt,
                opt,
                suppressed,
                window_expires,
                answer,
                step,
                media,
            }
        },
    )
}

fn ack() -> impl Strategy<Value = SettlementAck> {
    (text(), select(&SettlementResult::ALL))
        .prop_map(|(claim_id, result)| SettlementAck { claim_id, result })
}

fn request() -> impl Strategy<Value = ExchangeRequest> {
    (vec(claim(), 0..4), vec(settlement(), 0..4))
        .prop_map(|(claims, settlements)| ExchangeRequest::new(claims, settlements))
}

fn reply() -> impl Strategy<Value = ExchangeReply> {
    (vec(verdict(), 0..4), vec(ack(), 0..4))
        .prop_map(|(verdicts, results)| ExchangeReply::new(verdicts, results))
}

fn sample() -> ExchangeRequest {
    let identity = Identity {
        class: Class::Inbound,
        account_sid: "AC1".into(),
        message_sid: "SM1".into(),
        status: None,
        error_code: None,
    };
    let claim = Claim::new("c1".into(), identity, "/in".into(), "Body=hi".into());
    ExchangeRequest::new(vec![claim], vec![])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn request_is_equal_after_encoding_and_decoding(request in request()) {
        prop_assert_eq!(ExchangeRequest::decode(&request.encode()), Ok(request.clone()));
        let json = serde_json::to_string(&request).unwrap();
        prop_assert_eq!(serde_json::from_str::<ExchangeRequest>(&json).unwrap(), request);
    }

    #[test]
    fn reply_is_equal_after_encoding_and_decoding(reply in reply()) {
        prop_assert_eq!(ExchangeReply::decode(&reply.encode()), Ok(reply.clone()));
        let json = serde_json::to_string(&reply).unwrap();
        prop_assert_eq!(serde_json::from_str::<ExchangeReply>(&json).unwrap(), reply);
    }

    #[test]
    fn truncated_body_is_an_error(request in request(), cut in any::<prop::sample::Index>()) {
        let body = request.encode();
        let shorter = &body[..cut.index(body.len())];
        prop_assert!(ExchangeRequest::decode(shorter).is_err());
    }

    #[test]
    fn changed_bytes_never_panic(
        request in request(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut body = request.encode();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Ok(request) = ExchangeRequest::decode(&body) {
            prop_assert_eq!(ExchangeRequest::decode(&request.encode()), Ok(request));
        }
        let _ = ExchangeReply::decode(&body);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(rest in vec(any::<u8>(), 0..200)) {
        let body = [b"TE\x01".as_slice(), &rest].concat();
        let _ = ExchangeRequest::decode(&body);
        let _ = ExchangeReply::decode(&body);
    }
}

#[test]
fn binary_format_is_stable() {
    let body = sample().encode();
    let expected: &[u8] = b"TE\x01\
        \x01\x23\x03c1\x00\x04AC1\x04SM1\x00\x00\x04/in\x08Body=hi\x00\x00\x00\x00\x00\x00\x00\x00\x00\
        \x00";
    assert_eq!(body, expected, "{body:02x?}");
}

#[test]
fn fields_of_a_newer_writer_are_ignored_and_those_of_an_older_one_are_absent() {
    let claim = sample().claims.remove(0).encode();
    let newer = [claim.as_slice(), b"\x05news"].concat();
    let older = claim.strip_suffix(&[0; 7]).unwrap();
    let none: &[Vec<u8>] = &[];
    for record in [newer.as_slice(), older] {
        assert_eq!(ExchangeRequest::decode(&encode_request(&[record], none)), Ok(sample()));
    }
}

#[test]
fn error_names_the_record_and_the_field() {
    let problem = |body: &[u8]| ExchangeRequest::decode(body).unwrap_err().to_string();
    assert_eq!(problem(b""), "the body does not begin with \"TE\"");
    assert_eq!(problem(b"{\"v\":1}"), "the body does not begin with \"TE\"");
    assert_eq!(problem(b"TE\x02"), "protocol version 2");
    assert_eq!(problem(b"TE\x01\x01\x05"), "claims[0] ends early");
    assert_eq!(problem(b"TE\x01\x01\x01\x00"), "claims[0].claim_id is missing");
    assert_eq!(problem(b"TE\x01\x01\x03\x02\xff\x00"), "claims[0].claim_id is not UTF-8");
    assert_eq!(problem(b"TE\x01\x01\x03\x02c\x09"), "claims[0].class has an unknown value");
    assert_eq!(
        problem(b"TE\x01\x00\xff\xff\xff\xff\xff"),
        "settlements[0] contains a number of more than 32 bits"
    );
    let many = FieldProblem::TooManyRecords.at("claims", 0);
    assert_eq!(ExchangeRequest::decode(b"TE\x01\xff\xff\x03"), Err(many));
}
