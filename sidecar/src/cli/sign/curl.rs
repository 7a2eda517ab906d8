//! Signed request as a curl command that sends exactly these bytes.

use std::fmt::Write as _;

use twilio_edge_domain::display::is_hazardous;
use twilio_edge_simulator::webhook::SignedRequest;

/// Returns one command, ready to paste into a shell. `host` is given if the edge's own host is not the signed one.
pub(super) fn command(signed: &SignedRequest, edge: &str, host: Option<&str>) -> String {
    // Without these two options curl resolves `..` and expands `[]` and `{}`, and the URL is not the signed one.
    let mut command = String::from("curl --include --path-as-is --globoff");
    let _ = write!(command, " {}", quoted(&format!("{edge}{}", signed.target)));
    let host = host.map(|host| ("Host", host));
    let headers = signed.headers.iter().map(|(name, value)| (*name, value.as_str()));
    for (name, value) in headers.chain(host) {
        let _ = write!(command, " \\\n  --header {}", quoted(&format!("{name}: {value}")));
    }
    if signed.method == "POST" {
        let _ = write!(command, " \\\n  --data-raw {}", quoted(&signed.body));
    }
    command
}

/// Quotes a text for a POSIX shell: no character between single quotes has a meaning, except the quote itself. `printf`
/// writes the characters that a terminal would execute or hide, so that the printed command is safe and still sends these
/// bytes.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("'");
    for letter in text.chars() {
        match letter {
            '\'' => quoted.push_str(r"'\''"),
            letter if letter != '\n' && is_hazardous(letter) => {
                let mut buffer = [0; 4];
                let bytes = letter.encode_utf8(&mut buffer).bytes();
                let bytes = bytes.map(|byte| format!("\\{byte:03o}"));
                let _ = write!(quoted, "'\"$(printf '{}')\"'", bytes.collect::<String>());
            }
            letter => quoted.push(letter),
        }
    }
    quoted + "'"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_receives_every_text_unchanged() {
        for text in [
            "",
            "a b",
            "it's",
            "$(x) `y` \\ \"",
            "line\nbreak",
            "''",
            "a\u{202e}b\tc\u{1b}[0m\u{e0041}",
        ] {
            assert!(!quoted(text).contains(|letter| letter != '\n' && is_hazardous(letter)));
            let echoed = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(text))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(echoed.stdout).unwrap(), text);
        }
    }
}
