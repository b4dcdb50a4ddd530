//! The CPU time and the memory of processes on this machine, as Linux counts them.

use std::collections::BTreeSet;
use std::fs;
use std::net::{ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::time::Duration;

/// Linux counts CPU time in hundredths of a second, on all processors that this program runs on (`USER_HZ`).
const TICK_MS: u64 = 10;

/// In `/proc/net/tcp`: the state of a socket that listens.
const LISTENING: &str = "0A";

/// The peak memory of this process in bytes; none where there is no `/proc`.
pub fn own_peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// A process of this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pub id: u32,
    pub name: String,
}

impl Process {
    /// This process itself.
    pub fn own() -> Self {
        Self { id: std::process::id(), name: env!("CARGO_PKG_NAME").into() }
    }

    /// The process that listens on this port, if the address is one of this machine, and the process is one that this user may look at.
    pub fn listening(host: &str, port: u16) -> Option<Self> {
        if !is_here(host, port) {
            return None;
        }
        let sockets = sockets(port);
        let id = processes().find(|id| holds_one_of(*id, &sockets))?;
        let name = fs::read_to_string(format!("/proc/{id}/comm")).ok()?.trim().to_owned();
        Some(Self { id, name })
    }

    /// Its CPU time so far, of all its threads; none if it has ended.
    pub fn cpu(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id)).ok()?;
        Some(Duration::from_millis(ticks(&stat)? * TICK_MS))
    }
}

/// User and system time in a line of `/proc/ID/stat`. The name before them may contain blanks and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |nth: usize| fields.get(nth)?.parse::<u64>().ok();
    Some(field(11)? + field(12)?)
}

/// Whether a name leads to an address of this machine: only there a socket can be bound.
fn is_here(host: &str, port: u16) -> bool {
    let addresses = (host, port).to_socket_addrs();
    addresses.is_ok_and(|mut all| all.any(|address| UdpSocket::bind((address.ip(), 0)).is_ok()))
}

/// The inodes of the sockets that listen on a port.
fn sockets(port: u16) -> BTreeSet<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().filter_map(|line| inode(line, port))).collect()
}

/// The inode in a line of `/proc/net/tcp`, if its socket listens on this port.
fn inode(line: &str, port: u16) -> Option<String> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let (_, at) = fields.get(1)?.rsplit_once(':')?;
    let is_wanted = u16::from_str_radix(at, 16) == Ok(port) && fields.get(3) == Some(&LISTENING);
    is_wanted.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn holds_one_of(id: u32, sockets: &BTreeSet<String>) -> bool {
    let open = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
    open.filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|link| socket(&link).is_some_and(|it| sockets.contains(it)))
}

fn socket(link: &Path) -> Option<&str> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_server_is_known_by_its_port_and_its_time_grows() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let process = Process::listening("localhost", port).expect("this process itself");
        assert_eq!(process.id, std::process::id());
        let before = process.cpu().unwrap();
        while process.cpu().unwrap() <= before {
            std::hint::black_box((0..100_000).sum::<u64>());
        }
        assert!(Process::own().cpu().unwrap() > before);
        assert!(own_peak_bytes().is_some_and(|bytes| bytes > 1 << 20));
        drop(listener);
        assert_eq!(Process::listening("localhost", port), None);
        // An address for documentation: no machine has it.
        assert_eq!(Process::listening("192.0.2.1", port), None);
    }

    #[test]
    fn a_name_with_blanks_and_brackets_hides_no_time() {
        let line = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 30 12 13 14";
        assert_eq!(ticks(line), Some(30 + 12));
        assert_eq!(ticks("7 (a) S 1"), None);
    }
}
