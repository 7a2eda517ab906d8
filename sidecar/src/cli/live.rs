//! Client of `GET /v1/stream`: follows the live stream of a sidecar, and connects again after each interruption where the last one
//! ended. The commands `tail` and `listen` decide what happens with a webhook.

use std::{ops::ControlFlow, time::Duration};

use futures_util::{StreamExt, stream};
use reqwest::{Client, Response, StatusCode, redirect};
use serde_json::{Map, Value};
use sse_stream::{Sse, SseByteStream};
use twilio_edge_platform::terminal;

use super::{
    api_client::{ApiClient, problem},
    failure::with_causes,
    ledger,
};

/// Time limit for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest silence of a stream, longer than the time after which a sidecar closes a quiet connection by default.
const SILENCE: Duration = Duration::from_secs(80);

/// First and longest pause before another connection.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];

#[derive(Debug, clap::Args)]
pub(super) struct LiveOptions {
    /// Only webhooks of this class
    #[arg(long, value_parser = ["inbound", "status"])]
    class: Option<String>,
    /// Only webhooks about a message from or to this number: +15551234567, whatsapp:+15551234567
    #[arg(long)]
    number: Option<String>,
    /// Only webhooks of this message
    #[arg(long)]
    sid: Option<String>,
    /// Only webhooks with this status: delivered, failed, ..
    #[arg(long)]
    status: Option<String>,
    /// Only webhooks of this account, for a key that is bound to no account: AC..
    #[arg(long, value_name = "SID", value_parser = ledger::account)]
    account: Option<String>,
    #[command(flatten)]
    api: ApiClient,
}

/// Webhook of a stream: the JSON of the API.
pub(super) type LiveWebhook = Map<String, Value>;

/// Reason why a connection failed.
enum ConnectError {
    /// Another attempt would fail as well.
    Final(String),
    /// Another attempt may succeed.
    Temporary(String),
}

impl LiveOptions {
    /// Follows the stream, one webhook after the other, until `handle` breaks. A webhook counts as received when `handle` returns.
    ///
    /// # Errors
    /// The first connection failed, or the sidecar refused a later one.
    pub(super) async fn follow(
        &self,
        mut handle: impl AsyncFnMut(&LiveWebhook) -> ControlFlow<()>,
    ) -> Result<(), String> {
        let (client, token) = (client()?, self.api.token()?);
        let mut last_id: Option<String> = None;
        let [first_pause, longest_pause] = PAUSES;
        let mut pause = first_pause;
        let mut has_connected = false;
        loop {
            let lost = match self.connect(&client, &token, last_id.as_deref()).await {
                Ok(response) => {
                    (has_connected, pause) = (true, first_pause);
                    match read(response, &mut last_id, &mut handle).await {
                        ControlFlow::Break(()) => return Ok(()),
                        ControlFlow::Continue(reason) => reason,
                    }
                }
                Err(ConnectError::Final(problem)) => return Err(problem),
                Err(ConnectError::Temporary(problem)) if !has_connected => return Err(problem),
                Err(ConnectError::Temporary(problem)) => problem,
            };
            terminal::print_error(&format!("twilio-edge: {lost}; connecting again"));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest_pause);
        }
    }

    async fn connect(
        &self,
        client: &Client,
        token: &str,
        last_id: Option<&str>,
    ) -> Result<Response, ConnectError> {
        let place = self.api.url();
        let filters = [
            ("class", &self.class),
            ("number", &self.number),
            ("sid", &self.sid),
            ("status", &self.status),
            ("account_sid", &self.account),
        ];
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in filters {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        let url = self.api.url_of(&format!("/v1/stream?{}", query.finish()));
        let mut request = client.get(url).bearer_auth(token).header("accept", "text/event-stream");
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.map_err(|error| {
            let error = with_causes(&error.without_url());
            ConnectError::Temporary(format!("--url: {place}: {error}"))
        })?;
        let status = response.status();
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        if status == StatusCode::OK
            && kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
        {
            return Ok(response);
        }
        let problem = match json_of(response).await {
            Some(body) if status != StatusCode::OK => problem(&body),
            _ => format!(
                "--url: {place}: answered with status {status} and no stream; check that it is a sidecar"
            ),
        };
        Err(match status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            true => ConnectError::Temporary(problem),
            false => ConnectError::Final(problem),
        })
    }
}

