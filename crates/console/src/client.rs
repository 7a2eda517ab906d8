//! Requests of the console to the JSON API, in the same process. The API decides on every request by the viewer's session; it
//! cannot distinguish the console from a caller over the network.

use std::net::SocketAddr;

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::ConnectInfo,
    http::{HeaderValue, Method, Request, StatusCode, header, request::Parts},
    response::Response,
};
use serde::{Serialize, de::DeserializeOwned};
use tower::ServiceExt as _;
use twilio_edge_platform::listener::admission::Connection;

use crate::{
    console::Console,
    failure::{Failure, Refusal},
};

/// Largest answer of the API that the console reads, in bytes.
const LARGEST: usize = 8 << 20;

/// API of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    /// API of applications.
    Application,
    /// API of administrators.
    Administration,
}

/// Sends requests with one token, on behalf of one browser.
#[derive(Clone)]
pub(crate) struct Client {
    console: Console,
    authorization: Option<HeaderValue>,
    /// Address of the browser, for the audit log and the limit of invalid tokens.
    peer: Option<ConnectInfo<SocketAddr>>,
    /// Connection of the browser: the listener closes one without a valid token first.
    connection: Option<Connection>,
}

impl Client {
    /// Creates a client with this token for the browser that sent a request.
    pub(crate) fn new(console: &Console, browser: &Parts, token: &str) -> Client {
        let authorization = HeaderValue::try_from(format!("Bearer {token}")).ok();
        Client {
            console: console.clone(),
            authorization: authorization.map(|mut value| {
                value.set_sensitive(true);
                value
            }),
            peer: browser.extensions.get().cloned(),
            connection: browser.extensions.get().cloned(),
        }
    }

    /// Fetches a resource.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        api: Api,
        path: &str,
    ) -> Result<T, Failure> {
        read(&self.call(api, Method::GET, path, None, None).await?)
    }

    /// Sends a request with a JSON body, and returns the resource in the answer.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        api: Api,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::internal(&error))?;
        read(&self.call(api, method, path, Some(body), None).await?)
    }

    /// As [`Client::send`], with an Idempotency-Key: a form that is sent twice has one effect.
    pub(crate) async fn send_once<T: DeserializeOwned>(
        &self,
        api: Api,
        path: &str,
        idempotency_key: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::internal(&error))?;
        let key = Some(idempotency_key).filter(|key| !key.is_empty());
        let header = key.map(|key| ("idempotency-key", key));
        read(&self.call(api, Method::POST, path, Some(body), header).await?)
    }

    /// As [`Client::send`], with an If-Match if the viewer has seen a state of the resource.
    pub(crate) async fn send_if_match<T: DeserializeOwned>(
        &self,
        api: Api,
        method: Method,
        path: &str,
        etag: Option<&str>,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::internal(&error))?;
        let header = etag.map(|etag| ("if-match", etag));
        read(&self.call(api, method, path, Some(body), header).await?)
    }

    /// Sends a request without a body, and ignores the body of the answer.
    pub(crate) async fn act(&self, api: Api, method: Method, path: &str) -> Result<(), Failure> {
        self.call(api, method, path, None, None).await.map(drop)
    }

    /// Opens a stream of Server-Sent Events. `last_event_id` is that of the browser, which connects again by itself.
    pub(crate) async fn stream(
        &self,
        path: &str,
        last_event_id: Option<&str>,
    ) -> Result<Response, Failure> {
        let header = last_event_id.map(|id| ("last-event-id", id));
        let response = self.respond(Api::Application, Method::GET, path, None, header).await?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => {
                let (_, body) = response.into_parts();
                let body =
                    to_bytes(body, LARGEST).await.map_err(|error| Failure::internal(&error))?;
                Err(Failure::Refused(Refusal::read(status, &body)))
            }
        }
    }

    async fn call(
        &self,
        api: Api,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        extra_header: Option<(&str, &str)>,
    ) -> Result<Bytes, Failure> {
        let response = self.respond(api, method, path, body, extra_header).await?;
        let (head, body) = response.into_parts();
        let body = to_bytes(body, LARGEST).await.map_err(|error| Failure::internal(&error))?;
        match head.status {
            StatusCode::UNAUTHORIZED => Err(Failure::SignedOut),
            status if status.is_success() => Ok(body),
            status => Err(Failure::Refused(Refusal::read(status, &body))),
        }
    }

    /// Sends a request, and returns the response before its body is read.
    async fn respond(
        &self,
        api: Api,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        extra_header: Option<(&str, &str)>,
    ) -> Result<Response, Failure> {
        let router = self.router(api)?;
        let mut request = Request::builder().method(method).uri(path);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some((name, value)) = extra_header {
            request = request.header(name, value);
        }
        let request = request.body(Body::from(body.unwrap_or_default()));
        let mut request = request.map_err(|error| Failure::internal(&error))?;
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        if let Some(connection) = &self.connection {
            request.extensions_mut().insert(connection.clone());
        }
        match router.oneshot(request).await {
            Ok(response) => Ok(response),
            Err(never) => match never {},
        }
    }

    fn router(&self, api: Api) -> Result<Router, Failure> {
        let parts = &self.console.0;
        match api {
            Api::Application => Ok(parts.application.clone()),
            Api::Administration => parts.administration.clone().ok_or(Failure::OtherListener),
        }
    }

    /// Returns whether this listener has the API.
    pub(crate) fn has(&self, api: Api) -> bool {
        api == Api::Application || self.console.0.administration.is_some()
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::internal(&error))
}
