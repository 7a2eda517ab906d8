//! Twilio's REST API, as far as messages are made and looked for with it: one call, its time limit, and whether the request had
//! left when it failed. Credentials are read from a file, once, at start. What an answer means for a message is the domain's to say.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use reqwest::{Client, RequestBuilder, header, redirect};
use serde::Deserialize;
use twilio_edge_contract::SEND_PARAMETER;

use crate::{
    config,
    domain::{
        delivery::retry_after,
        sending::{matching::Listed, outcome::Answer},
        tenant::is_account_sid,
    },
    reading::Reading,
};

/// Most of an answer that is read. A message is one kilobyte.
const LARGEST_ANSWER: usize = 64 << 10;

/// Messages of one page of a list, and most of the list's answer: a text is 1600 characters, each of six bytes in JSON.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 2 << 20;

/// How long to try to connect, within the time limit of the whole.
const CONNECT: Duration = Duration::from_secs(5);

/// Most accounts of a file.
const MOST_ACCOUNTS: usize = 1024;

/// Who we are to Twilio, for one account.
#[derive(Clone)]
struct Credentials {
    user: String,
    secret: String,
    /// Where its statuses are told, if not where all others are.
    status_callback_url: Option<String>,
}

/// One page of a list.
#[derive(Debug, Deserialize)]
pub struct Page {
    /// The latest first.
    pub messages: Vec<Listed>,
    /// Where the next one is; none after the last.
    pub next_page_uri: Option<String>,
}

/// Calls Twilio for the accounts it has credentials of.
#[derive(Clone)]
pub struct Twilio {
    client: Client,
    base_url: Arc<str>,
    status_callback_url: Arc<str>,
    timeout: Duration,
    accounts: Arc<BTreeMap<String, Credentials>>,
}

