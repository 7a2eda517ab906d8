//! Command for curl, as browsers and Postman copy it and as `twilio-edge sign` prints it.
//!
//! Decides: the request that curl would send. Files that the command names are not read. Source of the options: curl(1).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::curl_options::{long_name, takes_value};
use super::http;
use super::parts::{Capture, Format, text, value_of};
use super::shell_words::words;
use crate::url::Url;

/// Characters that `--data-urlencode` keeps.
const URLENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b' ');

/// Returns whether a text is a command for curl, after comments and a prompt.
pub(super) fn is_command(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines.find(|line| !line.starts_with('#')).unwrap_or_default();
    let word = without_prompt(line).split_ascii_whitespace().next().unwrap_or_default();
    is_curl(word)
}

fn is_curl(word: &str) -> bool {
    let name = word.rsplit(['/', '\\']).next().unwrap_or_default();
    matches!(name, "curl" | "curl.exe")
}

fn without_prompt(line: &str) -> &str {
    line.trim_start_matches(['$', '%', '>']).trim_start()
}

/// Parts of the request that the options give.
#[derive(Default)]
struct Request {
    method: Option<String>,
    url: Option<String>,
    headers: Vec<(String, String)>,
    /// Names that are not sent (`-H 'Accept:'`).
    removed: Vec<String>,
    data: Option<Vec<u8>>,
    is_get: bool,
    is_head: bool,
    notes: Vec<String>,
}

/// Reads the request of the first command.
pub(super) fn parse(raw: &[u8]) -> Result<Capture, String> {
    let text = text(raw)?;
    if text.contains("^\"") || text.contains("^\n") || text.contains("^\r\n") {
        return Err("its quoting is that of Windows (^): copy it as cURL for bash".to_owned());
    }
    let text: Vec<&str> = text.lines().skip_while(|line| line.trim().is_empty()).collect();
    let text = text.join("\n");
    let command = words(without_prompt(&text))?;
    let mut words = command.words.iter();
    if !words.next().is_some_and(|word| is_curl(&String::from_utf8_lossy(word))) {
        return Err("it does not begin with the word curl".to_owned());
    }
    let mut request = Request::default();
    while let Some(word) = words.next() {
        let word = String::from_utf8_lossy(word).into_owned();
        request.take(&word, &mut words)?;
        if word == "--next" || word == "-:" {
            request.notes.push("Only the request before --next was read.".to_owned());
            break;
        }
    }
    if command.operator == Some('&') {
        request
            .notes
            .push("The command ends at an unquoted &, as in a shell: quote the URL.".to_owned());
    }
    request.finish()
}

