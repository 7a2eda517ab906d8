//! Selection of the backend answers that are saved for duplicates: small texts that Twilio reads as TwiML or as a message.

use twilio_edge_contract::SavedAnswer;

/// Largest answer that is saved for duplicates, in bytes.
pub(super) const MAX_SAVED_BYTES: usize = 4096;

/// Returns the answer if it is one to save. `body` is the whole answer, or more than [`MAX_SAVED_BYTES`] bytes of it.
pub(super) fn saved(status: u16, content_type: String, body: Vec<u8>) -> Option<SavedAnswer> {
    let fits = body.len() <= MAX_SAVED_BYTES;
    let body = String::from_utf8(body).ok().filter(|_| fits)?;
    let is_page = is_media_type(&content_type, HTML) && !is_twiml(&body);
    (!is_page).then_some(SavedAnswer { status, content_type, body })
}

/// Returns the content type if Twilio reads such an answer as TwiML or as plain text
/// (docs: twilio.com/docs/messaging/twiml#twilio-mime-types).
pub(super) fn twiml_type(content_type: Vec<u8>) -> Option<String> {
    let content_type = String::from_utf8(content_type).ok()?;
    let known = ["text/xml", "application/xml", "application/twiml+xml", "text/plain", HTML];
    let is_text = content_type.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    (is_text && known.iter().any(|known| is_media_type(&content_type, known)))
        .then_some(content_type)
}

/// Content type of PHP and of many frameworks where the application sets none.
const HTML: &str = "text/html";

/// Returns whether a content type names this media type, regardless of letter case and parameters.
fn is_media_type(content_type: &str, media_type: &str) -> bool {
    let own = content_type.split(';').next().unwrap_or_default().trim();
    own.eq_ignore_ascii_case(media_type)
}

/// Returns whether a document's first element is `<Response>`, which distinguishes TwiML from a web page.
fn is_twiml(body: &str) -> bool {
    let mut rest = body.trim_start_matches('\u{feff}').trim_start();
    loop {
        let end = if rest.starts_with("<!--") {
            "-->"
        } else if rest.starts_with("<?") {
            "?>"
        } else {
            break;
        };
        let Some((_, after)) = rest.split_once(end) else { return false };
        rest = after.trim_start();
    }
    let name = rest.strip_prefix("<Response");
    name.is_some_and(|after| {
        after.starts_with(|c: char| c == '>' || c == '/' || c.is_ascii_whitespace())
    })
}
