//! Replies of any bytes in place of the sidecar's. Each is read or refused, without another effect.
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
    if let Ok(KeyRing { accounts: Some(ring), .. }) = serde_json::from_slice(json)
        && let Ok(accounts) = Account::all(&ring)
    {
        assert_eq!(accounts.len(), ring.len());
        assert!(accounts.iter().all(|it| !it.keys.is_empty() || !it.shared_keys.is_empty()));
    }
    if let Ok(reply) = serde_json::from_slice::<ClaimsReply>(json) {
        let again = serde_json::to_vec(&reply).unwrap();
        assert_eq!(serde_json::from_slice::<ClaimsReply>(&again).unwrap(), reply);
    }
});