impl Request {
    /// Takes one word, and its value from the words after it.
    fn take<'w>(
        &mut self,
        word: &str,
        rest: &mut impl Iterator<Item = &'w Vec<u8>>,
    ) -> Result<(), String> {
        if word.starts_with("--") {
            let value = takes_value(word).then(|| rest.next().cloned());
            let value = value.map(|value| value.ok_or_else(|| format!("{word} has no value")));
            return self.option(word, value.transpose()?.unwrap_or_default());
        }
        let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            if self.url.is_none() {
                self.url = Some(word.to_owned());
            } else {
                self.notes.push("The command has several URLs; the first was read.".to_owned());
            }
            return Ok(());
        };
        // `-sSXPOST` is `-s -S -X POST`.
        for (at, letter) in letters.char_indices() {
            let long = long_name(letter);
            let Some(long) = long else { continue };
            if !takes_value(long) {
                self.option(long, Vec::new())?;
                continue;
            }
            let attached = word.get(1 + at + letter.len_utf8()..).filter(|value| !value.is_empty());
            let value = match attached {
                Some(value) => value.as_bytes().to_vec(),
                None => rest.next().cloned().ok_or_else(|| format!("-{letter} has no value"))?,
            };
            return self.option(long, value);
        }
        Ok(())
    }

    fn option(&mut self, name: &str, value: Vec<u8>) -> Result<(), String> {
        let text = || String::from_utf8_lossy(&value).into_owned();
        match name {
            "--request" => self.method = Some(text()),
            "--url" => self.url = Some(text()),
            "--header" => self.header(&text())?,
            "--user-agent" => self.headers.push(("User-Agent".to_owned(), text())),
            "--referer" => self.headers.push(("Referer".to_owned(), text())),
            "--cookie" => self.headers.push(("Cookie".to_owned(), text())),
            "--user" => {
                let value = format!("Basic {}", STANDARD.encode(&value));
                self.headers.push(("Authorization".to_owned(), value));
            }
            "--data" | "--data-ascii" | "--data-binary" => {
                no_file(name, &value)?;
                self.data(value);
            }
            "--data-raw" => self.data(value),
            "--data-urlencode" => self.data(urlencoded(&text())?.into_bytes()),
            "--json" => {
                no_file(name, &value)?;
                self.data.get_or_insert_default().extend(value);
                for (name, value) in
                    [("Content-Type", "application/json"), ("Accept", "application/json")]
                {
                    if value_of(&self.headers, name).is_none() {
                        self.headers.push((name.to_owned(), value.to_owned()));
                    }
                }
            }
            "--get" => self.is_get = true,
            "--head" => self.is_head = true,
            "--form" | "--form-string" => {
                return Err(format!(
                    "{name} sends multipart/form-data, which Twilio never does: use -d"
                ));
            }
            "--upload-file" | "--config" | "--url-query" => {
                return Err(format!(
                    "{name} is not supported: give the URL and the body in the command"
                ));
            }
            _ => {}
        }
        Ok(())
    }

    fn header(&mut self, line: &str) -> Result<(), String> {
        if line.starts_with('@') {
            return Err(format!("the headers are in a file ({line}): put them into the command"));
        }
        if let Some(name) = line.strip_suffix(';').filter(|name| !name.contains(':')) {
            self.headers.push((name.to_owned(), String::new()));
            return Ok(());
        }
        let (name, value) = http::header(line)?;
        if value.is_empty() {
            self.removed.push(name);
        } else {
            self.headers.push((name, value));
        }
        Ok(())
    }

    /// Adds data; curl joins repeated options with `&`.
    fn data(&mut self, value: Vec<u8>) {
        match &mut self.data {
            Some(data) => {
                data.push(b'&');
                data.extend(value);
            }
            None => self.data = Some(value),
        }
    }

    fn finish(self) -> Result<Capture, String> {
        let Self { method, url, mut headers, removed, data, is_get, is_head, notes } = self;
        let url = url.ok_or("the command has no URL")?;
        let url = if url.contains("://") { url } else { format!("http://{url}") };
        let mut url = Url::parse(&url).ok_or("the URL is longer than a request line can be")?;
        let mut body = Vec::new();
        let usual = match data {
            _ if is_head => "HEAD",
            Some(data) if is_get => {
                let data = String::from_utf8_lossy(&data).into_owned();
                url.query = match url.query.take().filter(|query| !query.is_empty()) {
                    Some(query) => Some(format!("{query}&{data}")),
                    None => Some(data),
                };
                "GET"
            }
            Some(data) => {
                body = data;
                let form = "application/x-www-form-urlencoded";
                let is_removed =
                    removed.iter().any(|name| name.eq_ignore_ascii_case("Content-Type"));
                if value_of(&headers, "Content-Type").is_none() && !is_removed {
                    headers.push(("Content-Type".to_owned(), form.to_owned()));
                }
                "POST"
            }
            None => "GET",
        };
        let method = method.unwrap_or_else(|| usual.to_owned());
        // The command may go to an address inside, with the public name as Host.
        if let Some(host) = value_of(&headers, "Host").map(str::to_owned)
            && let Some(named) = Url::parse(&format!("{}://{host}", url.scheme))
        {
            url.host = named.host;
            url.port = named.port;
        }
        if url.path.is_empty() {
            url.path.push('/');
        }
        let mut capture = Capture::new(Format::Curl, method, url.to_string());
        capture.headers = headers;
        capture.body = body;
        capture.notes = notes;
        Ok(capture)
    }
}

