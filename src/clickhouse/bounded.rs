//! Connections with a size limit on each answer, so that a server cannot fill our memory.

use hyper::Uri;
use hyper::rt;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_service::Service;

/// Connects as `C` does, and reads no more than `bytes` after anything was sent.
#[derive(Clone)]
pub struct Bounded<C> {
    connector: C,
    bytes: usize,
}

impl<C> Bounded<C> {
    /// Each answer, its headers included, may have `bytes` bytes.
    pub fn new(connector: C, bytes: usize) -> Self {
        Self { connector, bytes }
    }
}

impl<C> Service<Uri> for Bounded<C>
where
    C: Service<Uri>,
    C::Response: rt::Read + rt::Write + Connection + Unpin,
    C::Future: Send + 'static,
{
    type Response = TokioIo<Stream<C::Response>>;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, bytes) = (self.connector.call(uri), self.bytes);
        Box::pin(async move {
            let stream = TokioIo::new(connecting.await?);
            Ok(TokioIo::new(Stream { stream, bytes, left: bytes }))
        })
    }
}

/// A connection, and what may still be read of the answer. Requests follow one another on it: with the next one that is written,
/// the next answer begins.
pub struct Stream<T> {
    stream: TokioIo<T>,
    bytes: usize,
    left: usize,
}

impl<T: rt::Read + Unpin> AsyncRead for Stream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        let read = buf.filled().len() - before;
        match self.left.checked_sub(read) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Err(io::Error::other(TooLong(self.bytes)))),
        }
        Poll::Ready(outcome)
    }
}

impl<T: rt::Write + Unpin> AsyncWrite for Stream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.left = self.bytes;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.left = self.bytes;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<T: Connection> Connection for Stream<T> {
    fn connected(&self) -> Connected {
        self.stream.inner().connected()
    }
}

/// Why a connection was given up.
#[derive(Debug, thiserror::Error)]
#[error("an answer of more than {} kB, which ends here: is this ClickHouse?", .0 / 1024)]
struct TooLong(usize);

#[cfg(test)]
mod tests {
    use super::super::{failure, http};
    use bytes::Bytes;
    use http_body_util::{BodyExt, Empty};
    use hyper::Request;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Answers each request on one connection: a head, and then zeros, as many as `bodies` says.
    fn server(bodies: Vec<usize>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for body in bodies {
                let _ = stream.read(&mut [0; 4096]).unwrap();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\n\r\n");
                let _ = stream.write_all(head.as_bytes());
                let _ = (0..body / 1000).try_for_each(|_| stream.write_all(&[b'0'; 1000]));
            }
        });
        address
    }

    #[tokio::test]
    async fn an_answer_has_an_end_and_the_next_one_begins_at_nothing() {
        // Twice the same connection: together they are larger than one may be.
        let (address, client) =
            (server(vec![60_000, 60_000, usize::MAX / 2]), http::client::<Empty<Bytes>>(100 * 1024));
        let ask = || {
            let request = Request::get(&address).body(Empty::new()).unwrap();
            async { client.request(request).await.unwrap().into_body().collect().await }
        };
        for _ in 0..2 {
            assert_eq!(ask().await.unwrap().to_bytes().len(), 60_000);
        }
        let said = failure::describe(&ask().await.unwrap_err());
        assert!(said.contains("an answer of more than 100 kB"), "{said}");
    }
}
