//! Bodies of any bytes in place of an exchange, its reply or a key ring, in the binary form and in JSON. Each is read or
//! refused, without another effect, and what was read has the same contents after it is written in either form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twilio_edge_contract::{ExchangeReply, ExchangeRequest, KeyRing};
use twilio_edge_filter::keys::Account;

fuzz_target!(|body: &[u8]| {
    if let Ok(KeyRing { accounts: Some(ring), .. }) = serde_json::from_slice(body)
        && let Ok(accounts) = Account::all(&ring)
    {
        assert_eq!(accounts.len(), ring.len());
        assert!(accounts.iter().all(|it| !it.keys.is_empty() || !it.shared_keys.is_empty()));
    }
    // The binary form has no number above this attempt.
    let is_encodable =
        |reply: &ExchangeReply| reply.verdicts.iter().all(|it| it.attempt != Some(u32::MAX));
    for reply in [ExchangeReply::decode(body).ok(), serde_json::from_slice(body).ok()] {
        let Some(reply) = reply.filter(is_encodable) else { continue };
        let json = serde_json::to_vec(&reply).unwrap();
        assert_eq!(serde_json::from_slice::<ExchangeReply>(&json).unwrap(), reply);
        // The binary form has this version only.
        let again = ExchangeReply::new(reply.verdicts, reply.results);
        assert_eq!(ExchangeReply::decode(&again.encode()), Ok(again));
    }
    for request in [ExchangeRequest::decode(body).ok(), serde_json::from_slice(body).ok()] {
        let Some(request) = request else { continue };
        let json = serde_json::to_vec(&request).unwrap();
        assert_eq!(serde_json::from_slice::<ExchangeRequest>(&json).unwrap(), request);
        let again = ExchangeRequest::new(request.claims, request.settlements);
        assert_eq!(ExchangeRequest::decode(&again.encode()), Ok(again));
    }
});
