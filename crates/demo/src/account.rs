//! Account of the demo: from the environment, or the demo's own. Messages are sent to the simulator with any
//! configured account.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::{ACCOUNT_SID, AUTH_TOKEN, EDGE_TOKEN};

/// Account and the credentials that the demo's parts use among each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Account SID, `AC..`.
    pub sid: String,
    /// Auth token: signs the account's webhooks, and authenticates against the simulator.
    pub auth_token: String,
    /// Token of the filter at the sidecar.
    pub edge_token: String,
    /// Public origin for which webhooks are signed.
    pub origin: String,
}

impl Account {
    /// Reads these variables, as far as they are set; uses the demo's own account if no variable of the account is set.
    ///
    /// # Errors
    /// The problem in words.
    pub fn new(variable: impl Fn(&str) -> Option<String>, edge_port: u16) -> Result<Self, String> {
        let given = |name| variable(name).filter(|value| !value.is_empty());
        let (sid, auth_token) = match (given("TWILIO_ACCOUNT_SID"), given("TWILIO_AUTH_TOKEN")) {
            (Some(sid), Some(auth_token)) => (sid, auth_token),
            (None, None) => (ACCOUNT_SID.to_owned(), AUTH_TOKEN.to_owned()),
            _ => {
                return Err("of TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN only one is set: set both, or none for the demo's account".to_owned());
            }
        };
        Ok(Self {
            sid,
            auth_token,
            edge_token: given("TWILIO_EDGE_TOKEN").unwrap_or_else(|| EDGE_TOKEN.to_owned()),
            origin: given("PUBLIC_ORIGIN")
                .unwrap_or_else(|| format!("http://127.0.0.1:{edge_port}")),
        })
    }

    /// Returns the environment variables for Envoy and the simulator.
    pub fn environment(&self) -> [(&str, &str); 4] {
        [
            ("TWILIO_ACCOUNT_SID", &self.sid),
            ("TWILIO_AUTH_TOKEN", &self.auth_token),
            ("TWILIO_EDGE_TOKEN", &self.edge_token),
            ("PUBLIC_ORIGIN", &self.origin),
        ]
    }

    /// Writes the file of `sending.file` into this folder, and returns its path.
    pub fn write_sending(&self, folder: &Path) -> io::Result<PathBuf> {
        let path = folder.join("sending.toml");
        let account =
            format!("[[account]]\nsid = {:?}\nauth_token = {:?}\n", self.sid, self.auth_token);
        write_private(&path, &account)?;
        Ok(path)
    }

    /// Writes the file of `accounts.file` into this folder, and returns its path. The sidecar explains refused requests with
    /// its keys.
    pub fn write_accounts(&self, folder: &Path) -> io::Result<PathBuf> {
        let path = folder.join("accounts.toml");
        let account =
            format!("[[account]]\nsid = {:?}\nauth_tokens = [{:?}]\n", self.sid, self.auth_token);
        write_private(&path, &account)?;
        Ok(path)
    }
}

/// Writes a file that only its owner can read.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // The file of an earlier release may be readable for others.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incomplete_account_is_refused() {
        let of = |set: &[(&str, &str)]| {
            let find = |name: &str| set.iter().find(|(have, _)| *have == name);
            Account::new(|name| find(name).map(|(_, value)| (*value).to_owned()), 8080)
        };
        assert_eq!(of(&[]).unwrap().sid, ACCOUNT_SID);
        assert_eq!(of(&[]).unwrap().origin, "http://127.0.0.1:8080");
        let whole = [("TWILIO_ACCOUNT_SID", "AC1"), ("TWILIO_AUTH_TOKEN", "hush")];
        assert_eq!(of(&whole).unwrap().auth_token, "hush");
        assert!(of(&whole[..1]).unwrap_err().contains("only one is set"));
    }

    #[test]
    fn files_with_the_token_are_readable_by_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let account = Account::new(|_| None, 1).unwrap();
        let read = |path: PathBuf| -> toml::Table {
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            std::fs::read_to_string(path).unwrap().parse().unwrap()
        };
        let file = read(account.write_sending(folder.path()).unwrap());
        assert_eq!(file["account"][0]["auth_token"].as_str(), Some(AUTH_TOKEN));
        let file = read(account.write_accounts(folder.path()).unwrap());
        assert_eq!(file["account"][0]["auth_tokens"][0].as_str(), Some(AUTH_TOKEN));
    }
}
