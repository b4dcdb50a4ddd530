//! The HTTP client for all questions and inserts to ClickHouse.

use super::bounded::Bounded;
use bytes::Bytes;
use hyper::body::Body;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use std::time::Duration;

/// ClickHouse closes idle connections after 3 s by default (older versions) and up: reuse only younger ones.
const IDLE: Duration = Duration::from_secs(2);

pub type Client<B> = legacy::Client<Bounded<HttpsConnector<HttpConnector>>, B>;

/// A client for http and https. Each answer may have `bytes` bytes: one that is longer is an error.
pub fn client<B: Body<Data = Bytes> + Send>(bytes: usize) -> Client<B> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(super::RESPONSE_TIMEOUT));
    let https = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().wrap_connector(tcp);
    legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        // A request that fails on a connection that just closed is ours to judge, not to be sent again unasked.
        .retry_canceled_requests(false)
        .build(Bounded::new(https, bytes))
}
