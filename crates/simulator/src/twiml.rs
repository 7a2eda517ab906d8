//! TwiML in the answer to an inbound message: its replies and its redirect. Pure.
//!
//! Sources: twilio.com/docs/messaging/twiml, .../twiml/message, .../twiml/redirect, twilio.com/docs/errors.

use quick_xml::Reader;
use quick_xml::XmlVersion::Implicit1_0;
use quick_xml::events::{BytesStart, Event};

/// Largest document, in bytes; a larger one is the error 11750.
pub(super) const MAX_BYTES: usize = 64 * 1024;

/// Instruction of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verb {
    Message(Reply),
    /// The TwiML of this URL replaces the rest of the document.
    Redirect {
        url: String,
        is_get: bool,
    },
}

/// Message to send; the defaults of sender and recipient are those of the inbound message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) to: Option<String>,
    pub(super) from: Option<String>,
    pub(super) body: String,
    pub(super) media: Vec<String>,
    pub(super) status_callback: Option<String>,
}

/// Reads the body of an answer.
///
/// # Errors
/// Twilio's error code: 11750 (too large), 12300 (content type), 12100 (no XML document), 12102 (root element), 12200
/// (unknown verb).
pub(super) fn read(content_type: Option<&str>, body: &[u8]) -> Result<Vec<Verb>, u32> {
    if body.len() > MAX_BYTES {
        return Err(11750);
    }
    let text = std::str::from_utf8(body).map_err(|_| 12100_u32)?.trim();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let kind = content_type.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    match kind.to_ascii_lowercase().as_str() {
        "text/plain" => {
            Ok(vec![Verb::Message(Reply { body: text.to_owned(), ..Reply::default() })])
        }
        "text/xml" | "application/xml" | "application/twiml+xml" | "text/html" => document(text),
        _ => Err(12300),
    }
}

/// Element below the root, as far as verbs need it.
#[derive(Debug, Default)]
struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    text: String,
    children: Vec<(String, String)>,
}

impl Element {
    fn attribute(&self, name: &str) -> Option<String> {
        let found = self.attributes.iter().find(|(have, value)| have == name && !value.is_empty());
        found.map(|(_, value)| value.clone())
    }

    fn verb(&self) -> Result<Verb, u32> {
        match self.name.as_str() {
            "Message" | "Sms" => {
                let texts = |name: &'static str| {
                    let texts = self.children.iter().filter(move |(have, _)| have == name);
                    texts.map(|(_, text)| text.trim().to_owned())
                };
                let body = texts("Body").next().unwrap_or_else(|| self.text.trim().to_owned());
                Ok(Verb::Message(Reply {
                    to: self.attribute("to"),
                    from: self.attribute("from"),
                    body,
                    media: texts("Media").collect(),
                    status_callback: self.attribute("statusCallback"),
                }))
            }
            "Redirect" => {
                let is_get = self
                    .attribute("method")
                    .is_some_and(|method| method.eq_ignore_ascii_case("GET"));
                Ok(Verb::Redirect { url: self.text.trim().to_owned(), is_get })
            }
            _ => Err(12200),
        }
    }
}

