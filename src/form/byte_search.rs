//! Search of a text for single bytes, eight at a time: most bytes of a form are none of those that need attention.
//!
//! Decides nothing else. The numbers are little-endian, so the first byte of the text is the lowest.

/// One in each byte.
const EACH: u64 = 0x0101_0101_0101_0101;
/// The highest bit of each byte.
const HIGHEST: u64 = EACH * 0x80;

/// Returns the positions of the bytes whose highest bit is set in the result of `mask`.
#[inline]
pub(super) fn positions(bytes: &[u8], mask: impl Fn(u64) -> u64) -> impl Iterator<Item = usize> {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let mut chunks = chunks.iter();
    let (mut start, mut found, mut is_last) = (0_usize, 0, false);
    let mut next = 0_usize;
    std::iter::from_fn(move || {
        while found == 0 {
            start = next;
            found = match chunks.next() {
                Some(chunk) => mask(u64::from_le_bytes(*chunk)),
                None if is_last => return None,
                None => {
                    is_last = true;
                    mask(u64::from_le_bytes(last))
                }
            };
            next += 8;
        }
        let bit = found.trailing_zeros();
        found &= found - 1;
        Some(start + (bit / 8) as usize)
    })
}

/// Marks capital letters.
#[inline]
pub(super) fn capitals(bytes: u64) -> u64 {
    within(bytes, b'A', b'Z')
}

/// Marks the separators and escapes of a form, and every byte beyond ASCII.
#[inline]
pub(super) fn separators_and_escapes(bytes: u64) -> u64 {
    within(bytes, b'%', b'&')
        | within(bytes, b'+', b'+')
        | within(bytes, b'=', b'=')
        | bytes & HIGHEST
}

/// Marks the bytes from `first` to `last`, both of them ASCII.
#[inline]
fn within(bytes: u64, first: u8, last: u8) -> u64 {
    let low = bytes & !HIGHEST;
    // The highest bit of a byte is set in the first sum from `first` on, in the second above `last`. No sum exceeds its byte.
    let from_first = low + EACH * u64::from(0x80 - first);
    let above_last = low + EACH * u64::from(0x7f - last);
    from_first & !above_last & !bytes & HIGHEST
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reference(bytes: &[u8], is_marked: impl Fn(u8) -> bool) -> Vec<usize> {
        let each = bytes.iter().enumerate().filter(|(_, byte)| is_marked(**byte));
        each.map(|(at, _)| at).collect()
    }

    proptest! {
        #[test]
        fn marked_bytes_are_found_in_any_text(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 30_u8..95], 0..64),
        ) {
            let found: Vec<usize> = positions(&bytes, capitals).collect();
            prop_assert_eq!(found, reference(&bytes, |byte| byte.is_ascii_uppercase()));
            let found: Vec<usize> = positions(&bytes, separators_and_escapes).collect();
            prop_assert_eq!(found, reference(&bytes, |byte| b"&=+%".contains(&byte) || byte >= 128));
        }
    }
}
