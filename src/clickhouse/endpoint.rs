//! Where ClickHouse is, and as which user we come: the options, read once, for every request that is made.

use super::{http, password};
use crate::cli::ClickHouseArgs;
use anyhow::Result;
use hyper::{Method, Request};
use url::Url;

/// The longest answer to a question. One window of offsets has 10 MB at most, and a page of rejects about 22 MB.
const ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// The address, and what goes along with each request: the query of `--clickhouse-url`, the user and the password.
#[derive(Clone)]
pub struct Endpoint {
    /// Without its query.
    url: Url,
    query: Vec<(String, String)>,
    user: String,
    password: String,
}

impl Endpoint {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// When the password's file cannot be read.
    pub fn new(args: &ClickHouseArgs) -> Result<Self> {
        let mut url = args.clickhouse_url.clone();
        let query = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        url.set_query(None);
        url.set_fragment(None);
        Ok(Self { url, query, user: args.clickhouse_user.clone(), password: password(args)? })
    }

    /// The address, to be shown: without the query, which may hold a token.
    pub fn address(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// A request with these parameters beside those of the address.
    pub fn request<'p, B>(
        &self,
        method: Method,
        parameters: impl IntoIterator<Item = (&'p str, &'p str)>,
        body: B,
    ) -> Request<B> {
        let mut url = self.url.clone();
        url.query_pairs_mut().extend_pairs(&self.query).extend_pairs(parameters);
        Request::builder()
            .method(method)
            .uri(url.as_str())
            .header("X-ClickHouse-User", &self.user)
            .header("X-ClickHouse-Key", &self.password)
            .body(body)
            .expect("a URL and headers that were checked when the arguments were read")
    }

    /// The client library, at the same address, as the same user, over connections of the same kind.
    pub fn client(&self) -> clickhouse::Client {
        let (roles, settings): (Vec<_>, Vec<_>) = self.query.iter().cloned().partition(|(name, _)| name == "role");
        let client = clickhouse::Client::with_http_client(http::client(ANSWER_BYTES))
            .with_url(self.url.as_str())
            .with_user(&self.user)
            .with_password(&self.password)
            .with_roles(roles.into_iter().map(|(_, role)| role))
            .with_validation(true);
        settings.into_iter().fold(client, |client, (name, value)| client.with_setting(name, value))
    }
}
