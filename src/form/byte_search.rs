//! Search of a text for single bytes, eight at a time: most bytes of a form are none of those that need attention.
//!
//! Decides nothing else. The numbers are little-endian, so the first byte of the text is the lowest.

/// One in each byte.
const EACH: u64 = 0x0101_0101_0101_0101;
/// The highest bit of each byte.
const HIGHEST: u64 = EACH * 0x80;

/// Visits the positions of the bytes whose highest bit is set in the result of `mask`, until the visitor returns false.
#[inline]
pub(super) fn visit(bytes: &[u8], mask: impl Fn(u64) -> u64, mut visit: impl FnMut(usize) -> bool) {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let mut start = 0;
    for chunk in chunks.iter().chain(std::iter::once(&last)) {
        let mut found = mask(u64::from_le_bytes(*chunk));
        while found != 0 {
            if !visit(start + (found.trailing_zeros() / 8) as usize) {
                return;
            }
            found &= found - 1;
        }
        start += 8;
    }
}

/// Reports whether every byte is a visible ASCII character or a space.
#[inline]
pub(crate) fn is_printable(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<8>();
    chunks.iter().all(|chunk| within(u64::from_le_bytes(*chunk), b' ', b'~') == HIGHEST)
        && rest.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Returns the positions of `word` in `text`, at most `N`. The word begins with a capital letter. The library's search
/// prepares for long words, which costs more than such a search.
pub(super) fn find<const N: usize>(text: &str, word: &str) -> [Option<usize>; N] {
    let mut found = [None; N];
    let mut free = found.iter_mut();
    let bytes = text.as_bytes();
    let initial = word.bytes().next().unwrap_or_default();
    visit(
        bytes,
        |eight| within(eight, initial, initial),
        |at| {
            if bytes.get(at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
                match free.next() {
                    Some(place) => *place = Some(at),
                    None => return false,
                }
            }
            true
        },
    );
    found
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

    fn visited(bytes: &[u8], mask: impl Fn(u64) -> u64) -> Vec<usize> {
        let mut positions = Vec::new();
        visit(bytes, mask, |at| {
            positions.push(at);
            true
        });
        positions
    }

    fn reference(bytes: &[u8], is_marked: impl Fn(u8) -> bool) -> Vec<usize> {
        let each = bytes.iter().enumerate().filter(|(_, byte)| is_marked(**byte));
        each.map(|(at, _)| at).collect()
    }

    proptest! {
        #[test]
        fn marked_bytes_are_found_in_any_text(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 30_u8..95], 0..64),
        ) {
            let found = visited(&bytes, capitals);
            prop_assert_eq!(found, reference(&bytes, |byte| byte.is_ascii_uppercase()));
            let found = visited(&bytes, separators_and_escapes);
            prop_assert_eq!(found, reference(&bytes, |byte| b"&=+%".contains(&byte) || byte >= 128));
            let is_printable = reference(&bytes, |byte| byte != b' ' && !byte.is_ascii_graphic());
            prop_assert_eq!(super::is_printable(&bytes), is_printable.is_empty());
        }

        #[test]
        fn words_are_found_in_any_text(text in "(Body|B|o|d|y|Bo|é){0,24}") {
            let all: Vec<usize> = text.match_indices("Body").map(|(at, _)| at).collect();
            let found = find::<2>(&text, "Body");
            prop_assert_eq!(found, [all.first().copied(), all.get(1).copied()]);
        }
    }
}
