//! Small files that stand for the media of a contact. Each begins like a real file of its type.

/// Content types with a sample, and its bytes.
const SAMPLES: [(&str, &[u8]); 7] = [
    ("image/jpeg", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xd9"),
    (
        "image/png",
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00",
    ),
    ("audio/ogg", b"OggS\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00OpusHead"),
    ("video/mp4", b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom"),
    ("application/pdf", b"%PDF-1.7\n%%EOF\n"),
    ("text/vcard", b"BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Ada\r\nEND:VCARD\r\n"),
    ("text/plain", b"A file of the simulator.\n"),
];

/// Returns the bytes of the sample of a type.
pub(super) fn sample(content_type: &str) -> Option<&'static [u8]> {
    SAMPLES.iter().find(|(kind, _)| *kind == content_type).map(|(_, bytes)| *bytes)
}
