//! `twilio-edge serve`: the sidecar, until it is told to stop.

use std::process::ExitCode;

use axum::{Router, routing::get};

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: Args) -> ExitCode {
    match tokio::runtime::Runtime::new().map(|runtime| runtime.block_on(serve())) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) | Err(error) => {
            eprintln!("twilio-edge: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8081").await?;
    axum::serve(listener, Router::new().route("/healthz", get(|| async { "ok\n" }))).await
}
