//! A wire between clients and a Kafka broker that can be held for one client alone. Its packets stay on the way in both
//! directions, as when a network drops packets, while its connections stay open.

use super::listener::Listener;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// The `client.id` of the client whose traffic can be held: the first bytes of each connection contain it.
pub const HELD: &str = "held-now-and-then";

/// A wire to one broker, which has to advertise [`Wire::address`].
pub struct Wire {
    listener: Listener,
    shared: Arc<Shared>,
}

struct Shared {
    broker: String,
    held: Mutex<bool>,
    released: Condvar,
}

impl Wire {
    /// A wire to the broker at this address, which need not be running yet.
    pub fn start(broker: String) -> Self {
        let shared = Arc::new(Shared { broker, held: Mutex::default(), released: Condvar::new() });
        let mine = shared.clone();
        let listener = Listener::open(move |client| {
            mine.connect(client);
        });
        Self { listener, shared }
    }

    pub fn address(&self) -> String {
        self.listener.address.to_string()
    }

    /// From now on nothing comes through for the client with the id [`HELD`].
    pub fn hold(&self) {
        *self.shared.held.lock().unwrap() = true;
    }

    /// All that was held arrives, and the rest as it comes.
    pub fn release(&self) {
        *self.shared.held.lock().unwrap() = false;
        self.shared.released.notify_all();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.release();
    }
}

impl Shared {
    /// One connection. Whatever fails here is what a broken connection is.
    fn connect(self: &Arc<Self>, mut client: TcpStream) -> Option<()> {
        let mut first = [0; 4096];
        let length = client.read(&mut first).ok()?;
        let can_be_held = first[..length].windows(HELD.len()).any(|bytes| bytes == HELD.as_bytes());
        self.wait(can_be_held);
        let mut broker = TcpStream::connect(&self.broker).ok()?;
        broker.write_all(&first[..length]).ok()?;
        let (from_client, to_broker) = (client.try_clone().ok()?, broker.try_clone().ok()?);
        let shared = self.clone();
        std::thread::spawn(move || shared.carry(from_client, to_broker, can_be_held));
        self.carry(broker, client, can_be_held);
        Some(())
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream, can_be_held: bool) {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(length) = from.read(&mut bytes)
            && length > 0
        {
            self.wait(can_be_held);
            if to.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        self.wait(can_be_held);
        let _ = to.shutdown(Shutdown::Both);
    }

    fn wait(&self, can_be_held: bool) {
        if can_be_held {
            drop(self.released.wait_while(self.held.lock().unwrap(), |held| *held).unwrap());
        }
    }
}
