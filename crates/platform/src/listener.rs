//! Listeners of the sidecar: a network address, or a Unix socket, which only processes of this machine reach and file
//! permissions protect. Opens and serves both, and does not know the requests.

pub mod admission;
mod bodies;
mod capacity;
pub mod server;

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use axum::Router;
use tokio::net::{TcpListener, UnixListener};

use self::admission::Admission;
pub use self::capacity::capacity;

/// Prefix of a socket path in the settings.
const UNIX: &str = "unix:";

/// Mode of a socket: its owner and its group may connect, so that Envoy can run as another user of that group.
const MODE: u32 = 0o660;

/// Listen address, as in the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// `127.0.0.1:8081`
    Address(SocketAddr),
    /// Absolute socket path, `unix:/run/twilio-edge/edge.sock`. A relative path would depend on the working directory.
    Socket(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<ListenAddress, ()> {
        match text.strip_prefix(UNIX).map(Path::new) {
            Some(path) if path.is_absolute() => Ok(ListenAddress::Socket(path.to_owned())),
            Some(_) => Err(()),
            None => text.parse().map(ListenAddress::Address).map_err(drop),
        }
    }
}

/// An open listener: the kernel queues connections from now on.
pub enum Listener {
    /// TCP listener, with the address it is bound to.
    Tcp(TcpListener, SocketAddr),
    /// Unix socket, with its path.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Opens the listener that a setting names.
    ///
    /// # Errors
    ///
    /// The address is invalid or cannot be opened; the text names the setting to change.
    pub async fn open(setting: &str, address: &str) -> Result<Listener, String> {
        let problem =
            |error: io::Error| format!("cannot listen on {address}: {error}; change {setting}");
        match address.parse() {
            Ok(ListenAddress::Address(address)) => {
                let listener = TcpListener::bind(address).await.map_err(problem)?;
                let address = listener.local_addr().map_err(problem)?;
                Ok(Listener::Tcp(listener, address))
            }
            Ok(ListenAddress::Socket(path)) => {
                let listener = bind(&path).map_err(problem)?;
                Ok(Listener::Unix(listener, path))
            }
            Err(()) => Err(problem(io::ErrorKind::InvalidInput.into())),
        }
    }

    /// Answers callers until `stop` resolves, then finishes the requests in progress.
    pub async fn serve(
        self,
        router: Router,
        admission: Admission,
        stop: impl Future<Output = ()> + Send,
    ) {
        match self {
            Listener::Tcp(listener, _) => server::serve(listener, router, admission, stop).await,
            Listener::Unix(listener, _) => server::serve(listener, router, admission, stop).await,
        }
    }
}

/// `http://127.0.0.1:8081` or `unix:/run/twilio-edge/edge.sock`.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listener::Tcp(_, address) => write!(f, "http://{address}"),
            Listener::Unix(_, path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// Binds a Unix socket. The file of a socket outlives its process: a socket without a process is replaced; the socket of
/// a running process, or a file that is no socket, is an error.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let problem = "the path is a file that is no socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, problem));
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)?;
            }
            _ => {
                let problem = "another process has this socket";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, problem));
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn listen_address_is_a_network_address_or_an_absolute_path() {
        let tcp = "[::1]:8081".parse().map(ListenAddress::Address).unwrap();
        assert_eq!("[::1]:8081".parse(), Ok(tcp));
        assert_eq!(
            "unix:/run/edge.sock".parse(),
            Ok(ListenAddress::Socket("/run/edge.sock".into()))
        );
        for wrong in ["", "8081", "localhost:8081", "unix:", "unix:edge.sock", "/run/edge.sock"] {
            assert_eq!(wrong.parse::<ListenAddress>(), Err(()), "{wrong}");
        }
    }

    #[tokio::test]
    async fn unix_socket_is_served_and_protected_by_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edge.sock");
        let address = format!("unix:{}", path.display());
        let listener = Listener::open("listen", &address).await.unwrap();
        assert_eq!(listener.to_string(), address);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);

        let router = Router::new().route("/", axum::routing::get(async || "here"));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let metrics = crate::metrics::Metrics::default().listeners.listener("main");
        let admission = Admission::new(crate::config::defaults().connections.limits(), metrics);
        let serving =
            tokio::spawn(listener.serve(router, admission, async { drop(stopped.await) }));
        let mut caller = tokio::net::UnixStream::connect(&path).await.unwrap();
        caller.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("here"), "{answer}");

        let Err(taken) = Listener::open("listen", &address).await else { panic!("taken twice") };
        assert!(taken.contains("another process has this socket; change listen"), "{taken}");

        stop.send(()).unwrap();
        serving.await.unwrap();
        assert!(path.exists(), "what a killed process leaves behind");
        Listener::open("listen", &address).await.unwrap();
    }

    #[tokio::test]
    async fn file_that_is_no_socket_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        fs::write(&path, "precious").unwrap();
        let address = format!("unix:{}", path.display());
        let Err(refused) = Listener::open("admin.listen", &address).await else { panic!("taken") };
        assert!(refused.contains("no socket; change admin.listen"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
