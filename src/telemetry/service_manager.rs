//! Tells systemd how a pipeline is: the protocol of `Type=notify` and `WatchdogSec=`, which is described in sd_notify(3).
//!
//! The pipeline's own task calls this once a second. So the watchdog misses its sign of life when that task hangs, not only when the
//! process is gone.

use crate::printable::{LINE_BYTES, bounded, printable};
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The service manager that started this process; none in a terminal or a container.
#[derive(Default)]
pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Whether it ends this process if it hears nothing for a while.
    is_watchdog: bool,
    told: Told,
}

/// The state that the service manager knows.
#[derive(Clone, Default)]
struct Told {
    is_ready: bool,
    is_stopping: bool,
    status: String,
}

impl ServiceManager {
    /// The one that `NOTIFY_SOCKET` names, with a watchdog if `WATCHDOG_USEC` is set for this process.
    pub fn of_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Self::default() };
        let me = std::process::id().to_string();
        let is_watchdog = env::var_os("WATCHDOG_USEC").is_some()
            && env::var_os("WATCHDOG_PID").is_none_or(|process| process.to_str() == Some(&me));
        match open(&name) {
            Ok(socket) => Self { socket: Some(socket), is_watchdog, told: Told::default() },
            Err(error) => {
                tracing::warn!("NOTIFY_SOCKET cannot be used, so the service manager hears nothing: {error}");
                Self::default()
            }
        }
    }

    /// Tells what has changed, and gives a sign of life. `missing` is the reason why the pipeline is not ready.
    pub fn tell(&mut self, missing: Option<&str>, is_stopping: bool) {
        let Some((socket, address)) = &self.socket else { return };
        let (mut now, mut message) = (self.told.clone(), String::new());
        if missing.is_none() && !is_stopping && !self.told.is_ready {
            now.is_ready = true;
            message += "READY=1\n";
        }
        if is_stopping && !self.told.is_stopping {
            now.is_stopping = true;
            message += "STOPPING=1\n";
        }
        now.status = match missing {
            _ if is_stopping => "draining".to_owned(),
            None => "ready".to_owned(),
            Some(why) => format!("not ready: {}", printable(&bounded(why, LINE_BYTES))),
        };
        if now.status != self.told.status {
            message += &format!("STATUS={}\n", now.status);
        }
        if self.is_watchdog {
            message += "WATCHDOG=1\n";
        }
        // A message that does not arrive is sent again with the next call.
        if !message.is_empty() && socket.send_to_addr(message.as_bytes(), address).is_ok() {
            self.told = now;
        }
    }
}

/// A socket that never waits, and the address behind this name: a path, or `@` and a name without a file (Linux).
fn open(name: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "it is neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(name: &OsString, is_watchdog: bool) -> ServiceManager {
        ServiceManager { socket: Some(open(name).unwrap()), is_watchdog, told: Told::default() }
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 1_000];
        let length = socket.recv(&mut buffer).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn bound(directory: &std::path::Path) -> (UnixDatagram, OsString) {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        (socket, path.into_os_string())
    }

    #[test]
    fn each_change_is_told_once_and_ready_is_never_taken_back() {
        let scratch = tempfile::tempdir().unwrap();
        let (socket, name) = bound(scratch.path());
        let mut manager = manager(&name, false);
        manager.tell(Some("still starting"), false);
        assert_eq!(heard(&socket), "STATUS=not ready: still starting\n");
        manager.tell(Some("still starting"), false);
        assert_eq!(heard(&socket), "", "nothing has changed");
        manager.tell(None, false);
        assert_eq!(heard(&socket), "READY=1\nSTATUS=ready\n");
        manager.tell(Some("a\nREADY=1"), false);
        assert_eq!(heard(&socket), "STATUS=not ready: a\\nREADY=1\n", "a reason is one line");
        manager.tell(None, true);
        assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=draining\n");
    }

    #[test]
    fn a_process_that_ends_before_it_was_ready_is_not_called_ready() {
        let scratch = tempfile::tempdir().unwrap();
        let (socket, name) = bound(scratch.path());
        manager(&name, false).tell(None, true);
        assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=draining\n");
    }

    #[test]
    fn a_watchdog_gets_a_sign_of_life_each_time() {
        let scratch = tempfile::tempdir().unwrap();
        let (socket, name) = bound(scratch.path());
        let mut manager = manager(&name, true);
        manager.tell(None, false);
        assert_eq!(heard(&socket), "READY=1\nSTATUS=ready\nWATCHDOG=1\n");
        for _ in 0..3 {
            manager.tell(None, false);
            assert_eq!(heard(&socket), "WATCHDOG=1\n");
        }
    }

    #[test]
    fn a_message_that_did_not_arrive_is_sent_again() {
        let scratch = tempfile::tempdir().unwrap();
        let name = scratch.path().join("notify").into_os_string();
        let mut manager = manager(&name, false);
        manager.tell(None, false);
        let (socket, _) = bound(scratch.path());
        manager.tell(None, false);
        assert_eq!(heard(&socket), "READY=1\nSTATUS=ready\n");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_socket_without_a_file_is_reached_by_its_name() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("clickstream-test-{:016x}", rand::random::<u64>());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        manager(&format!("@{name}").into(), false).tell(None, false);
        assert_eq!(heard(&socket), "READY=1\nSTATUS=ready\n");
        assert!(open(&"vsock:2:1".into()).is_err() && open(&"notify".into()).is_err());
    }
}
