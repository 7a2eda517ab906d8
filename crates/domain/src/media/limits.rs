//! Limits of a channel for media: type, size and number of items; and the consistency of HEAD, GET and the bytes. The
//! limits are Twilio's, as data that an operator may change.

use serde::Deserialize;

use super::{MediaProblem, MediaProblemKind, magic};

/// Number of first bytes that are needed to detect a type.
pub const SNIFF_BYTES: usize = magic::SNIFF_BYTES;

/// Limits of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MediaLimits {
    /// Maximum number of items in one message.
    pub count: usize,
    /// Maximum size of one image, in bytes.
    pub image_bytes: u64,
    /// Maximum size of any other item, in bytes.
    pub other_bytes: u64,
    /// Maximum total size of a message's items, in bytes.
    pub total_bytes: u64,
    /// Permitted types; empty: any type.
    pub types: Vec<String>,
}

/// Properties of one fetched item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedMedia {
    /// `image/png`, without parameters, in lower case.
    pub content_type: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// Returns the type in a `Content-Type` header, without its parameters.
pub fn content_type(header: &str) -> Option<String> {
    let essence = header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let (kind, name) = essence.split_once('/')?;
    let is_token = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    (essence.len() <= 127 && is_token(kind) && is_token(name)).then_some(essence)
}

/// Checks that HEAD and GET report the same type.
pub fn check_same_type(head: &str, get: &str) -> Result<(), MediaProblem> {
    if magic::is_same(head, get) {
        return Ok(());
    }
    let detail = format!(
        "has type {head} in the response to HEAD and {get} in the response to GET: the server must send the same type for both, or Twilio refuses the media item"
    );
    Err(MediaProblem::new(MediaProblemKind::Mismatch, detail))
}

/// Checks the first bytes against the declared type.
pub fn check_content(content_type: &str, bytes: &[u8]) -> Result<(), MediaProblem> {
    let Some(other) = magic::contradiction(content_type, bytes) else { return Ok(()) };
    let detail = format!(
        "has the declared type {content_type}, but its bytes are {other}: the server must declare the actual type"
    );
    Err(MediaProblem::new(MediaProblemKind::Mismatch, detail))
}

impl MediaLimits {
    /// Returns every invalid setting.
    pub fn problems(&self) -> Vec<String> {
        let is_odd = |one: &&String| content_type(one).as_ref() != Some(*one);
        let odd = self.types.iter().filter(is_odd);
        odd.map(|one| format!("types: {one}: must be a type in lower case, as in image/png"))
            .collect()
    }

    /// Returns the maximum size of any item, in bytes.
    pub fn largest(&self) -> u64 {
        self.image_bytes.max(self.other_bytes).min(self.total_bytes)
    }

    /// Checks the number of items.
    pub fn check_count(&self, count: usize) -> Result<(), MediaProblem> {
        match count > self.count {
            true => Err(MediaProblem::new(
                MediaProblemKind::Count,
                format!(
                    "exceeds the limit of this channel: {} media items per message",
                    self.count
                ),
            )),
            false => Ok(()),
        }
    }

    /// Checks all items. The error has the index of the first invalid item, and its problem.
    pub fn check(&self, found: &[FetchedMedia]) -> Result<(), (usize, MediaProblem)> {
        let mut total: u64 = 0;
        for (n, one) in found.iter().enumerate() {
            self.check_item(one).map_err(|unfit| (n, unfit))?;
            total = total.saturating_add(one.bytes);
            if total > self.total_bytes {
                let detail = format!(
                    "raises the total size to {total} bytes; the limit for a message on this channel is {} bytes",
                    self.total_bytes
                );
                return Err((n, MediaProblem::new(MediaProblemKind::Size, detail)));
            }
        }
        Ok(())
    }

    fn check_item(&self, found: &FetchedMedia) -> Result<(), MediaProblem> {
        let FetchedMedia { content_type, bytes } = found;
        if !self.types.is_empty() && !self.types.iter().any(|one| one == content_type) {
            let detail = format!("has type {content_type}, which this channel does not accept");
            return Err(MediaProblem::new(MediaProblemKind::Type, detail));
        }
        let most = match content_type.starts_with("image/") {
            true => self.image_bytes,
            false => self.other_bytes,
        };
        if *bytes > most {
            let detail = format!(
                "has {bytes} bytes; the limit for {content_type} on this channel is {most} bytes"
            );
            return Err(MediaProblem::new(MediaProblemKind::Size, detail));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn usual(channel: &str) -> MediaLimits {
        let known = ["whatsapp", "sms"].contains(&channel);
        crate::defaults::section(&format!("media.{}", if known { channel } else { "rcs" }))
    }

    fn why(channel: &str, found: &[(&str, u64)]) -> Option<(usize, MediaProblemKind)> {
        let found: Vec<FetchedMedia> = found
            .iter()
            .map(|(kind, bytes)| FetchedMedia { content_type: (*kind).to_owned(), bytes: *bytes })
            .collect();
        usual(channel).check(&found).err().map(|(n, unfit)| (n, unfit.kind))
    }

    #[test]
    fn channel_limits_are_those_of_twilio() {
        for (channel, found, expected) in [
            ("whatsapp", &[("image/jpeg", 5 * MB)][..], None),
            ("whatsapp", &[("image/jpeg", 5 * MB + 1)], Some((0, MediaProblemKind::Size))),
            ("whatsapp", &[("video/mp4", 16 * MB)], None),
            ("whatsapp", &[("video/mp4", 16 * MB + 1)], Some((0, MediaProblemKind::Size))),
            ("whatsapp", &[("application/vnd.ms-excel", MB)], None),
            ("whatsapp", &[("application/vnd.ms-powerpoint", MB)], None),
            ("whatsapp", &[("text/plain", 1)], None),
            ("whatsapp", &[("video/3gpp", MB)], None),
            ("whatsapp", &[("image/gif", 1)], Some((0, MediaProblemKind::Type))),
            ("whatsapp", &[("text/html", 1)], Some((0, MediaProblemKind::Type))),
            ("sms", &[("image/gif", 5 * MB)], None),
            (
                "sms",
                &[("image/png", 3 * MB), ("image/png", 3 * MB)],
                Some((1, MediaProblemKind::Size)),
            ),
            ("sms", &[("application/pdf", 512_000)], None),
            (
                "sms",
                &[("image/png", 1), ("application/pdf", 512_001)],
                Some((1, MediaProblemKind::Size)),
            ),
            ("sms", &[("image/webp", 1)], Some((0, MediaProblemKind::Type))),
            ("rcs", &[("video/mp4", 16 * MB)], None),
            ("messenger", &[("image/webp", 1)], None),
        ] {
            assert_eq!(why(channel, found), expected, "{channel} {found:?}");
        }
        assert!(
            usual("whatsapp").check_count(1).is_ok() && usual("whatsapp").check_count(2).is_err()
        );
        assert!(usual("sms").check_count(10).is_ok() && usual("sms").check_count(11).is_err());
    }

    #[test]
    fn content_type_header_is_parsed_strictly() {
        for (header, expected) in [
            ("image/png", Some("image/png")),
            (" Image/PNG ; charset=utf-8", Some("image/png")),
            ("audio/ogg; codecs=opus", Some("audio/ogg")),
            ("", None),
            ("image", None),
            ("/png", None),
            ("image/", None),
            ("a b/c", None),
            ("image/png, text/html", None),
        ] {
            assert_eq!(content_type(header).as_deref(), expected, "{header}");
        }
    }
}
