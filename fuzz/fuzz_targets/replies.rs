//! Whatever a sidecar, or something in its place, answers: it is read or it is not, and nothing else happens.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twilio_edge_contract::{
    ClaimsReply, ClaimsRequest, KeyRing, SettlementsReply, SettlementsRequest,
};
use twilio_edge_filter::keys::Account;

fuzz_target!(|json: &[u8]| {
    let _ = serde_json::from_slice::<SettlementsReply>(json);
    let _ = serde_json::from_slice::<ClaimsRequest>(json);
    let _ = serde_json::from_slice::<SettlementsRequest>(json);
    if let Ok(KeyRing { accounts: Some(given), .. }) = serde_json::from_slice(json)
        && let Ok(accounts) = Account::all(&given)
    {
        assert_eq!(accounts.len(), given.len());
        assert!(accounts.iter().all(|it| !it.keys.is_empty() || !it.shared_keys.is_empty()));
    }
    if let Ok(reply) = serde_json::from_slice::<ClaimsReply>(json) {
        let again = serde_json::to_vec(&reply).unwrap();
        assert_eq!(serde_json::from_slice::<ClaimsReply>(&again).unwrap(), reply);
    }
});
