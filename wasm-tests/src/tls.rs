//! TLS clients: one that trusts a single certificate, and one that only supports old TLS versions; and the certificates for
//! them. They report the server's side of the handshake; the scenarios judge it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::client::Response;
use crate::http1::Reader;
use crate::process::bounded;
use crate::webhook::Request;

/// The host of all certificates here.
pub const HOST: &str = "hooks.example.com";

/// A self-signed certificate, stored in a folder for a server.
pub struct Certificate(CertificateDer<'static>);

impl Certificate {
    /// Creates one and writes `tls.crt` and `tls.key` into `folder`. It replaces existing files by a rename, as an operator
    /// does.
    pub fn install(folder: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
        for (name, pem) in
            [("tls.crt", made.cert.pem()), ("tls.key", made.signing_key.serialize_pem())]
        {
            let new = folder.join(format!("{name}.new"));
            std::fs::write(&new, pem)?;
            std::fs::rename(&new, folder.join(name))?;
        }
        Ok(Self(made.cert.der().clone()))
    }
}

/// Sends a request over TLS of one version, to a server that must show `certificate`.
pub async fn send(
    address: SocketAddr,
    certificate: &Certificate,
    version: &'static SupportedProtocolVersion,
    request: &Request,
) -> Result<Response> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.0.clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    bounded("send a request over TLS", async {
        let stream = TcpStream::connect(address).await?;
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(ServerName::try_from(HOST)?, stream).await?;
        stream.write_all(&request.bytes()).await?;
        let mut reader = Reader::default();
        let head = reader.head(&mut stream).await?.context("closed without a response")?;
        let status = head.word(1).parse().context("a status code")?;
        let body = reader.response_body(&mut stream, &head).await?.bytes;
        Ok(Response { status, head, body })
    })
    .await
}

/// Returns the bytes of the first record with which a server answers a client hello of TLS 1.1.
pub async fn greet_with_tls_1_1(address: SocketAddr) -> Result<Vec<u8>> {
    const TLS_1_1: [u8; 2] = [3, 2];
    const SUITES: [u8; 4] = [0, 2, 0xc0, 0x13]; // one: ECDHE-RSA-AES128-SHA
    let hello = [TLS_1_1.as_slice(), &[7; 32], &[0], &SUITES, &[1, 0]].concat();
    let length = u8::try_from(hello.len())?;
    let record = [&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length], hello.as_slice()].concat();
    bounded("greet with TLS 1.1", async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&record).await?;
        let mut answer = vec![0; 7];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    })
    .await
}