impl Twilio {
    /// With the credentials of the file, if there is one; every problem with it.
    pub fn open(settings: &config::Sending) -> Result<Twilio, Vec<String>> {
        let accounts = match settings.file.as_str() {
            "" => BTreeMap::new(),
            file => {
                let text =
                    std::fs::read_to_string(file).map_err(|error| vec![error.to_string()])?;
                credentials(&text)?
            }
        };
        // Whoever installed one first has chosen for the process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let timeout = Duration::from_millis(settings.timeout_ms);
        // Nothing below us may post a message a second time.
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .timeout(timeout)
            .connect_timeout(CONNECT.min(timeout))
            .user_agent(concat!("twilio-edge/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| vec![error.to_string()])?;
        Ok(Twilio {
            client,
            base_url: settings.base_url.trim_end_matches('/').into(),
            status_callback_url: settings.status_callback_url.as_str().into(),
            timeout,
            accounts: Arc::new(accounts),
        })
    }

    /// Whether messages of this account can be sent.
    pub fn knows(&self, account_sid: &str) -> bool {
        self.accounts.contains_key(account_sid)
    }

    /// Whether any can.
    pub fn is_off(&self) -> bool {
        self.accounts.is_empty()
    }

    /// How long a call may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Makes a message of a form, whose statuses are told with our `id` of it; and Twilio's name for the request, for its
    /// support.
    pub async fn create(
        &self,
        account_sid: &str,
        form: &str,
        id: &str,
    ) -> (Answer, Option<String>) {
        let Some(credentials) = self.accounts.get(account_sid) else {
            return (Answer::NotConnected("there are no credentials for the account".into()), None);
        };
        let usual = credentials.status_callback_url.as_deref().unwrap_or(&self.status_callback_url);
        let form = called_back(form, usual, id);
        let url = format!("{}/2010-04-01/Accounts/{account_sid}/Messages.json", self.base_url);
        let request = self
            .client
            .post(url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .basic_auth(&credentials.user, Some(&credentials.secret))
            .body(form);
        call(request, LARGEST_ANSWER).await
    }

    /// What Twilio shows at a path of this account, which begins behind `/Accounts/AC..`: status and body; or why it shows
    /// nothing.
    pub async fn look(&self, account_sid: &str, path: &str) -> Result<(u16, Vec<u8>), String> {
        let credentials = self.accounts.get(account_sid);
        let credentials = credentials.ok_or("there are no credentials for the account")?;
        let request = self
            .client
            .get(format!("{}/2010-04-01/Accounts/{account_sid}{path}", self.base_url))
            .header(header::ACCEPT, "application/json")
            .basic_auth(&credentials.user, Some(&credentials.secret));
        match call(request, LARGEST_PAGE).await.0 {
            Answer::Http { status, body, .. } => Ok((status, body)),
            Answer::NotConnected(reason) | Answer::Lost(reason) => Err(reason),
        }
    }

    /// One page of the messages to somebody, from somebody if that is said; the first, or the one that the page before named.
    pub async fn list(
        &self,
        account_sid: &str,
        to: &str,
        from: &str,
        next_page_uri: Option<&str>,
    ) -> Result<Page, String> {
        let credentials = self.accounts.get(account_sid);
        let credentials = credentials.ok_or("there are no credentials for the account")?;
        let first = format!("/2010-04-01/Accounts/{account_sid}/Messages.json?");
        let uri = match next_page_uri {
            Some(uri) if uri.starts_with(&first) => uri.to_owned(),
            Some(_) => return Err("the next page is somewhere else".to_owned()),
            None => {
                let length = first.len();
                let mut query = form_urlencoded::Serializer::for_suffix(first, length);
                query.append_pair("To", to);
                if !from.is_empty() {
                    query.append_pair("From", from);
                }
                // Not by DateSent: what waits for its turn at Twilio has none yet.
                query.append_pair("PageSize", &PAGE.to_string()).finish()
            }
        };
        let request = self
            .client
            .get(format!("{}{uri}", self.base_url))
            .header(header::ACCEPT, "application/json")
            .basic_auth(&credentials.user, Some(&credentials.secret));
        match call(request, LARGEST_PAGE).await.0 {
            Answer::Http { status: 200, body, .. } => {
                serde_json::from_slice(&body).map_err(|error| error.to_string())
            }
            Answer::Http { status, .. } => Err(format!("status {status}")),
            Answer::NotConnected(reason) | Answer::Lost(reason) => Err(reason),
        }
    }
}

/// The form with where the statuses are told, each with our id in its URL: where the form itself says, or else as usual.
fn called_back(form: &str, usual: &str, id: &str) -> String {
    let is_callback = |name: &str| name == "StatusCallback";
    let mut pairs = form_urlencoded::parse(form.as_bytes());
    let own = pairs.find(|(name, _)| is_callback(name)).map(|(_, url)| url.into_owned());
    let url = own.as_deref().unwrap_or(usual);
    if url.is_empty() {
        return form.to_owned();
    }
    let others = form_urlencoded::parse(form.as_bytes()).filter(|(name, _)| !is_callback(name));
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(others)
        .append_pair("StatusCallback", &callback_url(url, id))
        .finish()
}

/// The URL with our id in it: before a fragment, which says how Twilio is to call and is not sent.
fn callback_url(url: &str, id: &str) -> String {
    let (url, fragment) = match url.split_once('#') {
        Some((url, fragment)) => (url, format!("#{fragment}")),
        None => (url, String::new()),
    };
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}{SEND_PARAMETER}={id}{fragment}")
}

/// One call; and Twilio's name for it.
async fn call(request: RequestBuilder, largest: usize) -> (Answer, Option<String>) {
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => {
            return (Answer::NotConnected(reason(&error.without_url())), None);
        }
        Err(error) => return (Answer::Lost(reason(&error.without_url())), None),
    };
    let text = |name: &str| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        value.map(|value| value.chars().take(64).collect::<String>())
    };
    let request_id = text("twilio-request-id");
    let retry_after = text("retry-after").as_deref().and_then(retry_after);
    let status = response.status().as_u16();
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= largest => {
                body.extend_from_slice(&chunk);
            }
            Ok(None) => break,
            // A success that is not whole names no message; a refusal is one without its words.
            Ok(Some(_)) | Err(_) => {
                body.clear();
                break;
            }
        }
    }
    (Answer::Http { status, retry_after, body }, request_id)
}

/// Everything that is wrong with the file at `path`.
pub fn problems(path: &str) -> Vec<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => credentials(&text).err().unwrap_or_default(),
        Err(error) => vec![error.to_string()],
    }
}