async fn json_of(response: Response) -> Option<Value> {
    serde_json::from_slice(&response.bytes().await.ok()?).ok()
}

fn client() -> Result<Client, String> {
    // This fails if a provider is installed already; that provider is used then.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|error| with_causes(&error))
}

/// Reads the events of a connection until it ends. Returns the reason of the end.
async fn read(
    response: Response,
    last_id: &mut Option<String>,
    handle: &mut impl AsyncFnMut(&LiveWebhook) -> ControlFlow<()>,
) -> ControlFlow<(), String> {
    let chunks = stream::try_unfold(response, |mut response| async move {
        Ok::<_, reqwest::Error>(response.chunk().await?.map(|chunk| (chunk, response)))
    });
    let mut events = std::pin::pin!(SseByteStream::new(Box::pin(chunks)));
    while let Some(event) = events.next().await {
        let Sse { event, data, id, .. } = match event {
            Ok(event) => event,
            Err(error) => {
                return ControlFlow::Continue(format!("the stream broke: {}", with_causes(&error)));
            }
        };
        let data = || serde_json::from_str::<Value>(data.as_deref().unwrap_or_default()).ok();
        match event.as_deref() {
            Some("webhook") => match data() {
                Some(Value::Object(webhook)) => handle(&webhook).await?,
                _ => return ControlFlow::Continue("the stream has an event without JSON".into()),
            },
            Some("gap") => {
                terminal::print_error(&format!(
                    "twilio-edge: webhooks are missing: {}",
                    detail(data())
                ));
            }
            Some("end") => return ControlFlow::Continue(detail(data())),
            _ => {}
        }
        // Only now: a webhook that was not handled comes again.
        *last_id = id.or(last_id.take());
    }
    ControlFlow::Continue("the sidecar closed the stream".to_owned())
}

fn detail(data: Option<Value>) -> String {
    let detail = data.as_ref().and_then(|data| data.get("detail")).and_then(Value::as_str);
    detail.unwrap_or("the sidecar ended the stream").trim_end_matches('.').to_owned()
}

/// Runs a command that follows a stream.
///
/// # Errors
/// The runtime could not start, or the stream ended for good.
pub(super) fn run(work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(work)
}

/// Returns a field of a webhook as text; empty if there is none.
pub(super) fn text<'a>(webhook: &'a LiveWebhook, name: &str) -> &'a str {
    webhook.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Iterates over the parameters of a webhook, in their order.
pub(super) fn parameters(webhook: &LiveWebhook) -> impl Iterator<Item = (&str, &str)> {
    let parameters = webhook.get("parameters").and_then(Value::as_array);
    parameters.into_iter().flatten().filter_map(|parameter| {
        let text = |name: &str| parameter.get(name).and_then(Value::as_str);
        Some((text("name")?, text("value")?))
    })
}

/// Formats a webhook as a line for people.
pub(super) fn line(webhook: &LiveWebhook) -> String {
    let of = |name| text(webhook, name);
    let time = of("received_at").split_once('T').map_or("", |(_, time)| time).trim_end_matches('Z');
    let mut line = format!(
        "{time:<12}  {:<7}  {:<34}  {} -> {}  {}",
        of("class"),
        of("sid"),
        of("from"),
        of("to"),
        of("status"),
    );
    if !of("error_code").is_empty() {
        line.push_str(&format!(" {}", of("error_code")));
    }
    if let Some((_, body)) = parameters(webhook).find(|(name, _)| *name == "Body") {
        line.push_str(&format!("  {body:?}"));
    }
    line
}
