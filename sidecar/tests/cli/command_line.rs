//! Common parts of all commands: exit codes, completions of shells, man pages, and colours that `NO_COLOR` turns off.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::{fs, io::Write as _};

use crate::support::program::{repository, run, twilio_edge};

const TOKEN: [(&str, &str); 1] = [("TWILIO_AUTH_TOKEN", "0123456789abcdef0123456789abcdef")];

/// Exit codes in the table of docs/COMMAND-LINE.md.
fn documented_codes() -> Vec<i32> {
    let document = fs::read_to_string(repository().join("docs/COMMAND-LINE.md")).unwrap();
    let section = document.split("## Exit codes").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
    rows.filter_map(|row| row.split(' ').next()?.parse().ok()).collect()
}

#[test]
fn each_documented_exit_code_has_its_meaning() {
    let folder = tempfile::tempdir().unwrap();
    let vector = folder.path().join("vector.jsonl").display().to_string();
    fs::write(&vector, r#"{"id":"1","method":"GET","url":"https://h/","headers":{},"auth_token":"t","expect":"accept"}"#).unwrap();
    // A port of this machine at which no server listens.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = listener.local_addr().unwrap().to_string();
    drop(listener);
    let edge = format!("http://{free}");
    let log = r#"{"method":"POST","path":"/in","status":403}"#;
    let unsigned = "POST /in HTTP/1.1\nHost: h\n\n";
    let explain = ["explain", "--request", "-", "--origin", "https://h"];
    let mut seen = Vec::new();
    for (arguments, input, code) in [
        (&["--version"][..], "", 0),
        (&["reference", "keywords"], "", 0),
        (&["sign", "stop"], "", 0),
        // The answer is no, or the command failed.
        (&explain, unsigned, 1),
        (&["vectors", &vector], "", 1),
        (&["sign", "stop", "--send", "--edge", &edge], "", 2),
        (&["print-config", "--config", "/no/such/file"], "", 1),
        (&["reference", "man", "no-such-command"], "", 1),
        // The arguments or the input cannot be read.
        (&["no-such-command"], "", 2),
        (&["explain"], "", 2),
        (&explain, "hello", 2),
        (&["vectors", "/no/such/file"], "", 2),
        // There is no signature to check.
        (&explain, log, 3),
    ] {
        let environment = if arguments[0] == "sign" { &[][..] } else { &TOKEN };
        let ran = run(arguments, environment, input);
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
        // A failure is explained on standard error, a verdict on standard output.
        assert!(!ran.out.is_empty() || !ran.err.is_empty(), "{arguments:?}");
        seen.push(code);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(documented_codes(), seen, "docs/COMMAND-LINE.md has other exit codes");
}

#[test]
fn completions_are_scripts_of_their_shells() {
    for (shell, parser) in [
        ("bash", Some("bash")),
        ("zsh", None),
        ("fish", None),
        ("elvish", None),
        ("powershell", None),
    ] {
        let script = twilio_edge(&["reference", "completions", shell]).success();
        for word in ["explain", "completions", "twilio-edge"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
        if let Some(parser) = parser {
            let mut child = Command::new(parser).arg("-n").stdin(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
            assert!(child.wait().unwrap().success(), "{shell}");
        }
    }
    // bash itself completes with it.
    let script = twilio_edge(&["reference", "completions", "bash"]).success();
    let ask = "\nCOMP_WORDS=(twilio-edge expl); COMP_CWORD=1\n_twilio__edge twilio-edge expl twilio-edge\nprintf '%s\\n' \"${COMPREPLY[@]}\"";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ask.sh");
    fs::write(&file, script + ask).unwrap();
    let output = Command::new("bash").arg(file).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "explain\n");
}

#[test]
fn every_command_has_a_man_page() {
    let page = twilio_edge(&["reference", "man"]).success();
    assert!(page.contains(".TH twilio-edge 1"), "{page}");
    let page = twilio_edge(&["reference", "man", "messages", "list"]).success();
    assert!(page.contains("twilio\\-edge messages list"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    fs::create_dir(&pages).unwrap();
    twilio_edge(&["reference", "man", "--folder", pages.to_str().unwrap()]).success();
    let help = twilio_edge(&["--help"]).success();
    let commands = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands: Vec<&str> = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() > 30, "{commands:?}");
    for command in commands {
        let page = fs::read_to_string(pages.join(format!("twilio-edge-{command}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{command}");
    }
    let page = pages.join("twilio-edge-messages-list.1");
    let mode = fs::metadata(page).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "others cannot read the pages");
}

/// Runs a command on a pseudo-terminal, and returns what it prints there.
fn on_a_terminal(arguments: &str, environment: &[(&str, &str)]) -> String {
    let command = format!("{} {arguments}", env!("CARGO_BIN_EXE_twilio-edge"));
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("TERM", "xterm-256color")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn help_alone_is_styled_and_no_color_turns_that_off() {
    let styled = on_a_terminal("--help", &[]);
    assert!(styled.contains("\u{1b}[1m"), "{styled:?}");
    let plain = on_a_terminal("--help", &[("NO_COLOR", "1")]);
    assert!(plain.contains("Commands:") && !plain.contains('\u{1b}'), "{plain:?}");
    for arguments in ["reference keywords", "sign stop", "no-such-command", "print-config"] {
        let printed = on_a_terminal(arguments, &[]);
        assert!(!printed.is_empty() && !printed.contains('\u{1b}'), "{arguments}: {printed:?}");
    }
    assert!(!twilio_edge(&["--help"]).success().contains('\u{1b}'), "help in a pipe is styled");
}
