//! Clients of the providers that take outbound messages, behind one trait. A client makes one call and reports its meaning; the
//! dispatcher and the reconciler decide the rest, in the same way for every provider.

use std::{collections::BTreeMap, fmt, pin::Pin, sync::Arc, time::Duration};

use twilio_edge_domain::sending::{
    call_failure::CallFailure, errors::ErrorTable, matching::Match, outcome::SendOutcome,
    provider::Provider,
};

/// Future answer of a client.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Message for a provider.
#[derive(Debug, Clone, Copy)]
pub struct SendRequest<'a> {
    /// Account of the message.
    pub account_sid: &'a str,
    /// Channel of the message.
    pub channel: &'a str,
    /// Our sender at the provider: a number, a Messaging Service, a Verify Service, a flow, a mail address.
    pub sender: &'a str,
    /// Content, in the format of the provider.
    pub form: &'a str,
    /// Our id of the message.
    pub id: &'a str,
}

/// Result of one call that sends a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendAnswer {
    /// Meaning of the provider's answer.
    pub outcome: SendOutcome,
    /// Reason of a failed call, for metrics.
    pub failure: Option<CallFailure>,
    /// Id of the call, for the provider's support; empty if there is none.
    pub request_id: String,
}

/// Message that the provider accepted. Its content is no longer stored.
#[derive(Debug, Clone, Copy)]
pub struct SentMessage<'a> {
    /// Message as it was sent.
    pub request: SendRequest<'a>,
    /// Id that the provider assigned.
    pub provider_id: &'a str,
    /// Start of the call, in milliseconds since 1970.
    pub sent_ms: i64,
}

/// Search for a message whose outcome is unknown.
#[derive(Debug, Clone, Copy)]
pub struct UnknownMessage<'a> {
    /// Message as it was sent.
    pub request: SendRequest<'a>,
    /// Start of the attempt, in milliseconds since 1970.
    pub begun_ms: i64,
    /// Latest time at which the attempt could have been sent, in milliseconds since 1970.
    pub until_ms: i64,
    /// Time from which an absence counts as proof, in milliseconds since 1970; `None` if it never does.
    pub absent_from_ms: Option<i64>,
    /// Start of the search, in milliseconds since 1970.
    pub at_ms: i64,
}

/// Status of a message at the provider: a word of Twilio's status callbacks, and an error code, empty without an error.
pub type ProviderStatus = (String, String);

/// Client of one provider. An implementation must not follow a redirect or retry: the message could be sent twice.
pub trait SendClient: Send + Sync {
    /// Returns the time limit of a call.
    fn timeout(&self) -> Duration;

    /// Sends a message with one call. An outcome other than `Retry` and `Refused` means that the provider may have it.
    fn send<'a>(
        &'a self,
        request: SendRequest<'a>,
        errors: &'a ErrorTable,
    ) -> Pending<'a, SendAnswer>;

    /// Returns the status of a message that the provider accepted; `None` if the provider reports none here.
    fn status<'a>(
        &'a self,
        _sent: SentMessage<'a>,
    ) -> Pending<'a, Result<Option<ProviderStatus>, String>> {
        Box::pin(async { Ok(None) })
    }

    /// Searches the provider for a message whose outcome is unknown. Without a search, an operator or a report decides.
    fn find<'a>(&'a self, _unknown: UnknownMessage<'a>) -> Pending<'a, Result<Match, String>> {
        Box::pin(async { Ok(Match::Unclear) })
    }
}

/// Clients of the configured providers.
#[derive(Clone, Default)]
pub struct SendClients(BTreeMap<Provider, Arc<dyn SendClient>>);

impl SendClients {
    /// Returns the clients with one more.
    #[must_use]
    pub fn with(mut self, provider: Provider, client: impl SendClient + 'static) -> SendClients {
        self.0.insert(provider, Arc::new(client));
        self
    }

    /// Returns the client of a provider; `None` if the provider is not configured.
    pub fn get(&self, provider: Provider) -> Option<&dyn SendClient> {
        self.0.get(&provider).map(AsRef::as_ref)
    }

    /// Returns the longest time limit of a call.
    pub fn timeout(&self) -> Duration {
        self.0.values().map(|client| client.timeout()).max().unwrap_or_default()
    }

    /// Sends a message through the client of its provider. Without a client, nothing left: the message is retried.
    pub async fn send(
        &self,
        provider: Provider,
        request: SendRequest<'_>,
        errors: &ErrorTable,
    ) -> SendAnswer {
        match self.get(provider) {
            Some(client) => client.send(request, errors).await,
            None => SendAnswer {
                outcome: SendOutcome::Retry {
                    code: "not_connected".to_owned(),
                    reason: format!("the provider {provider} is not configured"),
                    retry_after: None,
                    is_throttled: false,
                },
                failure: Some(CallFailure::NotConnected),
                request_id: String::new(),
            },
        }
    }
}

impl fmt::Debug for SendClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
