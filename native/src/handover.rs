//! Settlements that outlive their configuration. When Envoy replaces a configuration, it ends the callouts of the old one with
//! it. What the sidecar has not acknowledged until then goes to the newest configuration, also if that belongs to another
//! version of this library: the process has one place for it, and the newest library is there.

#![expect(unsafe_code, reason = "another version of this library is behind a C function")]

use std::sync::{Arc, Mutex, Weak};

use twilio_edge_filter::adapter::SettlementOrigin;
use twilio_edge_filter::callouts::{Lane, QueuedItem};

use crate::edge::{Edge, PostedSettlement};
use crate::envoy::{self, StreamScheduler};
use crate::sync::lock;

/// Name of the place. Its number is that of [`Receiver`] and of the form of the settlements: another form is another place.
const PLACE: &str = "twilio_edge.settlements.1";

/// The receiver of settlements. Never changes: other versions of the library read it.
#[repr(C)]
struct Receiver {
    /// Takes settlements in the form of [`encode`]. Returns false if no configuration takes them.
    accept: extern "C" fn(bytes: *const u8, len: usize) -> bool,
}

static RECEIVER: Receiver = Receiver { accept };

/// Configurations in use, oldest first.
static LIVE: Mutex<Vec<Weak<Edge>>> = Mutex::new(Vec::new());

type Item = (Lane, QueuedItem<SettlementOrigin<StreamScheduler>>);

/// Makes `edge` the receiver of settlements.
pub(crate) fn register(edge: &Arc<Edge>) {
    lock(&LIVE).push(Arc::downgrade(edge));
    // The library is never unloaded: `do_not_close` is set, and threads have values in it (docs/NATIVE.md).
    envoy::register_shared(PLACE, &RECEIVER);
}

/// Hands settlements over, after `edge` has ended. Logs what is lost: its leases expire.
pub(crate) fn hand_over(edge: &Arc<Edge>, items: &[Item]) {
    lock(&LIVE).retain(|live| !std::ptr::eq(live.as_ptr(), Arc::as_ptr(edge)));
    let Some(sidecar) = edge.config.sidecar.as_ref().filter(|_| !items.is_empty()) else { return };
    let bytes = encode(&sidecar.cluster, items);
    let is_accepted = envoy::shared(PLACE).is_some_and(|receiver| {
        // SAFETY: the place holds a `Receiver` of a library that is never unloaded, and it never changes.
        let receiver = unsafe { &*receiver.cast::<Receiver>() };
        (receiver.accept)(bytes.as_ptr(), bytes.len())
    });
    if !is_accepted {
        let count = items.len();
        envoy::warn(&format!(
            "{count} settlements ended with their configuration, because no other one has this sidecar; their leases expire"
        ));
    }
}

extern "C" fn accept(bytes: *const u8, len: usize) -> bool {
    let accepted = std::panic::catch_unwind(|| {
        // SAFETY: the caller is `hand_over`, of this library or another version, and lends the bytes for the call.
        let bytes = unsafe { std::slice::from_raw_parts(bytes, len) };
        let Some((cluster, items)) = decode(bytes) else { return false };
        let live: Vec<Arc<Edge>> = lock(&LIVE).iter().filter_map(Weak::upgrade).collect();
        let newest = live.iter().rev().find(|edge| {
            edge.config.sidecar.as_ref().is_some_and(|sidecar| sidecar.cluster == cluster)
        });
        let Some(newest) = newest else { return false };
        let posted = items.into_iter().map(|(lane, item)| {
            newest.post_settlement(PostedSettlement { lane, item, is_urgent: true })
        });
        posted.fold(true, |all, one| all & one)
    });
    accepted.unwrap_or(false)
}

/// Encodes settlements: the name of the cluster; then for each the lane, the id of the claim, the record. A text is its length
/// in four bytes, little-endian, and its bytes.
fn encode(cluster: &str, items: &[Item]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = |text: &[u8], bytes: &mut Vec<u8>| {
        bytes.extend(u32::try_from(text.len()).unwrap_or_default().to_le_bytes());
        bytes.extend(text);
    };
    text(cluster.as_bytes(), &mut bytes);
    for (lane, item) in items {
        bytes.push(u8::from(*lane == Lane::Durable));
        text(item.origin.claim_id.as_bytes(), &mut bytes);
        text(&item.record, &mut bytes);
    }
    bytes
}

/// Decodes settlements and the name of their cluster; `None` if the bytes have another form.
fn decode(mut bytes: &[u8]) -> Option<(String, Vec<Item>)> {
    fn text<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
        let (size, rest) = bytes.split_first_chunk::<4>()?;
        let size = usize::try_from(u32::from_le_bytes(*size)).ok()?;
        let (text, rest) = rest.split_at_checked(size)?;
        *bytes = rest;
        Some(text)
    }
    let cluster = String::from_utf8(text(&mut bytes)?.to_vec()).ok()?;
    let mut items = Vec::new();
    while let Some((lane, rest)) = bytes.split_first() {
        bytes = rest;
        let lane = if *lane == 1 { Lane::Durable } else { Lane::Prompt };
        let claim_id = String::from_utf8(text(&mut bytes)?.to_vec()).ok()?;
        let origin = SettlementOrigin { claim_id, stream: None };
        items.push((lane, QueuedItem::new(origin, text(&mut bytes)?.to_vec())));
    }
    Some((cluster, items))
}
