//! Parser of a raw HTTP/1 request from a proxy's dump or a packet capture.
//!
//! Decides: what the capture contains, and which errors it has itself: a line break from an editor, a missing end, a body
//! that is still chunked. It is tolerant, since people copy and paste.

use super::parts::{Capture, Format};

/// Parses a request line, headers up to a blank line, and a body.
pub(super) fn parse(raw: &[u8]) -> Result<Capture, String> {
    let (head, body) = split_head(raw);
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines().map(str::trim_end).skip_while(|line| line.is_empty());
    let request_line = lines.next().ok_or("the request is empty")?;
    let mut words = request_line.split_ascii_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(format!("`{request_line}` is no request line: METHOD TARGET HTTP/1.1"));
    };
    if !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(format!("`{method}` is no method: the first line is METHOD TARGET HTTP/1.1"));
    }
    let mut headers = Vec::new();
    for line in lines {
        headers.push(header(line)?);
    }
    let mut capture = Capture::new(Format::Http, method, target);
    capture.headers = headers;
    capture.body = body.to_owned();
    settle_body(&mut capture);
    Ok(capture)
}

/// Parses one `Name: value`.
///
/// # Errors
///
/// A line without a name before a colon.
pub fn header(line: &str) -> Result<(String, String), String> {
    match line.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(format!("`{line}` is no header: Name: value")),
    }
}

/// Splits at the first blank line, with any kind of line break.
fn split_head(raw: &[u8]) -> (&[u8], &[u8]) {
    let mut from = 0;
    let mut seen_text = false;
    while let Some(rest) = raw.get(from..) {
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else { break };
        let next = from + length + 1;
        let line = rest.get(..length).unwrap_or_default();
        if line.trim_ascii().is_empty() && seen_text {
            return (raw.get(..from).unwrap_or_default(), raw.get(next..).unwrap_or_default());
        }
        seen_text |= !line.trim_ascii().is_empty();
        from = next;
    }
    (raw, b"")
}

/// Puts chunks together, and finds out where the body ends.
fn settle_body(capture: &mut Capture) {
    let chunked =
        capture.header("Transfer-Encoding").is_some_and(|value| value.contains("chunked"));
    let length = capture.header("Content-Length").and_then(|text| text.parse::<usize>().ok());
    if let Some(body) = chunked.then(|| dechunk(&capture.body)).flatten() {
        capture.body = body;
        capture.notes.push("The chunks of the captured body were put together.".to_owned());
    } else if let Some(length) = length {
        let captured = capture.body.len();
        if captured < length {
            capture.notes.push(format!(
                "The capture is cut: Content-Length is {length}, but {captured} bytes of body are there."
            ));
        } else if captured > length {
            capture.body.truncate(length);
            capture.notes.push(format!(
                "Only the first {length} of {captured} bytes were taken for the body: so says Content-Length."
            ));
        }
    } else if let Some(body) = capture.body.strip_suffix(b"\n") {
        // Twilio's forms do not end with a line break, but editors end every file with one.
        let length = body.strip_suffix(b"\r").unwrap_or(body).len();
        capture.body.truncate(length);
        capture.notes.push(
            "The line break at the end of the file was not taken for a part of the body: there is no Content-Length."
                .to_owned(),
        );
    }
}

/// Decodes the body of a chunked message; `None` if it is not chunked.
fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = rest.iter().position(|byte| *byte == b'\n')?;
        let (size, after) = rest.split_at_checked(line_end)?;
        let size = std::str::from_utf8(size).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        let (chunk, after) = after.get(1..)?.split_at_checked(size)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunk);
        rest = after.strip_prefix(b"\r\n").or_else(|| after.strip_prefix(b"\n"))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn line_breaks_of_both_kinds_are_read() {
        for raw in [
            "POST /a?b=c HTTP/1.1\r\nHost: h\r\nX-Y:z \r\nContent-Length: 3\r\n\r\na=b",
            "\nPOST /a?b=c HTTP/1.1\nHost: h\nX-Y: z\nContent-Length: 3\n\na=b\n",
            "POST /a?b=c\nHost: h\nX-Y: z\n\na=b\n",
        ] {
            let capture = parse(raw.as_bytes()).unwrap();
            assert_eq!((&*capture.method, &*capture.target), ("POST", "/a?b=c"));
            assert_eq!(capture.headers[1], ("X-Y".to_owned(), "z".to_owned()));
            assert_eq!(capture.body, b"a=b", "{raw:?}");
        }
        assert_eq!(parse(b"GET /a HTTP/1.1\nHost: h").unwrap().body, b"");
    }

    #[test]
    fn capture_with_errors_reports_each_of_them() {
        let with = |headers: &str, body: &str| {
            parse(format!("POST / HTTP/1.1\n{headers}\n\n{body}").as_bytes()).unwrap()
        };
        assert!(with("Content-Length: 9", "a=b").notes[0].contains("cut"));
        let chunked = with("Transfer-Encoding: chunked", "3\r\na=b\r\n2;x\r\n&c\r\n0\r\n\r\n");
        assert_eq!(chunked.body, b"a=b&c");
        // The body is already decoded, although the header says chunked.
        assert_eq!(with("Transfer-Encoding: chunked", "a=b").body, b"a=b");
        assert!(with("A: b", "a=b").notes.is_empty());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for raw in ["", "\n\n", "POST", "post / HTTP/1.1", "{}", "POST / HTTP/1.1\nnonsense\n\n"] {
            assert!(parse(raw.as_bytes()).is_err(), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(raw in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&raw);
            let _ = dechunk(&raw);
            let _ = parse(&[b"POST / HTTP/1.1\nTransfer-Encoding: chunked\n\n", raw.as_slice()].concat());
        }
    }
}
