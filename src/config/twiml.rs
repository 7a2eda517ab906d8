//! Validation of TwiML. A text that Twilio cannot read is an error (12100) on every message, which the operator would
//! notice only when contacts wait for an answer. Only the shape is checked: one `<Response>`, closed tags, escaped signs.
//! Twilio decides which verbs are valid.

/// Returns the problem of a text, or `None` if it is valid.
pub(super) fn problem(text: &str) -> Option<&'static str> {
    let mut rest = text.trim();
    if let Some(prolog) = rest.strip_prefix("<?xml") {
        let Some((_, after)) = prolog.split_once("?>") else {
            return Some("has a prolog that does not end");
        };
        rest = after.trim_start();
    }
    let (mut open, mut elements) = (Vec::new(), 0_usize);
    while let Some((before, tag)) = rest.split_once('<') {
        if open.is_empty() && !before.trim().is_empty() {
            return Some("has text outside of <Response>");
        }
        if let Some(comment) = tag.strip_prefix("!--") {
            let Some((_, after)) = comment.split_once("-->") else {
                return Some("has a comment that does not end");
            };
            rest = after;
            continue;
        }
        let Some(end) = end_of(tag) else { return Some("has a tag that does not end") };
        let (tag, after) = tag.split_at(end);
        rest = after.get(1..).unwrap_or_default();
        if !is_escaped(before) || !is_escaped(tag) {
            return Some("has a & that begins no escape: write &amp;");
        }
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop() != Some(name.trim_end()) {
                return Some("closes a tag that is not open");
            }
            continue;
        }
        let (tag, is_empty) = match tag.strip_suffix('/') {
            Some(tag) => (tag, true),
            None => (tag, false),
        };
        let name = tag.split(|c: char| c.is_ascii_whitespace()).next().unwrap_or_default();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Some("has a < that begins no tag: write &lt;");
        }
        if open.is_empty() && (elements > 0 || name != "Response") {
            return Some("is not one <Response>");
        }
        elements = elements.saturating_add(1);
        if !is_empty {
            open.push(name);
        }
    }
    match (elements, open.is_empty(), rest.trim().is_empty()) {
        (0, ..) => Some("is not one <Response>"),
        (_, false, _) => Some("has a tag that is never closed"),
        (_, true, false) => Some("has text outside of <Response>"),
        (_, true, true) => None,
    }
}

/// Returns the position at which a tag ends: at a `>` outside of quotes.
fn end_of(tag: &str) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in tag.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(opening), _) if opening == byte => quote = None,
            _ => {}
        }
    }
    None
}

fn is_escaped(text: &str) -> bool {
    text.split('&').skip(1).all(|after| {
        let name = after.split_once(';').map_or("", |(name, _)| name);
        let is_number = name.strip_prefix('#').is_some_and(|number| {
            let digits = number.strip_prefix('x').unwrap_or(number);
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        is_number || ["amp", "lt", "gt", "quot", "apos"].contains(&name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_twiml_is_accepted() {
        for twiml in [
            "<Response/>",
            " <Response></Response>\n",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Message>We have it.</Message></Response>",
            "<Response><!-- a & b --><Message to='+15551230001' note=\"a > b\"><Body>1 &lt; 2 &amp; &#233;&#xe9;</Body><Media>https://x/y</Media></Message ></Response>",
        ] {
            assert_eq!(problem(twiml), None, "{twiml}");
        }
    }

    #[test]
    fn invalid_twiml_is_refused_with_its_problem() {
        for (text, expected) in [
            ("", "not one <Response>"),
            ("We have it.", "not one <Response>"),
            ("<Message>hi</Message>", "not one <Response>"),
            ("<Response/><Response/>", "not one <Response>"),
            ("hi <Response/>", "text outside"),
            ("<Response/> hi", "text outside"),
            ("<Response>", "never closed"),
            ("<Response><Message>hi</Response>", "closes a tag"),
            ("<Response></response>", "closes a tag"),
            ("</Response>", "closes a tag"),
            ("<Response><Message>you & me</Message></Response>", "&amp;"),
            ("<Response><Message a='&x'/></Response>", "&amp;"),
            ("<Response>1 < 2</Response>", "&lt;"),
            ("<Response", "does not end"),
            ("<Response a=\">", "does not end"),
            ("<?xml <Response/>", "does not end"),
            ("<Response><!-- </Response>", "does not end"),
            ("<!DOCTYPE x><Response/>", "&lt;"),
        ] {
            let found = problem(text).unwrap_or_default();
            assert!(found.contains(expected), "{text}: {found}");
        }
    }
}
