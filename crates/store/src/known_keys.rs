//! Memory of the dedupe keys of a ledger that only this process writes: a Bloom filter, which may take an unknown key for a known
//! one and never the other way round. A claim of a certainly unknown key needs no read. Until all keys of the ledger are in
//! the filter, every key may be known. This module must not know where keys come from.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// Bits per key and bits that each key sets: about one unknown key in 300 is taken for a known one.
const BITS_PER_KEY: usize = 12;
const BITS_OF_KEY: u64 = 6;

/// Keys of the first layer. Each further layer has twice as many.
const FIRST_LAYER: usize = 1 << 17;

/// Maximum number of layers: 48 MB for 33 million keys. Above it, every key may be known.
const MAX_LAYERS: usize = 8;

pub(super) struct KnownKeys {
    hasher: RandomState,
    layers: RwLock<Vec<Layer>>,
    is_complete: AtomicBool,
    is_overflowed: AtomicBool,
}

struct Layer {
    bits: Vec<u64>,
    capacity: usize,
    count: usize,
}

impl KnownKeys {
    /// Creates an incomplete memory.
    pub(super) fn new() -> KnownKeys {
        KnownKeys {
            hasher: RandomState::new(),
            layers: RwLock::new(vec![Layer::of(FIRST_LAYER)]),
            is_complete: AtomicBool::new(false),
            is_overflowed: AtomicBool::new(false),
        }
    }

    /// Adds keys. A writer calls this before the ledger has them.
    pub(super) fn add<'a>(&self, keys: impl Iterator<Item = &'a str>) {
        if self.is_overflowed.load(Ordering::Relaxed) {
            return;
        }
        let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            let hash = self.hasher.hash_one(key);
            if layers.iter().any(|layer| layer.contains(hash)) {
                continue;
            }
            if layers.last().is_none_or(|last| last.count >= last.capacity) {
                if layers.len() >= MAX_LAYERS {
                    self.is_overflowed.store(true, Ordering::Release);
                    layers.clear();
                    return;
                }
                let capacity = FIRST_LAYER << layers.len();
                layers.push(Layer::of(capacity));
            }
            if let Some(last) = layers.last_mut() {
                last.insert(hash);
            }
        }
    }

    /// Notes that all keys of the ledger were added.
    pub(super) fn complete(&self) {
        self.is_complete.store(true, Ordering::Release);
    }

    /// Returns those of `keys` that the ledger may have.
    pub(super) fn may_have<'a>(&self, keys: &[&'a str]) -> Vec<&'a str> {
        if !self.is_complete.load(Ordering::Acquire) {
            return keys.to_vec();
        }
        let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner);
        if self.is_overflowed.load(Ordering::Acquire) {
            return keys.to_vec();
        }
        let may_have = |key: &&&str| {
            let hash = self.hasher.hash_one(**key);
            layers.iter().any(|layer| layer.contains(hash))
        };
        keys.iter().filter(may_have).copied().collect()
    }
}

impl fmt::Debug for KnownKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownKeys").field("is_complete", &self.is_complete).finish_non_exhaustive()
    }
}

impl Layer {
    fn of(capacity: usize) -> Layer {
        let words = capacity.saturating_mul(BITS_PER_KEY).div_ceil(64);
        Layer { bits: vec![0; words], capacity, count: 0 }
    }

    fn insert(&mut self, hash: u64) {
        for (word, bit) in places(hash, self.bits.len()) {
            if let Some(word) = self.bits.get_mut(word) {
                *word |= bit;
            }
        }
        self.count = self.count.saturating_add(1);
    }

    fn contains(&self, hash: u64) -> bool {
        places(hash, self.bits.len())
            .all(|(word, bit)| self.bits.get(word).is_some_and(|word| word & bit != 0))
    }
}

/// Returns the bits of a key: the word and the bit in it.
fn places(hash: u64, words: usize) -> impl Iterator<Item = (usize, u64)> {
    // Two halves of one hash make all further ones (Kirsch and Mitzenmacher, 2006).
    let (first, step) = (hash, hash.rotate_left(32) | 1);
    let bits = (words as u64).saturating_mul(64).max(1);
    (0..BITS_OF_KEY).map(move |nth| {
        let bit = first.wrapping_add(step.wrapping_mul(nth)) % bits;
        (usize::try_from(bit / 64).unwrap_or_default(), 1 << (bit % 64))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn added_key_is_never_unknown(
            keys in prop::collection::hash_set(".{0,40}", 0..200),
            later in prop::collection::hash_set(".{0,40}", 0..200),
        ) {
            let known = KnownKeys::new();
            known.add(keys.iter().map(String::as_str));
            known.complete();
            known.add(later.iter().map(String::as_str));
            let all: Vec<&str> = keys.union(&later).map(String::as_str).collect();
            prop_assert_eq!(known.may_have(&all), all);
        }
    }

    #[test]
    fn added_keys_stay_known_when_layers_are_added() {
        let known = KnownKeys::new();
        known.complete();
        let keys: Vec<String> = (0..FIRST_LAYER * 4).map(|nth| format!("key {nth}")).collect();
        known.add(keys.iter().map(String::as_str));
        assert!(known.layers.read().unwrap().len() > 1);
        let all: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert_eq!(known.may_have(&all).len(), all.len());
    }

    #[test]
    fn nearly_all_other_keys_are_unknown_once_the_memory_is_complete() {
        let known = KnownKeys::new();
        let keys: Vec<String> = (0..FIRST_LAYER).map(|nth| format!("key {nth}")).collect();
        known.add(keys.iter().map(String::as_str));
        let others: Vec<String> = (0..10_000).map(|nth| format!("other {nth}")).collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        assert_eq!(known.may_have(&others).len(), others.len(), "not complete");
        known.complete();
        let count = known.may_have(&others).len();
        assert!(count < 100, "{count} of 10,000");
    }
}
