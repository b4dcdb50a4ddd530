//! A proxy between `ingest` and ClickHouse that breaks connections and answers on demand.

use super::listener::Listener;
use super::{WAIT_TIMEOUT, eventually, is};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The fate of one insert.
#[derive(Clone, Debug)]
pub enum ProxyFault {
    /// The connection is cut when this part of its body, in percent, has gone to the server.
    CutInRequest(usize),
    /// The server has it all; the connection is cut at once, whatever becomes of it there.
    CutAfterRequest,
    /// The server has answered; nothing of that arrives.
    CutBeforeAnswer,
    /// Half of the answer's head arrives.
    CutInAnswer,
    /// The server has answered; nothing arrives, and the connection stays.
    Silence,
    /// The server gets it only after this time, even if nobody waits for it by then.
    Late(Duration),
    /// The server sees it at once and, on a connection of its own, once more after this time. The client gets the first answer.
    Repeated(Duration),
    /// The server does not see it; this is the answer: a status, a code of ClickHouse, a body.
    Instead(u16, Option<u16>, String),
    /// The server has stored it; this is the answer.
    Though(u16, Option<u16>, String),
}

type Draw = dyn FnMut() -> Option<ProxyFault> + Send;

/// A proxy. Each connection carries one request.
pub struct Proxy {
    listener: Listener,
    shared: Arc<Shared>,
}

struct Shared {
    server: String,
    mishaps: Mutex<VecDeque<ProxyFault>>,
    /// Decides about each insert for which nothing is planned.
    draw: Mutex<Option<Box<Draw>>>,
    /// Questions with this text in them are not passed on; this is their answer.
    refused: Mutex<Option<(String, ProxyFault)>>,
    happened: AtomicUsize,
    /// Inserts that are held back, or are to come once more.
    held: AtomicUsize,
    /// Bodies of inserts with more bytes than this are answered with 413.
    most_bytes: AtomicUsize,
}

impl Proxy {
    /// In front of the server at this URL.
    pub fn start(url: &str) -> Self {
        let shared = Arc::new(Shared {
            server: url.trim_start_matches("http://").to_owned(),
            mishaps: Mutex::default(),
            draw: Mutex::default(),
            refused: Mutex::default(),
            happened: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            most_bytes: AtomicUsize::new(usize::MAX),
        });
        let mine = shared.clone();
        let listener = Listener::open(move |client| {
            mine.serve(client);
        });
        Self { listener, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listener.address)
    }

    /// Has these happen to the next inserts, one each.
    pub fn plan(&self, mishaps: impl IntoIterator<Item = ProxyFault>) {
        self.shared.mishaps.lock().unwrap().extend(mishaps);
    }

    /// Lets this function decide about each insert from now on, besides the planned faults.
    pub fn draw(&self, draw: impl FnMut() -> Option<ProxyFault> + Send + 'static) {
        *self.shared.draw.lock().unwrap() = Some(Box::new(draw));
    }

    /// From now on, larger bodies of inserts are refused, as proxies do.
    pub fn takes_no_more_than(&self, bytes: usize) {
        self.shared.most_bytes.store(bytes, SeqCst);
    }

    /// Has nothing more happen to inserts.
    pub fn forget(&self) {
        self.shared.mishaps.lock().unwrap().clear();
        *self.shared.draw.lock().unwrap() = None;
    }

    /// Answers questions that have this text in them so, and does not pass them on.
    pub fn refuse_questions(&self, with: &str, status: u16, code: u16, text: &str) {
        let answer = ProxyFault::Instead(status, Some(code), text.to_owned());
        *self.shared.refused.lock().unwrap() = Some((with.to_owned(), answer));
    }

    /// Answers statements that have this text in them with a 200 and nothing else, and does not pass them on.
    pub fn swallow_statements(&self, with: &str) {
        *self.shared.refused.lock().unwrap() = Some((with.to_owned(), ProxyFault::Instead(200, None, String::new())));
    }

    /// Passes all questions on again.
    pub fn answer_questions(&self) {
        *self.shared.refused.lock().unwrap() = None;
    }

    /// How many have happened.
    pub fn happened(&self) -> usize {
        self.shared.happened.load(SeqCst)
    }

    /// Waits until an insert has met one more of these.
    #[track_caller]
    pub fn meets(&self, mishaps: impl IntoIterator<Item = ProxyFault>) {
        let happened = self.happened();
        self.plan(mishaps);
        eventually(WAIT_TIMEOUT, "an insert meets what is planned", || is(self.happened() > happened, self.left()));
    }

    /// Waits until every insert that was held back, or was to come once more, has been answered by the server.
    #[track_caller]
    pub fn holds_nothing(&self) {
        let held = || self.shared.held.load(SeqCst);
        eventually(WAIT_TIMEOUT, "nothing is held back any more", || is(held() == 0, held()));
    }

    /// How many are still to happen.
    pub fn left(&self) -> usize {
        self.shared.mishaps.lock().unwrap().len()
    }
}

impl Shared {
    /// The fate of the next insert.
    fn next(&self) -> Option<ProxyFault> {
        let planned = self.mishaps.lock().unwrap().pop_front();
        planned.or_else(|| self.draw.lock().unwrap().as_mut().and_then(|draw| draw()))
    }

