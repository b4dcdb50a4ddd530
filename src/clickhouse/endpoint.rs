//! Where ClickHouse is, and as which user we come: the options, read once, for every request that is made.

use super::config::ClickHouseConfig;
use super::{http, password};
use anyhow::Result;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flows::Failure;
use hyper::{Method, Request};
use url::Url;

/// Shorter values of the address's query are no secrets, and would make holes in every message; the same of a password.
const SHORTEST_SECRET: usize = 6;
const SHORTEST_PASSWORD: usize = 4;

/// The longest answer to a question. One window of offsets has 10 MB at most, and a page of rejects about 22 MB.
const RESPONSE_BYTES: usize = 32 * 1024 * 1024;

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
    pub fn new(config: &ClickHouseConfig) -> Result<Self> {
        let mut url = config.url.clone();
        let query = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        url.set_query(None);
        url.set_fragment(None);
        Ok(Self { url, query, user: config.user.clone(), password: password(config)? })
    }

    /// The address, to be shown: without the query, which may hold a token.
    pub fn address(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// A failure as it may be shown: without the password, and what stands in the query of the address. A server, or a proxy, may
    /// repeat both in its errors, in whatever encoding it has them.
    pub fn discreet(&self, mut failure: Failure) -> Failure {
        for secret in self.secrets().flat_map(|secret| spellings(secret, &self.user)) {
            failure.message = failure.message.replace(&secret, "…");
            // A message is cut off somewhere, perhaps in the middle of it.
            let cut = (SHORTEST_SECRET..secret.len()).rev().filter(|&end| secret.is_char_boundary(end));
            if let Some(end) = cut.into_iter().find(|&end| failure.message.ends_with(&secret[..end])) {
                failure.message.truncate(failure.message.len() - end);
                failure.message.push('…');
            }
        }
        failure
    }

    fn secrets(&self) -> impl Iterator<Item = &str> {
        let may_be_secret = |(name, value): &&(String, String)| name != "role" && value.len() >= SHORTEST_SECRET;
        let query = self.query.iter().filter(may_be_secret).map(|(_, value)| value.as_str());
        query.chain(Some(self.password.as_str()).filter(|password| password.len() >= SHORTEST_PASSWORD))
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

    /// A question whether anything answers at the address at all. ClickHouse answers it without a look at the user.
    pub fn ping<B>(&self, body: B) -> Request<B> {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/ping", self.url.path().trim_end_matches('/')));
        Self { url, ..self.clone() }.request(Method::GET, [], body)
    }

    /// The client library, at the same address, as the same user, over connections of the same kind.
    pub fn client(&self) -> clickhouse::Client {
        let (roles, settings): (Vec<_>, Vec<_>) = self.query.iter().cloned().partition(|(name, _)| name == "role");
        let client = clickhouse::Client::with_http_client(http::client(RESPONSE_BYTES))
            .with_url(self.url.as_str())
            .with_user(&self.user)
            .with_password(&self.password)
            .with_roles(roles.into_iter().map(|(_, role)| role));
        settings.into_iter().fold(client, |client, (name, value)| client.with_setting(name, value))
    }
}

/// A secret as it may stand in an answer: as it is, in a URL, in JSON, in HTML, and in the header of a login.
fn spellings(secret: &str, user: &str) -> Vec<String> {
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let percent = form.replace('+', "%20");
    let json = serde_json::Value::from(secret).to_string();
    let html = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let mut all = vec![
        secret.to_owned(),
        lower_case(&form),
        lower_case(&percent),
        form,
        percent,
        json[1..json.len() - 1].to_owned(),
        html,
        BASE64_STANDARD.encode(format!("{user}:{secret}")),
        BASE64_STANDARD.encode(secret),
    ];
    // Longer spellings first, because one may contain another.
    all.sort_by_key(|spelling| std::cmp::Reverse(spelling.len()));
    all.dedup();
    all
}

/// `%2F` → `%2f`
fn lower_case(encoded: &str) -> String {
    let mut parts = encoded.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |done, part| {
        let (digits, rest) = part.split_at(part.len().min(2));
        done + "%" + &digits.to_lowercase() + rest
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flows::ErrorKind;

    #[test]
    fn no_error_repeats_what_stands_in_the_query_of_the_address() {
        let endpoint = Endpoint {
            url: Url::parse("http://proxy").unwrap(),
            query: [("token", "s3cr3t/99"), ("limit", "5")].map(|(name, value)| (name.into(), value.into())).into(),
            user: "writer".into(),
            password: "Pa ss<1>\"q&/=%".into(),
        };
        for said in [
            "answered by a proxy, a page titled \"404: /?token=s3cr3t/99\"",
            "answered by a proxy: {\"args\":{\"token\":\"s3cr3t%2F99\"}}",
            "Code: 36. DB::Exception: what is /&token=s3cr3t/99 5 times?",
            "the same in small letters: s3cr3t%2f99",
            "cut off: s3cr3t/9",
            "key=Pa ss<1>\"q&/=%",
            "key=Pa+ss%3C1%3E%22q%26%2F%3D%25 or Pa%20ss%3c1%3e%22q%26%2f%3d%25",
            "{\"key\":\"Pa ss<1>\\\"q&/=%\"}",
            "<b>Pa ss&lt;1&gt;&quot;q&amp;/=%</b>",
            "Authorization: Basic d3JpdGVyOlBhIHNzPDE+InEmLz0l",
        ] {
            let failure = Failure { kind: ErrorKind::Transient, ended: false, message: said.into() };
            let shown = endpoint.discreet(failure).message;
            let parts = ["s3cr3t", "Pa", "ss", "d3Jp"];
            assert!(parts.iter().all(|part| !shown.replace("pass", "").contains(part)), "{shown}");
            assert_eq!(shown.contains("5 times"), said.contains("5 times"), "{shown}");
        }
    }
}
