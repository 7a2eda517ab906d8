//! Check that the demo's addresses are free, before anything starts, so that an address in use gives one clear line and not
//! a half-started demo.

use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};

/// Port of a process of the demo.
#[derive(Debug, Clone, Copy)]
pub struct PortUse {
    /// Name of the process.
    pub part: &'static str,
    /// Address.
    pub address: SocketAddr,
    /// Environment variable that changes the address.
    pub variable: &'static str,
}

/// Returns one line for each address in use: the process that uses it, and what to do.
pub fn occupied_ports(uses: &[PortUse]) -> Vec<String> {
    let mut ours: HashMap<SocketAddr, (&str, TcpListener)> = HashMap::new();
    let mut problems = Vec::new();
    for PortUse { part, address, variable } in uses {
        let owner = match ours.get(address) {
            Some((other, _)) => format!("the {other} of this demo"),
            None => match TcpListener::bind(address) {
                Ok(listener) => {
                    ours.insert(*address, (part, listener));
                    continue;
                }
                Err(error) => owner(*address).map_or_else(
                    || format!("another process ({error})"),
                    |name| format!("`{name}`"),
                ),
            },
        };
        problems.push(format!(
            "{address}, for the {part}, is in use by {owner}: stop it, or choose another port with {variable}=.."
        ));
    }
    problems
}

/// Returns the process that listens on `address` according to Linux; `None` if it is unknown.
fn owner(address: SocketAddr) -> Option<String> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let socket = format!("socket:[{}]", listening_inode(&table, address.port())?);
    let is_pid = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let entries = fs::read_dir("/proc").ok()?.flatten();
    for process in entries.filter(|entry| entry.file_name().to_str().is_some_and(is_pid)) {
        let Ok(open_files) = fs::read_dir(process.path().join("fd")) else { continue };
        let has_socket = open_files
            .flatten()
            .any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == &*socket));
        if has_socket {
            let name = fs::read_to_string(process.path().join("comm")).ok()?;
            return Some(format!(
                "{} (pid {})",
                name.trim(),
                process.file_name().to_string_lossy()
            ));
        }
    }
    None
}

/// Returns the inode of the socket that listens on `port`, from `/proc/net/tcp` (man 5 proc: local_address is the second
/// column, st the fourth, inode the tenth).
fn listening_inode(table: &str, port: u16) -> Option<&str> {
    const LISTENING: &str = "0A";
    let port = format!(":{port:04X}");
    table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let listens = columns.get(3) == Some(&LISTENING);
        (listens && columns.get(1)?.ends_with(&port)).then(|| columns.get(9).copied())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port_use(part: &'static str, address: SocketAddr) -> PortUse {
        PortUse { part, address, variable: "SOME_PORT" }
    }

    #[test]
    fn occupied_port_is_reported_with_its_owner_and_a_remedy() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let problems = occupied_ports(&[port_use("edge", listener.local_addr().unwrap())]);
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert!(problem.contains("SOME_PORT"), "{problem}");
        #[cfg(target_os = "linux")]
        assert!(problem.contains(&format!("pid {}", std::process::id())), "{problem}");
    }

    #[test]
    fn port_conflict_is_found() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(occupied_ports(&[port_use("edge", free)]), Vec::<String>::new());
        let problems = occupied_ports(&[port_use("edge", free), port_use("backend", free)]);
        assert!(problems.concat().contains("the edge of this demo"), "{problems:?}");
    }

    #[test]
    fn port_is_occupied_by_listening_sockets_only() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 0100007F:A0B2 01 00000000:00000000 00:00000000 00000000     0        0 11 1
   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 22 1";
        assert_eq!(listening_inode(table, 8080), Some("22"));
        assert_eq!(listening_inode(table, 8081), None);
    }
}
