//! Where clients connect to something of a test's own that stands before a server.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// A port that serves each connection on a thread of its own. Dropping it closes the port.
pub struct Listener {
    pub address: SocketAddr,
    closed: Arc<AtomicBool>,
}

impl Listener {
    pub fn open(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let closed = Arc::new(AtomicBool::new(false));
        let is_closed = closed.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if is_closed.load(SeqCst) {
                    return;
                }
                let serve = serve.clone();
                std::thread::spawn(move || serve(client));
            }
        });
        Self { address, closed }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.closed.store(true, SeqCst);
        // Wakes the one that listens.
        let _ = TcpStream::connect(self.address);
    }
}
