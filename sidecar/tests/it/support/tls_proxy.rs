//! TLS proxy in front of a server of a test, which requests a client certificate.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::support::servers::Guarded;

/// Certificate that is its own root, and its key.
pub(crate) struct Pem {
    pub(crate) cert: String,
    pub(crate) key: String,
    both: String,
}

impl Pem {
    /// Makes a certificate for 127.0.0.1.
    pub(crate) fn make(folder: &Path) -> Pem {
        let pem = |name: &str| folder.join(name).display().to_string();
        let (cert, key, both) = (pem("cert.pem"), pem("key.pem"), pem("both.pem"));
        let curve = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
        let made = Command::new("openssl")
            .args(curve)
            .args(["-nodes", "-subj", "/CN=edge", "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-days", "2"])
            .args(["-out", &cert, "-keyout", &key])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let texts = [&key, &cert].map(|path| std::fs::read_to_string(path).unwrap());
        std::fs::write(&both, texts.concat()).unwrap();
        Pem { cert, key, both }
    }

    /// Returns the field `tls` of a sink that trusts the certificate and presents it.
    pub(crate) fn field(&self) -> String {
        let Pem { cert, key, .. } = self;
        format!("tls = {{ ca_file = \"{cert}\", cert_file = \"{cert}\", key_file = \"{key}\" }}")
    }
}

/// Starts the proxy from `outer` to `inner`, both ports of 127.0.0.1.
pub(crate) fn start(outer: u16, inner: u16, pem: &Pem) -> Guarded {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/tls_proxy.py");
    let (outer, inner) = (outer.to_string(), inner.to_string());
    let args = [script.to_str().unwrap(), &outer, &inner, &pem.both];
    Guarded::start(Path::new("python3"), &args, &[], "KILL", None, Stdio::null())
}
