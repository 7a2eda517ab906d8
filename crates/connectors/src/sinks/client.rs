//! HTTP client of one sink, with its own trust if needed: an authority of its own, and a client certificate. Reads the PEM files again
//! every five minutes, because they are renewed while the sidecar runs. Reads the beginning of answers.

use std::{
    fs,
    time::{Duration, Instant},
};

use reqwest::{Certificate, Client, Identity, Response, redirect};
use tokio::sync::Mutex;

use crate::{causes::with_causes, sinks::fields::Tls};

/// Interval at which certificates are read again.
const CERTIFICATE_RELOAD: Duration = Duration::from_secs(300);

/// Time limit of connecting, within the time limit of the delivery.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest error of a cloud service that a sink reads, in bytes.
pub(super) const ERROR_BYTES: usize = 16 * 1024;

/// Time limit of reading the beginning of an answer, whose status has arrived.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Client in use, and the time at which its files were read.
#[derive(Debug)]
pub(super) struct SinkClient {
    tls: Option<Tls>,
    timeout: Duration,
    current: Mutex<(Client, Instant)>,
}

impl SinkClient {
    /// Builds the client.
    ///
    /// # Errors
    /// Returns the field of `tls` whose file is invalid, with the reason.
    pub(super) fn new(tls: Option<Tls>, timeout: Duration) -> Result<SinkClient, String> {
        tls.as_ref().map_or(Ok(()), Tls::check_files)?;
        let client = build(tls.as_ref(), timeout)?;
        Ok(SinkClient { tls, timeout, current: Mutex::new((client, Instant::now())) })
    }

    /// Returns the client in use. While a renewed file is invalid, the client before stays in use.
    pub(super) async fn get(&self) -> Client {
        let mut current = self.current.lock().await;
        let (client, read_at) = &mut *current;
        if self.tls.is_some() && read_at.elapsed() >= CERTIFICATE_RELOAD {
            *read_at = Instant::now();
            let (tls, timeout) = (self.tls.clone(), self.timeout);
            let built = tokio::task::spawn_blocking(move || build(tls.as_ref(), timeout)).await;
            if let Ok(Ok(built)) = built {
                *client = built;
            }
        }
        client.clone()
    }
}

/// Returns the first `most` bytes of an answer. An answer that stops early, or is too slow, counts as far as it arrived.
pub(super) async fn read_beginning(mut response: Response, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = async {
        while bytes.len() < most {
            let Ok(Some(chunk)) = response.chunk().await else { break };
            bytes.extend_from_slice(&chunk);
        }
    };
    let _ = tokio::time::timeout(READ_TIMEOUT, read).await;
    bytes.truncate(most);
    bytes
}

fn build(tls: Option<&Tls>, timeout: Duration) -> Result<Client, String> {
    // A redirect is not followed, because the signature is for this receiver only. No proxy of the environment is used,
    // because a service mesh does not need one.
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(timeout)
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .user_agent(concat!("twilio-edge/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = tls.and_then(|tls| tls.ca_file.as_ref()) {
        let at = |problem: String| format!("tls.ca_file: {problem}");
        let pem = fs::read(path).map_err(|error| at(error.to_string()))?;
        let roots = Certificate::from_pem_bundle(&pem);
        let roots = roots.map_err(|error| at(with_causes(&error)))?;
        if roots.is_empty() {
            return Err(at("the file has no certificate in PEM".into()));
        }
        // A client with the roots alone names the file that is wrong.
        let checked = Client::builder().tls_certs_only(roots.clone()).build();
        checked.map_err(|error| at(with_causes(&error)))?;
        builder = builder.tls_certs_only(roots);
    }
    if let Some((cert, key)) = tls.and_then(|tls| tls.identity.as_ref()) {
        let read = |field: &str, path: &String| {
            fs::read(path).map_err(|error| format!("tls.{field}: {error}"))
        };
        let mut pem = read("cert_file", cert)?;
        pem.push(b'\n');
        pem.extend(read("key_file", key)?);
        let identity = Identity::from_pem(&pem).map_err(|error| {
            format!(
                "tls: cert_file and key_file must be a certificate and an unencrypted key in PEM: {}",
                with_causes(&error)
            )
        })?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| match tls {
        Some(_) => format!("tls: the files do not fit together: {}", with_causes(&error)),
        None => with_causes(&error),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn invalid_file_is_refused_with_its_field() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (empty, absent) =
            (file("empty.pem", ""), folder.path().join("absent").display().to_string());
        let public = file("public.pem", "");
        for (path, mode) in [(&empty, 0o600), (&public, 0o644)] {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        let broken =
            file("broken.pem", "-----BEGIN CERTIFICATE-----\nhush\n-----END CERTIFICATE-----\n");
        let open = |ca_file: Option<&String>, identity: Option<(&String, &String)>| {
            let identity = identity.map(|(cert, key)| (cert.clone(), key.clone()));
            let tls = Tls { ca_file: ca_file.cloned(), identity };
            SinkClient::new(Some(tls), Duration::from_secs(1)).unwrap_err()
        };
        for (problem, start) in [
            (open(Some(&absent), None), "tls.ca_file: No such file"),
            (open(Some(&empty), None), "tls.ca_file: the file has no certificate in PEM"),
            (open(Some(&broken), None), "tls.ca_file: "),
            (open(None, Some((&absent, &empty))), "tls.cert_file: No such file"),
            (open(None, Some((&empty, &absent))), "tls.key_file: No such file"),
            (open(None, Some((&empty, &empty))), "tls: cert_file and key_file must be"),
            (
                open(None, Some((&empty, &public))),
                "tls.key_file: every user of this machine may read it",
            ),
        ] {
            assert!(problem.starts_with(start) && !problem.contains("hush"), "{problem}");
        }
    }
}
