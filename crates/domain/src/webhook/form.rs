//! Parameters of a form, found without decoding the whole form.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Returns the first parameter of each name. The filter rejects repeated single-valued fields, and verified the first
/// one. Decoding the whole form for a few fields would be most of the cost of parsing a claim.
pub(super) fn parameters<'a, const N: usize>(
    form: &'a str,
    names: [&str; N],
) -> [Option<Parameter<'a>>; N] {
    let mut found = [const { None }; N];
    let mut start = 0;
    let ends = memchr::memchr_iter(b'&', form.as_bytes()).chain([form.len()]);
    for end in ends {
        let parameter = Parameter(form.get(start..end).unwrap_or_default());
        start = end.saturating_add(1);
        // Twilio does not escape the known names; an escaped name means the same.
        let first = parameter.0.as_bytes().first();
        let may_be_wanted =
            first == Some(&b'%') || names.iter().any(|wanted| wanted.as_bytes().first() == first);
        if !may_be_wanted {
            continue;
        }
        let name = parameter.name();
        let wanted = names.iter().position(|wanted| *wanted == name);
        if let Some(place) = wanted.and_then(|wanted| found.get_mut(wanted)) {
            place.get_or_insert(parameter);
        }
    }
    found
}

/// One parameter as it is encoded in the form: `Body=Hello+there`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parameter<'a>(pub(super) &'a str);

impl<'a> Parameter<'a> {
    /// Returns the encoded name and value.
    pub(super) fn parts(self) -> (&'a str, &'a str) {
        let equals = memchr::memchr(b'=', self.0.as_bytes()).unwrap_or(self.0.len());
        let (name, value) = self.0.split_at_checked(equals).unwrap_or((self.0, ""));
        (name, value.get(1..).unwrap_or_default())
    }

    pub(super) fn name(self) -> Cow<'a, str> {
        decoded(self.parts().0)
    }

    pub(super) fn value(self) -> Cow<'a, str> {
        decoded(self.parts().1)
    }

    /// Returns whether the value certainly has more than `most` words. It rules out a keyword without decoding most
    /// messages.
    pub(super) fn has_more_words(self, most: usize) -> bool {
        let (_, value) = self.parts();
        let has_letter = |word: &&str| {
            let mut parts = word.split('%');
            let plain = parts.next().unwrap_or_default();
            let escaped = parts.filter_map(|part| part.get(2..));
            let mut parts = [plain].into_iter().chain(escaped);
            parts.any(|part| part.bytes().any(|byte| byte.is_ascii_alphanumeric()))
        };
        value.split('+').filter(has_letter).nth(most).is_some()
    }
}

/// Decodes form text as the filter does: an invalid escape stays as it is, and invalid UTF-8 becomes U+FFFD.
fn decoded(text: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'%', b'+', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    if memchr::memchr(b'+', text.as_bytes()).is_none() {
        return percent_decode_str(text).decode_utf8_lossy();
    }
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned().into()
}
