//! `twilio-edge health`: checks whether a sidecar on this machine is ready, for images without another HTTP client.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    process::ExitCode,
    time::Duration,
};
use twilio_edge_platform::terminal;

use crate::cli::{failure::fail, globals::Globals};
use twilio_edge_platform::listener::ListenAddress;

/// Time limit of each of these: connect, send the request, read the answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Most bytes of an answer that are read.
const MAX_ANSWER_BYTES: u64 = 4096;

#[derive(Debug, clap::Args)]
#[command(after_help = "The exit code is 0 if the answer is 200, and 1 otherwise.")]
pub(super) struct Args {
    /// Address of the sidecar: ADDRESS:PORT or unix:/PATH [default: its listener in the settings]
    #[arg(long, value_name = "PLACE")]
    at: Option<String>,
    /// Path of the request; /healthz checks only that the process runs
    #[arg(long, default_value = "/readyz")]
    path: String,
}

pub(super) fn run(args: Args, globals: &Globals) -> ExitCode {
    match args.ask(globals) {
        Ok(answer) => {
            terminal::print_line(&answer);
            ExitCode::SUCCESS
        }
        Err(problem) => fail(problem),
    }
}

impl Args {
    /// Sends the request; returns the text of the answer with status 200, or the problem.
    fn ask(self, globals: &Globals) -> Result<String, String> {
        let place = match self.at {
            Some(place) => place,
            None => globals.settings().check().map_err(|error| error.to_string())?.listen,
        };
        let parsed = place
            .parse::<ListenAddress>()
            .map_err(|()| format!("{place}: must be ADDRESS:PORT or unix:/PATH"))?;
        let answer = ask(&parsed, &self.path).map_err(|error| format!("{place}: {error}"))?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        match head.split_whitespace().nth(1) {
            Some("200") => Ok(body.trim().to_owned()),
            Some(status) => Err(format!("{place}: {status} {}", body.trim())),
            None => Err(format!("{place}: no answer in HTTP")),
        }
    }
}

fn ask(address: &ListenAddress, path: &str) -> io::Result<String> {
    match address {
        ListenAddress::Address(tcp) => {
            let stream = TcpStream::connect_timeout(&reachable(*tcp), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            exchange(stream, path)
        }
        ListenAddress::Socket(socket) => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            exchange(stream, path)
        }
    }
}

fn exchange(mut stream: impl Read + Write, path: &str) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Replaces a wildcard address by loopback.
fn reachable(listens: SocketAddr) -> SocketAddr {
    let ip = match listens.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listens.port())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::net::UnixListener, thread};

    use super::*;

    fn args(at: String) -> Args {
        Args { at: Some(at), path: "/readyz".to_owned() }
    }

    /// Answers one request, and returns the request.
    fn answer(mut stream: impl Read + Write, answer: &str) -> String {
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            asked.extend(byte);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(asked).unwrap()
    }

    #[test]
    fn only_200_is_healthy() {
        for (given, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n{\"ready\":true}", Ok("{\"ready\":true}")),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"ready\":false}", Err("503 {\"ready\"")),
            ("", Err("no answer in HTTP")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = thread::spawn(move || answer(listener.accept().unwrap().0, given));
            let answer = args(format!("0.0.0.0:{port}")).ask(&Globals::default());
            match expected {
                Ok(body) => assert_eq!(answer.as_deref(), Ok(body)),
                Err(part) => {
                    assert!(
                        answer.as_ref().is_err_and(|problem| problem.contains(part)),
                        "{answer:?}"
                    )
                }
            }
            assert!(server.join().unwrap().starts_with("GET /readyz HTTP/1.1\r\n"));
        }
    }

    #[test]
    fn closed_port_is_not_healthy_and_a_socket_is_asked_too() {
        let folder = tempfile::tempdir().unwrap();
        let place = format!("unix:{}", folder.path().join("edge.sock").display());
        assert!(args(place.clone()).ask(&Globals::default()).unwrap_err().contains("edge.sock"));
        let listener = UnixListener::bind(folder.path().join("edge.sock")).unwrap();
        let server = thread::spawn(move || {
            answer(listener.accept().unwrap().0, "HTTP/1.1 200 OK\r\n\r\nok\n")
        });
        assert_eq!(args(place).ask(&Globals::default()).as_deref(), Ok("ok"));
        server.join().unwrap();
        assert!(
            args("edge:8081".to_owned())
                .ask(&Globals::default())
                .unwrap_err()
                .contains("must be ADDRESS:PORT")
        );
    }
}
