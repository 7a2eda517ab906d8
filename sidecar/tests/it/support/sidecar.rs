//! `twilio-edge serve` under test, and a client that speaks the filter's protocol.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use reqwest::{Client, Response, header};
use twilio_edge_contract::{
    Claim, Class, Decision, EXCHANGE_MEDIA_TYPE, EXCHANGE_PATH, ExchangeReply, ExchangeRequest,
    Identity, Outcome, PROTOCOL_VERSION, SavedAnswer, Settlement, SettlementResult,
    UnclaimedWebhook, Verdict,
};

use crate::support::servers::{Guarded, eventually};

pub(crate) const TOKEN: &str = "a-token-of-the-tests";
pub(crate) const ACCOUNT: &str = "AC00112233445566778899aabbccddeeff";

pub(crate) struct Sidecar {
    process: Guarded,
    pub(crate) base: String,
    pub(crate) client: Client,
    log: Arc<Mutex<String>>,
    /// Closed when the process has ended, and its log with it.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl Sidecar {
    /// Starts it after the line of shell `limit`, for instance a `ulimit`.
    pub(crate) async fn start(limit: &str, directory: &Path, settings: &[(&str, &str)]) -> Sidecar {
        let fixed = [
            ("TWILIO_EDGE_LISTEN", "127.0.0.1:0"),
            ("TWILIO_EDGE_ADMIN_LISTEN", "127.0.0.1:0"),
            ("TWILIO_EDGE_TOKEN", TOKEN),
        ];
        let home = directory.display().to_string();
        let program = format!("cd '{home}' && {limit} && exec \"$0\" serve");
        let mut process = Guarded::start(
            Path::new("sh"),
            &["-c", &program, env!("CARGO_BIN_EXE_twilio-edge")],
            &[&fixed[..], settings].concat(),
            "KILL",
            None,
            Stdio::piped(),
        );
        let log = Arc::new(Mutex::new(String::new()));
        let (listening, listens) = tokio::sync::oneshot::channel();
        let (stderr, lines) = (process.stderr(), log.clone());
        let (end, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let _until_the_end: mpsc::Sender<()> = end;
            let mut listening = Some(listening);
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("listening on ")
                    && let Some(listening) = listening.take()
                {
                    let address = address.split([' ', '"']).next().unwrap();
                    listening.send(address.to_owned()).unwrap();
                }
                lines.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let base = tokio::time::timeout(Duration::from_secs(30), listens).await.unwrap();
        let base = base.unwrap_or_else(|_| panic!("no start:\n{}", log.lock().unwrap()));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
        Sidecar { process, base, client, log, ended: Mutex::new(ended) }
    }

    /// Returns the origin of the admin listener.
    pub(crate) fn admin(&self) -> String {
        let log = self.log();
        let (_, address) = log.split_once("the admin listener started on ").unwrap();
        address.split([' ', '"']).next().unwrap().to_owned()
    }

    /// Kills it with `kill -9`.
    pub(crate) fn kill(self) {
        self.process.signal("KILL");
    }

    /// Stops it with SIGTERM, as an orchestrator does, and returns its log.
    pub(crate) fn stop(self) -> String {
        self.process.signal("TERM");
        let end = self.ended.lock().unwrap().recv_timeout(Duration::from_secs(30));
        let stopped = end == Err(mpsc::RecvTimeoutError::Disconnected);
        assert!(stopped, "the sidecar did not stop:\n{}", self.log());
        self.log()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Sends an exchange in its binary form and checks the shape of the reply, as the filter does.
    pub(crate) async fn exchange(
        &self,
        claims: Vec<Claim>,
        settlements: Vec<Settlement>,
    ) -> (Vec<Verdict>, Vec<SettlementResult>) {
        let claimed: Vec<String> = claims.iter().map(|claim| claim.claim_id.clone()).collect();
        let settled: Vec<String> = settlements.iter().map(|s| s.claim_id.clone()).collect();
        let request = ExchangeRequest::new(claims, settlements);
        let response = self.post_exchange(request.encode()).await;
        let status = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE).cloned();
        let body = response.bytes().await.unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        assert_eq!(kind.unwrap(), EXCHANGE_MEDIA_TYPE);
        let ExchangeReply { v, verdicts, results } = ExchangeReply::decode(&body).unwrap();
        assert_eq!(v, PROTOCOL_VERSION);
        let answered: Vec<String> = verdicts.iter().map(|v| v.claim_id.clone()).collect();
        assert_eq!(answered, claimed);
        let answered: Vec<String> = results.iter().map(|r| r.claim_id.clone()).collect();
        assert_eq!(answered, settled);
        (verdicts, results.into_iter().map(|ack| ack.result).collect())
    }

    /// Posts `body` as an exchange in its binary form.
    pub(crate) async fn post_exchange(&self, body: impl Into<reqwest::Body>) -> Response {
        let request = self.client.post(format!("{}{EXCHANGE_PATH}", self.base)).bearer_auth(TOKEN);
        let request = request.header(header::CONTENT_TYPE, EXCHANGE_MEDIA_TYPE);
        request.body(body).send().await.unwrap()
    }

    /// Sends an exchange of claims.
    pub(crate) async fn claim_all(&self, claims: Vec<Claim>) -> Vec<Verdict> {
        self.exchange(claims, Vec::new()).await.0
    }

    pub(crate) async fn claim(&self, claim: Claim) -> Verdict {
        self.claim_all(vec![claim]).await.remove(0)
    }

    /// Sends one claim and returns its decision.
    pub(crate) async fn decide(&self, claim: Claim) -> Decision {
        self.claim(claim).await.decision
    }

    /// Sends an exchange of settlements.
    pub(crate) async fn settle_all(&self, settlements: Vec<Settlement>) -> Vec<SettlementResult> {
        self.exchange(Vec::new(), settlements).await.1
    }

    pub(crate) async fn settle(&self, settlement: Settlement) -> SettlementResult {
        self.settle_all(vec![settlement]).await.remove(0)
    }

    pub(crate) async fn commit(&self, claim: &Claim) -> SettlementResult {
        self.settle(settlement(claim, Outcome::Commit)).await
    }

    pub(crate) async fn release(&self, claim: &Claim) -> SettlementResult {
        self.settle(settlement(claim, Outcome::Release)).await
    }

    /// Waits until SQL has all events that the sidecar has answered.
    pub(crate) async fn until_written(&self) {
        eventually("SQL has all events", || async {
            self.metric("twilio_edge_event_queue_depth").await == 0.0
        })
        .await;
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Response {
        let request = self.client.post(format!("{}{path}", self.base)).bearer_auth(TOKEN);
        request.body(body).send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(format!("{}{path}", self.base)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Returns the value of one series of `/metrics`.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{series} ")));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
    }
}

/// Returns a claim of an inbound message.
pub(crate) fn inbound(claim_id: &str, message_sid: &str, from: &str, body: &str) -> Claim {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("MessageSid", message_sid)
        .append_pair("From", from)
        .append_pair("To", "whatsapp:+15550001111")
        .append_pair("Body", body)
        .finish();
    let identity = Identity {
        class: Class::Inbound,
        account_sid: ACCOUNT.into(),
        message_sid: message_sid.into(),
        status: None,
        error_code: None,
    };
    Claim::new(claim_id.into(), identity, "/twilio/inbound".into(), form)
}

/// Returns a claim of an inbound message with any text.
pub(crate) fn message(claim_id: &str, message_sid: &str) -> Claim {
    inbound(claim_id, message_sid, "whatsapp:+15551234567", "hello")
}

/// Returns a claim of a status callback.
pub(crate) fn status(claim_id: &str, message_sid: &str, status: &str) -> Claim {
    let identity = Identity {
        class: Class::Status,
        account_sid: ACCOUNT.into(),
        message_sid: message_sid.into(),
        status: Some(status.into()),
        error_code: None,
    };
    let form = format!("MessageSid={message_sid}&MessageStatus={status}");
    Claim::new(claim_id.into(), identity, "/twilio/status".into(), form)
}

pub(crate) fn settlement(claim: &Claim, outcome: Outcome) -> Settlement {
    Settlement {
        claim_id: claim.claim_id.clone(),
        identity: claim.identity.clone(),
        outcome,
        unclaimed: None,
        answer: None,
        url_digest: claim.url_digest.clone(),
        step: None,
    }
}

/// Returns the settlement of a webhook that the filter forwarded without a verdict.
pub(crate) fn unclaimed(claim: &Claim, outcome: Outcome) -> Settlement {
    let unclaimed = UnclaimedWebhook {
        route: claim.route.clone(),
        form: claim.form.clone(),
        envelope: claim.envelope.clone(),
    };
    Settlement { unclaimed: Some(unclaimed), ..settlement(claim, outcome) }
}

pub(crate) fn twiml(body: &str) -> SavedAnswer {
    SavedAnswer { status: 200, content_type: "text/xml".into(), body: body.into() }
}