/// Refuses a value that names a file.
fn no_file(option: &str, value: &[u8]) -> Result<(), String> {
    match value.strip_prefix(b"@") {
        None => Ok(()),
        Some(file) => Err(format!(
            "the body is in the file {} ({option}): use --url and --header with --data-file",
            String::from_utf8_lossy(file)
        )),
    }
}

/// Returns the value of `--data-urlencode`: `content`, `=content` or `name=content`.
fn urlencoded(value: &str) -> Result<String, String> {
    let encode = |text: &str| utf8_percent_encode(text, URLENCODED).to_string().replace(' ', "+");
    match value.find(['=', '@']).and_then(|at| value.split_at_checked(at)) {
        None => Ok(encode(value)),
        Some((name, rest)) => match rest.strip_prefix('=') {
            Some(content) if name.is_empty() => Ok(encode(content)),
            Some(content) => Ok(format!("{name}={}", encode(content))),
            None => no_file("--data-urlencode", rest.as_bytes()).map(|()| String::new()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(command: &str) -> Capture {
        parse(command.as_bytes()).unwrap_or_else(|problem| panic!("{command}: {problem}"))
    }

    #[test]
    fn options_give_the_request_that_curl_sends() {
        for (command, method, target, body) in [
            ("curl https://h/a?b=1", "GET", "https://h/a?b=1", ""),
            ("$ curl -sS -XPOST 'https://h/a' -d a=1 --data b=2", "POST", "https://h/a", "a=1&b=2"),
            ("curl --url h/a --data-raw '@x'", "POST", "http://h/a", "@x"),
            (
                "curl h --data-urlencode 'Body=a b&c' --data-urlencode =d",
                "POST",
                "http://h/",
                "Body=a+b%26c&d",
            ),
            ("curl -G https://h/a?x=1 -d y=2", "GET", "https://h/a?x=1&y=2", ""),
            (
                "curl -vkL -o out -m5 https://h/a --data-binary $'a\\nb' --compressed",
                "POST",
                "https://h/a",
                "a\nb",
            ),
            (
                "curl -X PUT \\\n  -H 'Host: p:8443' \\\n  http://127.0.0.1:80/a",
                "PUT",
                "http://p:8443/a",
                "",
            ),
            ("/usr/bin/curl -I https://h/", "HEAD", "https://h/", ""),
        ] {
            let capture = read(command);
            assert_eq!((&*capture.method, &*capture.target), (method, target), "{command}");
            assert_eq!(capture.body, body.as_bytes(), "{command}");
        }
    }

    #[test]
    fn headers_are_those_that_are_sent() {
        let capture = read("curl h -H 'X-Y: z' -H 'Accept:' -H 'Empty;' -A agent -u 'u:p' -d x");
        let header = |name: &str| capture.header(name);
        assert_eq!((header("x-y"), header("accept"), header("empty")), (Some("z"), None, Some("")));
        assert_eq!(header("Authorization"), Some("Basic dTpw"));
        assert_eq!(header("Content-Type"), Some("application/x-www-form-urlencoded"));
        let json = read("curl h --json '{\"a\":1}'");
        assert_eq!(json.header("Content-Type"), Some("application/json"));
        let typeless = read("curl h -H 'Content-Type:' -d x");
        assert_eq!(typeless.header("Content-Type"), None);
    }

    #[test]
    fn commands_that_say_too_little_are_refused() {
        for (command, want) in [
            ("curl -d x", "no URL"),
            ("curl h -d @body", "file body"),
            ("curl h --data-urlencode x@body", "file body"),
            ("curl h -H @headers", "file (@headers)"),
            ("curl h -F a=b", "multipart"),
            ("curl h -H", "has no value"),
            ("curl ^\"https://h^\"", "Windows"),
            ("wget h", "word curl"),
            ("curl h -H nonsense", "is no header"),
        ] {
            let problem = parse(command.as_bytes()).unwrap_err();
            assert!(problem.contains(want), "{command}: {problem}");
        }
    }
}
