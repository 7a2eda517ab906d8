//! Header map in the serialized form of the host: one buffer, read in place.
//!
//! Decides: the positions of names and values, and that an inconsistent buffer ends early. The SDK makes two allocations
//! for every header; a webhook has about thirty headers, of which the filter uses eight.

/// The pairs of a serialized map, in the host's order.
///
/// The layout (proxy-wasm ABI 0.2.1): the number of pairs; then for each the sizes of name and value; then for each
/// name, NUL, value, NUL. Numbers are 32 bits, little-endian.
#[derive(Debug, Clone)]
pub struct HeaderMap<'a> {
    sizes: &'a [u8],
    texts: &'a [u8],
}

impl<'a> HeaderMap<'a> {
    /// Creates the view of a map, which may be empty or absent.
    pub fn parse(map: &'a [u8]) -> Self {
        let mut rest = map;
        let count = number(&mut rest).unwrap_or_default();
        let bytes = count.checked_mul(8);
        match bytes.and_then(|bytes| rest.split_at_checked(bytes)) {
            Some((sizes, texts)) => Self { sizes, texts },
            None => Self { sizes: b"", texts: b"" },
        }
    }

    fn text(&mut self, size: usize) -> Option<&'a [u8]> {
        let (text, rest) = self.texts.split_at_checked(size)?;
        self.texts = rest.split_first()?.1;
        Some(text)
    }
}

impl<'a> Iterator for HeaderMap<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = (number(&mut self.sizes)?, number(&mut self.sizes)?);
        Some((self.text(name)?, self.text(value)?))
    }
}

fn number(bytes: &mut &[u8]) -> Option<usize> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    usize::try_from(u32::from_le_bytes(*number)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn serialized(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
        let mut map = u32::try_from(pairs.len()).unwrap().to_le_bytes().to_vec();
        for (name, value) in pairs {
            map.extend(size(name).into_iter().chain(size(value)));
        }
        for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
            map.extend(text.iter().chain(b"\0"));
        }
        map
    }

    proptest! {
        #[test]
        fn serialized_map_is_read_back(
            pairs in proptest::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..8),
        ) {
            let map = serialized(&pairs);
            let read: Vec<_> = HeaderMap::parse(&map).map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            prop_assert_eq!(read, pairs);
        }

        #[test]
        fn map_of_any_bytes_is_read_without_panic(map in any::<Vec<u8>>()) {
            prop_assert!(HeaderMap::parse(&map).count() <= map.len() / 8);
        }
    }
}