fn document(text: &str) -> Result<Vec<Verb>, u32> {
    let mut reader = Reader::from_str(text);
    let (mut depth, mut has_root) = (0_usize, false);
    let (mut element, mut verbs) = (Element::default(), Vec::new());
    loop {
        match reader.read_event().map_err(|_| 12100_u32)? {
            Event::Start(tag) => {
                open(&tag, depth, has_root, &mut element)?;
                has_root = true;
                depth = depth.saturating_add(1);
            }
            Event::Empty(tag) => {
                open(&tag, depth, has_root, &mut element)?;
                has_root = true;
                if depth == 1 {
                    verbs.push(element.verb()?);
                }
            }
            Event::End(_) => {
                depth = depth.saturating_sub(1);
                if depth == 1 {
                    verbs.push(element.verb()?);
                }
            }
            Event::Text(text) => {
                add(&text.decode().map_err(|_| 12100_u32)?, depth, &mut element)?;
            }
            Event::CData(text) => {
                add(&text.decode().map_err(|_| 12100_u32)?, depth, &mut element)?;
            }
            Event::GeneralRef(name) => {
                let name = name.decode().map_err(|_| 12100_u32)?;
                let text = quick_xml::escape::unescape(&format!("&{name};"))
                    .map_err(|_| 12100_u32)?
                    .into_owned();
                add(&text, depth, &mut element)?;
            }
            Event::Eof if depth == 0 && has_root => return Ok(verbs),
            Event::Eof => return Err(12100),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}

/// Records the start of an element at this depth.
fn open(
    tag: &BytesStart<'_>,
    depth: usize,
    has_root: bool,
    element: &mut Element,
) -> Result<(), u32> {
    let name = String::from_utf8_lossy(tag.name().as_ref()).into_owned();
    match depth {
        0 if has_root => return Err(12100),
        0 if name != "Response" => return Err(12102),
        1 => {
            *element = Element { name, ..Element::default() };
            for attribute in tag.attributes() {
                let attribute = attribute.map_err(|_| 12100_u32)?;
                let value = attribute.normalized_value(Implicit1_0).map_err(|_| 12100_u32)?;
                let name = String::from_utf8_lossy(attribute.key.as_ref()).into_owned();
                element.attributes.push((name, value.into_owned()));
            }
        }
        2 => element.children.push((name, String::new())),
        _ => {}
    }
    Ok(())
}

/// Adds text at this depth; outside of the root only white space is allowed.
fn add(text: &str, depth: usize, element: &mut Element) -> Result<(), u32> {
    match depth {
        0 if !text.trim().is_empty() => return Err(12100),
        2 => element.text.push_str(text),
        3 => {
            if let Some((_, have)) = element.children.last_mut() {
                have.push_str(text);
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn xml(text: &str) -> Result<Vec<Verb>, u32> {
        read(Some("text/xml; charset=utf-8"), text.as_bytes())
    }

    fn reply(body: &str) -> Verb {
        Verb::Message(Reply { body: body.to_owned(), ..Reply::default() })
    }

    #[test]
    fn replies_and_redirects_are_read() {
        let text = r#"<?xml version="1.0" encoding="UTF-8"?><!-- one --><Response>
            <Message>Fish &amp; chips &#33; <![CDATA[<3]]></Message>
            <Message to="+14155550124" from="+14155238887" statusCallback="/s?a=1&amp;b=2">
                <Body>Hi</Body><Media>https://example.com/a.png</Media><Media>https://example.com/b.png</Media>
            </Message>
            <Redirect method="get">next?a=1&amp;b=2</Redirect></Response>"#;
        let second = Reply {
            to: Some("+14155550124".to_owned()),
            from: Some("+14155238887".to_owned()),
            body: "Hi".to_owned(),
            media: ["a", "b"].map(|name| format!("https://example.com/{name}.png")).to_vec(),
            status_callback: Some("/s?a=1&b=2".to_owned()),
        };
        let redirect = Verb::Redirect { url: "next?a=1&b=2".to_owned(), is_get: true };
        assert_eq!(
            xml(text),
            Ok(vec![reply("Fish & chips ! <3"), Verb::Message(second), redirect])
        );
    }

    #[test]
    fn content_type_decides_the_meaning_of_an_answer() {
        assert_eq!(read(None, b" \n"), Ok(Vec::new()));
        assert_eq!(read(Some("text/plain"), b"<b>Hi</b>\n"), Ok(vec![reply("<b>Hi</b>")]));
        assert_eq!(read(Some("text/html"), b"<Response/>"), Ok(Vec::new()));
        assert_eq!(read(Some("application/json"), b"{}"), Err(12300));
        assert_eq!(read(None, b"<Response/>"), Err(12300));
        assert_eq!(read(Some("text/plain"), &vec![b'a'; MAX_BYTES + 1]), Err(11750));
    }

    #[test]
    fn invalid_documents_have_twilios_codes() {
        for (text, code) in [
            ("hello", 12100),
            ("<Response>", 12100),
            ("<Response></Message></Response>", 12100),
            ("<Response/><Response/>", 12100),
            ("<Response/>more", 12100),
            ("<Response><Message>a & b</Message></Response>", 12100),
            ("<Response><Message>&nbsp;</Message></Response>", 12100),
            ("<html></html>", 12102),
            ("<Response><Say>Hi</Say></Response>", 12200),
        ] {
            assert_eq!(xml(text), Err(code), "{text}");
        }
    }

    proptest! {
        /// Property: each text in a reply arrives as it was written, if it is escaped.
        #[test]
        fn escaped_text_is_read_unchanged(text in "[ -~äß€😀]{0,40}") {
            let escaped = quick_xml::escape::escape(text.as_str());
            let verbs = xml(&format!("<Response><Message>{escaped}</Message></Response>"));
            prop_assert_eq!(verbs, Ok(vec![reply(text.trim())]));
        }

        #[test]
        fn document_of_any_bytes_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), tail in "(<|>|/|&|Response|Message|[a-z\"= ]){0,12}") {
            let _ = read(Some("text/xml"), &bytes);
            let _ = xml(&format!("<Response>{tail}"));
        }
    }
}
