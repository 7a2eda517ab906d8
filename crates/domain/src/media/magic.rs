//! Type detection from the first bytes of an item, and comparison with the declared type. `infer` detects formats.
//! Containers (MP4, ZIP, OLE, Ogg, Matroska), which hold many types behind one signature, are reported as containers.

/// Number of first bytes that are needed.
pub(super) const SNIFF_BYTES: usize = 8192;

/// Returns the one name that stands for several names of a type.
fn canonical(content_type: &str) -> &str {
    match content_type {
        "image/jpg" | "image/pjpeg" => "image/jpeg",
        "image/heic" => "image/heif",
        "audio/mp3" | "audio/x-mp3" | "audio/mpeg3" => "audio/mpeg",
        "audio/m4a" | "audio/x-m4a" => "audio/mp4",
        "audio/opus" | "audio/vorbis" | "video/ogg" | "application/ogg" => "audio/ogg",
        "audio/amr-nb" => "audio/amr",
        "audio/x-wav" | "audio/wav" | "audio/wave" => "audio/vnd.wave",
        "video/x-m4v" | "video/mpeg4" => "video/mp4",
        "video/webm" | "audio/webm" | "video/x-matroska" => MATROSKA,
        "text/x-vcard" | "text/directory" | "application/vcard" => "text/vcard",
        other => other,
    }
}

const ISO: &str = "an ISO media file";
const ZIP: &str = "a ZIP archive";
const OLE: &str = "an OLE document";
const MATROSKA: &str = "a Matroska file";
const MPEG_AUDIO: &str = "MPEG audio";

/// Returns the detected container or type, if any.
fn detected(bytes: &[u8]) -> Option<&'static str> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let begins =
        |with: &[u8]| text.get(..with.len()).is_some_and(|got| got.eq_ignore_ascii_case(with));
    let inferred = infer::get(bytes).map(|kind| canonical(kind.mime_type()));
    match (bytes, inferred) {
        ([_, _, _, _, b'f', b't', b'y', b'p', ..], Some("image/heif" | "image/avif")) => inferred,
        ([_, _, _, _, b'f', b't', b'y', b'p', ..], _) => Some(ISO),
        ([b'P', b'K', 3, 4, ..], _) => Some(ZIP),
        ([0xd0, 0xcf, 0x11, 0xe0, ..], _) => Some(OLE),
        ([0x1a, 0x45, 0xdf, 0xa3, ..], _) => Some(MATROSKA),
        ([b'I', b'D', b'3', ..], _) => Some(MPEG_AUDIO),
        ([0xff, second, ..], _) if second & 0xe0 == 0xe0 && *second != 0xfe => Some(MPEG_AUDIO),
        _ if begins(b"BEGIN:VCARD") => Some("text/vcard"),
        _ if begins(b"BEGIN:VCALENDAR") => Some("text/calendar"),
        _ => inferred,
    }
}

/// Returns the detections that a declared type permits, or `None` if the type cannot be detected.
fn expected(content_type: &str) -> Option<&'static [&'static str]> {
    Some(match content_type {
        "image/jpeg" => &["image/jpeg"],
        "image/png" => &["image/png"],
        "image/gif" => &["image/gif"],
        "image/webp" => &["image/webp"],
        "image/bmp" => &["image/bmp"],
        "image/tiff" => &["image/tiff"],
        "image/heif" => &["image/heif", ISO],
        "video/mp4" | "audio/mp4" | "video/3gpp" | "video/3gpp2" => &[ISO],
        "audio/3gpp" | "audio/3gpp2" => &[ISO, "audio/amr"],
        "video/quicktime" => &[ISO, "video/quicktime"],
        "video/mpeg" => &["video/mpeg"],
        MATROSKA => &[MATROSKA],
        "audio/mpeg" | "audio/aac" => &[MPEG_AUDIO, "audio/aac"],
        "audio/ogg" => &["audio/ogg"],
        "audio/amr" => &["audio/amr"],
        "audio/vnd.wave" => &["audio/vnd.wave"],
        "application/pdf" => &["application/pdf"],
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
        | "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
        | "application/vnd.openxmlformats-officedocument.presentationml.presentation"
        | "application/vnd.apple.pkpass" => &[ZIP],
        "application/msword" | "application/vnd.ms-excel" | "application/vnd.ms-powerpoint" => {
            &[OLE]
        }
        "text/vcard" => &["text/vcard"],
        "text/calendar" => &["text/calendar"],
        _ => return None,
    })
}

/// Returns whether two names mean the same type.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    canonical(one) == canonical(other)
}

/// Returns the detected type if the bytes contradict the declared one.
pub(super) fn contradiction(content_type: &str, bytes: &[u8]) -> Option<&'static str> {
    let declared = canonical(content_type);
    let found = detected(bytes.get(..SNIFF_BYTES).unwrap_or(bytes));
    match (expected(declared), found) {
        (Some(kinds), Some(found)) if kinds.contains(&found) => None,
        (Some(_), found) => Some(found.unwrap_or("of another type")),
        (None, Some(found)) if found != declared => Some(found),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_held_against_what_they_are_called() {
        let png: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        let jpeg: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF";
        let mp4: &[u8] = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom";
        let html: &[u8] = b"<!DOCTYPE html><html><body>Sign in</body></html>";
        for (content_type, bytes, expected) in [
            ("image/png", png, None),
            ("image/jpeg", jpeg, None),
            ("image/jpg", jpeg, None),
            ("image/jpeg", png, Some("image/png")),
            ("image/png", html, Some("text/html")),
            ("image/png", b"hello", Some("of another type")),
            ("video/mp4", mp4, None),
            ("audio/mp4", mp4, None),
            ("video/3gpp", mp4, None),
            ("video/mp4", jpeg, Some("image/jpeg")),
            ("image/webp", b"RIFF\x24\0\0\0WEBPVP8 ", None),
            ("image/gif", b"GIF89a\x01\0\x01\0", None),
            ("audio/ogg", b"OggS\0\x02\0\0\0\0\0\0\0\0", None),
            ("audio/mpeg", b"ID3\x04\0\0\0\0\0\0", None),
            ("audio/mpeg", b"\xff\xfa\x90\0", None),
            ("audio/aac", b"\xff\xf1\x50\x80", None),
            ("audio/amr", b"#!AMR\n\x3c\x91\x17\x16\xbe\x66", None),
            ("application/pdf", b"%PDF-1.7\n", None),
            ("application/pdf", html, Some("text/html")),
            ("application/msword", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", None),
            (
                "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
                b"PK\x03\x04\x14\0",
                None,
            ),
            ("text/vcard", b"\xef\xbb\xbfBEGIN:VCARD\r\nVERSION:3.0", None),
            ("text/x-vcard", b"begin:vcard\n", None),
            ("text/csv", b"a;b;c\n1;2;3\n", None),
            ("text/csv", png, Some("image/png")),
            ("video/h264", b"\0\0\0\x01\x67", None),
            ("image/png", b"", Some("of another type")),
        ] {
            assert_eq!(contradiction(content_type, bytes), expected, "{content_type} {bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn type_of_any_bytes_is_detected_without_panic(content_type in "[a-z]{1,5}/[a-z0-9.+-]{1,20}", bytes: Vec<u8>) {
            let _ = contradiction(&content_type, &bytes);
            for (begin, _) in [(&b"PK\x03\x04"[..], 0), (b"\xd0\xcf\x11\xe0", 0), (b"\0\0\0\x18ftyp", 0)] {
                let _ = contradiction(&content_type, &[begin, &bytes].concat());
            }
        }
    }
}
