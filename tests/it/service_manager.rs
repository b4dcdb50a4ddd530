//! systemd's side of `Type=notify`: it hears that an ingester is ready, why it is not, and that it drains.

use crate::support::test_env::TestEnv;
use crate::support::{WAIT_TIMEOUT, eventually, is};
use std::os::unix::net::UnixDatagram;

/// Everything that has been said so far.
fn heard(socket: &UnixDatagram, all: &mut String) {
    let mut buffer = [0; 4_096];
    while let Ok(length) = socket.recv(&mut buffer) {
        *all += &String::from_utf8_lossy(&buffer[..length]);
    }
}

#[test]
fn systemd_hears_that_an_ingester_has_joined_its_group_and_that_it_drains() {
    let env = TestEnv::open();
    let path = env.file("notify");
    let socket = UnixDatagram::bind(&path).expect("a directory of ours");
    socket.set_nonblocking(true).unwrap();
    let (name, mut all) = (path.to_str().expect("plain names"), String::new());
    let mut ingester = env.run_with(
        "ingest",
        &["--batch-timeout", "300ms"],
        &[("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "30000000")],
    );
    eventually(WAIT_TIMEOUT, "it is ready", || {
        heard(&socket, &mut all);
        is(all.contains("READY=1\n"), all.clone())
    });
    assert!(ingester.said("ingesting") == 1, "it is not ready before it has begun");
    let (before, _) = all.split_once("READY=1\n").expect("it is there");
    assert!(before.contains("STATUS=not ready: "), "{all}");
    assert!(all.contains("STATUS=ready\n") && all.contains("WATCHDOG=1\n") && !all.contains("STOPPING"), "{all}");
    ingester.drains();
    heard(&socket, &mut all);
    assert_eq!(all.matches("STOPPING=1\n").count(), 1, "{all}");
    assert_eq!(all.matches("READY=1\n").count(), 1, "{all}");
    assert!(all.ends_with("STATUS=draining\nWATCHDOG=1\n"), "{all}");
}
