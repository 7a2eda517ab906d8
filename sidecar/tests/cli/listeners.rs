//! The listeners of the simulator and of the demo's application under callers that only hold connections open.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command that listens, with as few open files as a shell of old gives, and its address.
fn started(command: &str) -> (Started, String) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 256 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_twilio-edge")])
        .args([command, "--listen", &free])
        .env_clear()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.stdout.take().unwrap();
    // Read to its end, so that the command never waits for this test.
    std::thread::spawn(move || BufReader::new(output).lines().for_each(drop));
    let started = Started(child);
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(&free).is_err() {
        assert!(Instant::now() < deadline, "{command} does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    (started, free)
}

fn opened(address: &str, sent: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // The other end may have closed it already.
    let _ = stream.write_all(sent);
    stream
}

#[test]
fn half_open_connections_block_no_caller_of_simulator_and_backend() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    for (command, path) in [("simulator", "/simulator/healthz"), ("backend", "/healthz")] {
        let (_process, address) = started(command);
        let mut open = Vec::new();
        for sent in [&b"GET / HTTP/1.1\r\nhost: x\r\nx-half: "[..], b"", preface] {
            open.extend((0..220).map(|_| opened(&address, sent)));
        }
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let mut answer = String::new();
        let begun = Instant::now();
        opened(&address, request.as_bytes()).read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{command}: {answer}");
        assert!(begun.elapsed() < Duration::from_secs(4), "others had to end first: {command}");
        // The last ones are closed when they have had the time of their headers.
        for stream in open.iter_mut().rev().take(3) {
            let mut rest = Vec::new();
            let ended = stream.read_to_end(&mut rest);
            let is_late = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
            assert!(!is_late, "{command} leaves it open");
        }
    }
}

#[test]
fn accounts_of_the_simulator_that_others_may_read_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("accounts.toml");
    let text = "[[account]]\nsid = \"AC00112233445566778899aabbccddeeff\"\nauth_token = \"hush\"\n";
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let ran = crate::support::program::twilio_edge(&[
        "simulator",
        "--listen",
        "127.0.0.1:0",
        "--accounts",
        &path.display().to_string(),
    ]);
    let remedy = format!("run `chmod 600 {}`", path.display());
    assert!(ran.code != 0 && ran.err.contains(&remedy) && !ran.err.contains("hush"), "{ran:?}");
}