    /// Does this after a time, and counts it as held back until it is done.
    fn held_back<T>(&self, time: Duration, act: impl FnOnce() -> T) -> T {
        self.held.fetch_add(1, SeqCst);
        std::thread::sleep(time);
        let done = act();
        self.held.fetch_sub(1, SeqCst);
        done
    }

    /// One request. Whatever fails here is what a broken connection is.
    fn serve(self: &Arc<Self>, mut client: TcpStream) -> Option<()> {
        let (head, rest) = read_head(&mut client)?;
        let is_insert = is_batch(head.lines().next()?);
        if let Some((with, ProxyFault::Instead(status, code, text))) = self.refused.lock().unwrap().clone()
            && !is_insert
        {
            let body = read_body(&mut client, &head, rest.clone()).unwrap_or_else(|| rest.clone());
            if head.contains(&with) || String::from_utf8_lossy(&body).contains(&with) {
                return answer(&mut client, status, code, &text);
            }
            let mut server = TcpStream::connect(&self.server).ok()?;
            server.write_all(head.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes()).ok()?;
            server.write_all(&body).ok()?;
            return pass_on(client, server);
        }
        let fault = if is_insert { self.next() } else { None };
        if is_insert && content_length(&head)? > self.most_bytes.load(SeqCst) {
            read_body(&mut client, &head, rest)?;
            return answer(&mut client, 413, None, "<html><title>413 Request Entity Too Large</title></html>");
        }
        let mut server = TcpStream::connect(&self.server).ok()?;
        let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        let Some(fault) = fault else {
            server.write_all(head.as_bytes()).ok()?;
            server.write_all(&rest).ok()?;
            return pass_on(client, server);
        };
        let body = read_body(&mut client, &head, rest)?;
        self.happened.fetch_add(1, SeqCst);
        match fault {
            ProxyFault::Instead(status, code, text) => answer(&mut client, status, code, &text),
            ProxyFault::CutInRequest(percent) => {
                server.write_all(head.as_bytes()).ok()?;
                server.write_all(&body[..body.len() * percent / 100]).ok()
            }
            ProxyFault::CutAfterRequest => {
                server.write_all(head.as_bytes()).ok()?;
                server.write_all(&body).ok()
            }
            ProxyFault::Late(time) => {
                let said = self.held_back(time, || ask(server, &head, &body))?;
                client.write_all(&said).ok()
            }
            ProxyFault::Repeated(time) => {
                let (mine, head_again, body_again) = (self.clone(), head.clone(), body.clone());
                std::thread::spawn(move || {
                    mine.held_back(time, || ask(TcpStream::connect(&mine.server).ok()?, &head_again, &body_again))
                });
                client.write_all(&ask(server, &head, &body)?).ok()
            }
            told => {
                let said = ask(server, &head, &body)?;
                match told {
                    ProxyFault::CutInAnswer => client.write_all(&said[..said.len() / 2]).ok(),
                    // Until the client loses its patience.
                    ProxyFault::Silence => client.read(&mut [0]).ok().map(drop),
                    ProxyFault::Though(status, code, text) => answer(&mut client, status, code, &text),
                    _ => Some(()),
                }
            }
        }
    }
}

/// Whether a request with this first line is an insert of a batch: into any table but that of the leases.
fn is_batch(line: &str) -> bool {
    let Some((_, rest)) = line.split_once("query=INSERT") else { return false };
    let into = rest.split("%28").next().unwrap_or(rest).split('(').next().unwrap_or(rest);
    !into.contains("leases")
}

/// The server's answer to this request.
fn ask(mut server: TcpStream, head: &str, body: &[u8]) -> Option<Vec<u8>> {
    server.write_all(head.as_bytes()).ok()?;
    server.write_all(body).ok()?;
    let mut said = Vec::new();
    server.read_to_end(&mut said).ok()?;
    Some(said)
}

/// The head of a request, and the bytes after it.
fn read_head(client: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = read.split_off(end + 4);
            return Some((String::from_utf8(read).ok()?, rest));
        }
        let more = client.read(&mut buffer).ok().filter(|more| *more > 0)?;
        read.extend_from_slice(&buffer[..more]);
    }
}

/// The whole body of a request whose length is announced.
fn read_body(client: &mut TcpStream, head: &str, mut body: Vec<u8>) -> Option<Vec<u8>> {
    let length = content_length(head)?;
    let have = body.len();
    body.resize(length, 0);
    client.read_exact(&mut body[have..]).ok()?;
    Some(body)
}

fn content_length(head: &str) -> Option<usize> {
    head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()
}

/// Bytes both ways, until the server has said all.
fn pass_on(client: TcpStream, server: TcpStream) -> Option<()> {
    let (mut from_client, mut to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let (mut from_server, mut to_client) = (server, client);
    let _ = std::io::copy(&mut from_server, &mut to_client);
    to_client.shutdown(Shutdown::Both).ok()
}

fn answer(client: &mut TcpStream, status: u16, code: Option<u16>, text: &str) -> Option<()> {
    let code = code.map_or_else(String::new, |code| format!("X-ClickHouse-Exception-Code: {code}\r\n"));
    let length = text.len();
    let head = format!("HTTP/1.1 {status} As told\r\nConnection: close\r\nContent-Length: {length}\r\n{code}\r\n");
    client.write_all(head.as_bytes()).ok()?;
    client.write_all(text.as_bytes()).ok()?;
    // A reset would overtake the answer.
    client.shutdown(Shutdown::Write).ok()?;
    client.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let _ = client.read(&mut [0]);
    Some(())
}