fn credentials(text: &str) -> Result<BTreeMap<String, Credentials>, Vec<String>> {
    let table = crate::config::parse(text).map_err(|problem| vec![problem])?;
    let mut reading = Reading::default();
    reading.known_fields("", &table, &["account"]);
    let mut accounts = BTreeMap::new();
    let listed = reading.list("account", table.get("account"), MOST_ACCOUNTS);
    for (n, value) in listed.iter().enumerate() {
        let path = format!("account[{n}]");
        let table = reading.table(
            &path,
            value,
            &["sid", "api_key", "api_secret", "auth_token", "status_callback_url"],
        );
        let sid = reading.text(&format!("{path}.sid"), table.get("sid"));
        if !sid.is_empty() && !is_account_sid(&sid) {
            reading.problem(&format!("{path}.sid"), "must be AC and 32 hexadecimal digits");
        }
        let key = |name: &str| format!("{path}.{name}");
        let callback = table.get("status_callback_url");
        let status_callback_url = callback
            .is_some()
            .then(|| reading.text(&key("status_callback_url"), callback))
            .filter(|url| !url.is_empty());
        if status_callback_url.as_ref().is_some_and(|url| !url.starts_with("http")) {
            reading.problem(&key("status_callback_url"), "must start with https://");
        }
        let credentials = match (table.get("api_key"), table.get("auth_token")) {
            (None, token @ Some(_)) => Credentials {
                user: sid.clone(),
                secret: reading.text(&key("auth_token"), token),
                status_callback_url,
            },
            (user, None) => Credentials {
                user: reading.text(&key("api_key"), user),
                secret: reading.text(&key("api_secret"), table.get("api_secret")),
                status_callback_url,
            },
            (Some(_), Some(_)) => {
                reading.problem(&path, "has an api_key and an auth_token: one of them is enough");
                continue;
            }
        };
        if accounts.insert(sid, credentials).is_some() {
            reading.problem(&format!("{path}.sid"), "is that of an earlier one");
        }
    }
    reading.outcome(accounts)
}

/// An error with its causes: the outermost alone says only that it did not work.
fn reason(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<String>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_id_is_in_what_twilio_calls_and_signs() {
        let id = "ms_0";
        for (url, expected) in [
            ("https://a.example/s", "https://a.example/s?twilio_edge_send=ms_0"),
            ("https://a.example/s?b=c", "https://a.example/s?b=c&twilio_edge_send=ms_0"),
            ("https://a.example/s#rc=3", "https://a.example/s?twilio_edge_send=ms_0#rc=3"),
        ] {
            assert_eq!(callback_url(url, id), expected);
        }
    }

    #[test]
    fn who_asks_may_say_where_statuses_are_told() {
        let own = "To=a&StatusCallback=https%3A%2F%2Fown.example%2Fs&Body=%26";
        let told = "StatusCallback=https%3A%2F%2Fown.example%2Fs%3Ftwilio_edge_send%3Dms_0";
        assert_eq!(called_back(own, "https://usual", "ms_0"), format!("To=a&Body=%26&{told}"));
        assert_eq!(called_back("To=a", "", "ms_0"), "To=a");
        let usual = "To=a&StatusCallback=https%3A%2F%2Fusual%3Ftwilio_edge_send%3Dms_0";
        assert_eq!(called_back("To=a", "https://usual", "ms_0"), usual);
    }

    #[test]
    fn a_file_names_an_api_key_or_a_token() {
        let sid = "AC00112233445566778899aabbccddeeff";
        let read = |rest: &str| {
            credentials(&format!("[[account]]\nsid = \"{sid}\"\n{rest}"))
                .map(|accounts| accounts[sid].user.clone())
        };
        assert_eq!(read("api_key = \"SK1\"\napi_secret = \"hush\"").unwrap(), "SK1");
        assert_eq!(read("auth_token = \"hush\"").unwrap(), sid);
        for (rest, problem) in [
            ("", "account[0].api_key: is required"),
            ("api_key = \"SK1\"", "account[0].api_secret: is required"),
            ("tokn = \"hush\"\nauth_token = \"hush\"", "account[0].tokn: there is no such field"),
            (
                "auth_token = \"hush\"\napi_key = \"hush\"",
                "account[0]: has an api_key and an auth_token: one of them is enough",
            ),
        ] {
            assert_eq!(read(rest).unwrap_err().first().unwrap(), problem);
        }
    }
}
