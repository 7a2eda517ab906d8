//! Headers that make stored media safe to show in a browser.
//!
//! The uploader chooses the type of an item, and its link opens on our host. A page or an SVG would run its scripts
//! there, so only types without scripts are shown in place. All other types are downloads.

/// `Content-Security-Policy` of stored media: no type may load or run anything.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; sandbox";

/// Maximum length of a file name's extension, in characters.
const MAX_EXTENSION_CHARS: usize = 8;

/// Returns the `Content-Disposition` of a stored item.
pub fn disposition(id: &str, content_type: &str) -> String {
    match is_shown_in_place(content_type) {
        true => "inline".to_owned(),
        false => attachment(id, content_type),
    }
}

/// Returns the `Content-Disposition` of a download. The file name is the id with an extension from the type. Both are
/// reduced to letters, digits, `_` and `-`, so that the quoted string of RFC 6266 needs no escapes.
pub fn attachment(id: &str, content_type: &str) -> String {
    let plain = |text: &str| -> String {
        text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).collect()
    };
    let subtype = content_type.split(';').next().unwrap_or_default().split('/').nth(1);
    let extension = subtype.unwrap_or_default().split('+').next().unwrap_or_default();
    let extension =
        extension.rsplit('.').next().map(plain).unwrap_or_default().to_ascii_lowercase();
    let extension = match extension.len() {
        1..=MAX_EXTENSION_CHARS => extension,
        _ => "bin".to_owned(),
    };
    format!("attachment; filename=\"{}.{extension}\"", plain(id))
}

fn is_shown_in_place(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((kind, subtype)) = essence.split_once('/') else { return false };
    let has_scripts = ["xml", "svg", "html"].iter().any(|marker| subtype.contains(marker));
    (matches!(kind, "image" | "audio" | "video") && !has_scripts) || essence == "application/pdf"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_types_are_images_audio_video_and_pdf() {
        for kind in [
            "image/png",
            "IMAGE/JPEG",
            "image/webp",
            "audio/ogg",
            "video/mp4",
            "application/pdf",
            "image/gif; a=b",
        ] {
            assert_eq!(disposition("md_1", kind), "inline", "{kind}");
        }
        for (kind, name) in [
            ("image/svg+xml", "md_1.svg"),
            ("Image/SVG+XML; charset=utf-8", "md_1.svg"),
            ("text/html", "md_1.html"),
            ("application/xhtml+xml", "md_1.xhtml"),
            ("text/vcard", "md_1.vcard"),
            ("text/plain", "md_1.plain"),
            (
                "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
                "md_1.document",
            ),
            ("application/octet-stream", "md_1.bin"),
            ("video/x+xml", "md_1.x"),
            ("nonsense", "md_1.bin"),
            ("", "md_1.bin"),
        ] {
            assert_eq!(
                disposition("md_1", kind),
                format!("attachment; filename=\"{name}\""),
                "{kind}"
            );
        }
        assert_eq!(
            disposition("a\"\r\nb/../é", "text/x\"y"),
            "attachment; filename=\"ab.xy\"",
            "nothing ends the quotes"
        );
    }
}
