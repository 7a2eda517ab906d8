//! Captured requests in the forms that people have: a raw HTTP request, a JSON line, a curl command, a HAR file, a line of
//! an access log, an alert of Twilio's debugger, and what an Express application prints.
//!
//! [`Capture::read`] recognizes the form by its content. Each form is one module, a plain function from bytes to a
//! [`Capture`]. Input is limited to [`MAX_BYTES`]; no input causes a panic.

mod access_log;
mod alert;
mod curl;
mod curl_options;
mod express;
mod har;
mod http;
mod json_line;
mod literal;
mod parts;
mod recognition;
mod shell_words;

pub use self::http::header;
pub use self::json_line::JsonLine;
pub use self::parts::{Capture, Format, MAX_BYTES, Part};

/// Largest number of headers of one request.
const MAX_HEADERS: usize = 1000;

impl Format {
    /// Returns the form of an input by its content. An input without a sign of another form is a raw HTTP request.
    pub fn of(raw: &[u8]) -> Self {
        recognition::recognize(raw)
    }
}

impl Capture {
    /// Reads a captured request. Without `format` its form is recognized. `entry`, counted from 1, selects one of several
    /// requests.
    ///
    /// # Errors
    ///
    /// A sentence that names the form and what is wrong or missing.
    pub fn read(raw: &[u8], format: Option<Format>, entry: Option<usize>) -> Result<Self, String> {
        if raw.len() > MAX_BYTES {
            return Err(format!("it is longer than {MAX_BYTES} bytes"));
        }
        let read_as = format.unwrap_or_else(|| Format::of(raw));
        let has_entries = matches!(read_as, Format::Har | Format::AccessLog | Format::Alert);
        if entry.is_some() && !has_entries {
            return Err(format!("--entry is for inputs with several requests, this is {read_as}"));
        }
        let capture = match read_as {
            Format::Http => http::parse(raw),
            Format::Json => json_line::parse(raw),
            Format::Curl => curl::parse(raw),
            Format::Har => har::parse(raw, entry),
            Format::AccessLog => access_log::parse(raw, entry),
            Format::Alert => alert::parse(raw, entry),
            Format::Express => express::parse(raw),
        };
        let capture = capture.and_then(|capture| match capture.headers.len() {
            0..=MAX_HEADERS => Ok(capture),
            number => Err(format!("{number} headers are more than {MAX_HEADERS}")),
        });
        capture.map_err(|problem| match format {
            Some(_) => format!("read as {read_as}: {problem}"),
            None => {
                let others = Format::ALL.into_iter().filter(|other| *other != read_as);
                let others: Vec<&str> = others.map(Format::as_str).collect();
                format!(
                    "recognized as {read_as}: {problem}\nIf it is something else, use --format with one of {}.",
                    others.join(", ")
                )
            }
        })
    }
}

#[cfg(test)]
mod tests;
