//! Webhook of an inbound message and the TwiML in its answers: replies are sent, redirects are followed, and the fallback URL is
//! called once if a request or its TwiML fails.

use serde_json::{Value, json};
use twilio_edge_filter::signature::Key;

use super::messages::Message;
use super::post::{self, Outcomes};
use super::request::Request;
use super::twiml::{self, Reply, Verb};
use super::webhook::{Content, Parameters};
use crate::state::{Shared, fresh_sid, now_ms};

/// Largest number of URLs that are called for one message; more are a loop of redirects.
const MAX_URLS: usize = 12;

/// Error code of a loop of redirects.
const TOO_MANY_REDIRECTS: u32 = 11215;

/// Result of the webhook of a message.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    pub(super) calls: Outcomes,
    /// For each reply its SID, or the code of its refusal.
    pub(super) replies: Vec<Value>,
    /// Error code of the last request; `None` if it succeeded.
    pub(super) error: Option<u32>,
}

/// Next URL to call.
struct Step {
    url: String,
    content: Content,
}

/// Calls the webhook of `message`, and acts on the answers. `signed_origin` is signed and sent as `Host` instead of the called origin.
pub(super) async fn run(
    shared: &Shared,
    message: &Message,
    parameters: Parameters,
    key: &Key,
    signed_origin: Option<&str>,
) -> Conversation {
    let settings = &shared.settings;
    let mut fallback = settings.inbound_fallback_url.clone();
    let mut conversation = Conversation::default();
    let first = settings.inbound_url.clone();
    let mut next = Some(Step { url: first, content: Content::Post(parameters.clone()) });
    for called in 0..=MAX_URLS {
        let Some(Step { url, content }) = next.take() else { break };
        if called == MAX_URLS {
            conversation.error = Some(TOO_MANY_REDIRECTS);
            break;
        }
        let called =
            post::call(&shared.client, &url, signed_origin, content, key, &message.sid).await;
        let verbs =
            called.answer().and_then(|answer| twiml::read(answer.content_type, answer.body));
        conversation.calls.extend(called.outcomes);
        conversation.error = verbs.as_ref().err().copied();
        match verbs {
            Ok(verbs) => {
                next = execute(shared, message, &url, verbs, &parameters, &mut conversation)
            }
            Err(code) => {
                next = fallback.take().map(|fallback| {
                    let mut parameters = parameters.clone();
                    let bare = url.split('#').next().unwrap_or(&url).to_owned();
                    parameters.push(("ErrorCode".to_owned(), code.to_string()));
                    parameters.push(("ErrorUrl".to_owned(), bare));
                    Step { url: fallback, content: Content::Post(parameters) }
                });
            }
        }
    }
    conversation
}

/// Sends the replies, and returns the step of a redirect. Verbs after a redirect have no effect.
fn execute(
    shared: &Shared,
    message: &Message,
    url: &str,
    verbs: Vec<Verb>,
    parameters: &Parameters,
    conversation: &mut Conversation,
) -> Option<Step> {
    for verb in verbs {
        match verb {
            Verb::Message(reply) => {
                conversation.replies.push(match send(shared, message, url, reply) {
                    Ok(sid) => json!({ "sid": sid }),
                    Err(code) => json!({ "code": code }),
                });
            }
            Verb::Redirect { url: target, is_get } => {
                let parameters = parameters.clone();
                let content = match is_get {
                    true => Content::Get(parameters),
                    false => Content::Post(parameters),
                };
                return Some(Step { url: absolute(url, &target), content });
            }
        }
    }
    None
}

/// Accepts a reply under the rules for messages of the API; returns its SID, or the code of the refusal.
fn send(shared: &Shared, message: &Message, url: &str, reply: Reply) -> Result<String, u32> {
    let to = reply.to.or_else(|| message.from.clone()).unwrap_or_default();
    let from = reply.from.unwrap_or_else(|| message.to.clone());
    let mut pairs = vec![("To", to), ("From", from), ("Body", reply.body)];
    pairs.extend(reply.media.into_iter().map(|url| ("MediaUrl", url)));
    pairs.extend(reply.status_callback.map(|target| ("StatusCallback", absolute(url, &target))));
    let pairs: Vec<(String, String)> =
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let now = now_ms();
    let request = Request::read(&pairs, now).map_err(|refusal| refusal.code)?;
    let request = Request { direction: "outbound-reply", ..request };
    let sid = fresh_sid(if request.media.is_empty() { "SM" } else { "MM" });
    let accepted = shared.ledger().accept(&message.account, sid, request, &shared.catalogue(), now);
    let reply = accepted.map_err(|refusal| refusal.code)?;
    shared.planned.notify_one();
    Ok(reply.sid)
}

/// Resolves a URL of a document against the URL of the document. An absolute URL is not changed, because it is signed as it is
/// written.
fn absolute(base: &str, target: &str) -> String {
    if reqwest::Url::parse(target).is_ok() {
        return target.to_owned();
    }
    let joined = reqwest::Url::parse(base).and_then(|base| base.join(target));
    joined.map_or_else(|_| target.to_owned(), String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_urls_are_resolved_against_the_document() {
        for (target, url) in [
            ("next?a=1", "https://a.example/x/next?a=1"),
            ("/next", "https://a.example/next"),
            ("https://b.example/a%20b?c=%2f", "https://b.example/a%20b?c=%2f"),
        ] {
            assert_eq!(absolute("https://a.example/x/y?z=1#rc=2", target), url);
        }
    }
}
