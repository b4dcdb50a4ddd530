//! Where ClickHouse is, and as which user we come: the options, read once, for every request that is made.

use super::{http, password};
use crate::cli::ClickHouseArgs;
use anyhow::Result;
use flows::Failure;
use hyper::{Method, Request};
use url::Url;

/// Shorter values of the address's query are no secrets, and would make holes in every message.
const SHORTEST_SECRET: usize = 6;

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

    /// A failure as it may be shown: without what stands in the query of the address, which servers repeat in their errors.
    pub fn discreet(&self, mut failure: Failure) -> Failure {
        let may_be_secret = |(name, value): &&(String, String)| name != "role" && value.len() >= SHORTEST_SECRET;
        for (_, value) in self.query.iter().filter(may_be_secret) {
            let encoded: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
            for secret in [value, &encoded] {
                if failure.message.contains(secret) {
                    failure.message = failure.message.replace(secret, "…");
                }
            }
        }
        failure
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
            .with_roles(roles.into_iter().map(|(_, role)| role));
        settings.into_iter().fold(client, |client, (name, value)| client.with_setting(name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flows::Class;

    #[test]
    fn no_error_repeats_what_stands_in_the_query_of_the_address() {
        let endpoint = Endpoint {
            url: Url::parse("http://proxy").unwrap(),
            query: [("token", "s3cr3t/99"), ("limit", "5")].map(|(name, value)| (name.into(), value.into())).into(),
            user: String::new(),
            password: String::new(),
        };
        for said in [
            "answered by a proxy, a page titled \"404: /?token=s3cr3t/99\"",
            "answered by a proxy: {\"args\":{\"token\":\"s3cr3t%2F99\"}}",
            "Code: 36. DB::Exception: what is /&token=s3cr3t/99 5 times?",
        ] {
            let failure = Failure { class: Class::Transient, ended: false, message: said.into() };
            let shown = endpoint.discreet(failure).message;
            assert!(!shown.contains("s3cr3t"), "{shown}");
            assert_eq!(shown.contains('5'), said.contains('5'), "{shown}");
        }
    }
}
