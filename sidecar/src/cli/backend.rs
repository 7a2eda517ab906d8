//! `twilio-edge backend`: the demo's application, until a stop signal.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;
use twilio_edge_platform::terminal;

use axum::http::StatusCode;

use twilio_edge_demo::backend::{Answer, router};
use twilio_edge_platform::{
    listener,
    listener::admission::{Admission, Limits},
    metrics::Metrics,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8084")]
    listen: SocketAddr,
    /// Answer every webhook with this status instead of 200 and 204
    #[arg(long, env = "BACKEND_STATUS")]
    status: Option<StatusCode>,
    /// Delay each answer by this many milliseconds
    #[arg(long, env = "BACKEND_DELAY_MS", default_value_t = 0)]
    delay_ms: u64,
}

pub(super) fn run(args: Args) -> ExitCode {
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(serve(args)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::print_error(&format!("twilio-edge backend: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> io::Result<()> {
    let answer = Answer { status: args.status, delay: Duration::from_millis(args.delay_ms) };
    let listener = tokio::net::TcpListener::bind(args.listen).await?;
    let admission = Admission::new(Limits::local(), Metrics::default().listeners.listener("main"));
    let router = router(answer, terminal::print_line);
    listener::server::serve(listener, router, admission, std::future::pending()).await;
    Ok(())
}
