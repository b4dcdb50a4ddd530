//! On whose behalf a browser asks: a page of another site, or one whose name was made to lead here (DNS rebinding), gets no answer.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;

/// The names by which a server may be called.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// Beside addresses and localhost.
    names: Vec<String>,
    /// Whether names that the public DNS cannot hold are fine too.
    internal: bool,
}

/// Names that the public DNS cannot have: Kubernetes' services, and the domain that is reserved for private networks.
const INTERNAL: [&str; 3] = [".svc", ".svc.cluster.local", ".internal"];

impl Origins {
    /// For pages, which people open by an address, as localhost, or by one of `names`.
    pub fn of_pages(names: Vec<String>) -> Self {
        Self { names, internal: false }
    }

    /// The rules for requests of programs. A Prometheus calls a container `consumer:9464` or `ingest.shop.svc:9464`,
    /// and a health check may send no name at all. Both are safe: nobody can register such a name, and every browser
    /// sends one.
    pub fn of_programs(names: Vec<String>) -> Self {
        Self { names, internal: true }
    }

    /// Why a request is refused, if it is.
    fn objection(&self, path: &str, headers: &HeaderMap) -> Option<&'static str> {
        let host = text(headers, "host");
        if !host.map_or(self.internal, |host| self.is_ours(host)) {
            return Some("this host name is not served: see --allow-host\n");
        }
        if is_of_another_site(path, host, headers) {
            return Some("pages of other sites are not served\n");
        }
        None
    }

    /// An address cannot be made to lead elsewhere, so every one is fine.
    fn is_ours(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
            _ => host,
        };
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
            || (self.internal && is_internal(name))
    }
}

fn is_internal(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    !name.is_empty() && (!name.contains('.') || INTERNAL.iter().any(|domain| name.ends_with(domain)))
}

/// Whether another site's page triggered the request. A link to a page of ours is allowed; a query to ClickHouse is
/// only for our own pages.
fn is_of_another_site(path: &str, host: Option<&str>, headers: &HeaderMap) -> bool {
    let says = |name, value| text(headers, name) == Some(value);
    if says("sec-fetch-site", "cross-site") || says("sec-fetch-site", "same-site") {
        let followed = says("sec-fetch-mode", "navigate") && says("sec-fetch-dest", "document");
        return !followed || path.starts_with("/api/");
    }
    // Older browsers name the page's origin where they name anything.
    let origin = text(headers, "origin");
    origin.is_some_and(|origin| origin.split_once("://").map(|(_, authority)| authority) != host)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    // A value that is not text is not a name of ours either.
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

/// Refuses requests that a browser makes for others.
pub async fn check(State(origins): State<Arc<Origins>>, request: Request, next: Next) -> Response {
    match origins.objection(request.uri().path(), request.headers()) {
        Some(why) => (StatusCode::FORBIDDEN, why).into_response(),
        None => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    #[test]
    fn only_our_own_names_are_served() {
        let names = || vec!["dash.example".to_owned()];
        let (pages, programs) = (Origins::of_pages(names()), Origins::of_programs(names()));
        for host in ["localhost:3000", "LOCALHOST", "127.0.0.1:3000", "[::1]:3000", "10.0.0.7", "dash.example:80"] {
            assert!(pages.is_ours(host) && programs.is_ours(host), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example:3000", "", ":3000", "dash.example.evil:80", "svc.evil.example"]
        {
            assert!(!pages.is_ours(host) && !programs.is_ours(host), "{host}");
        }
        for host in ["consumer:9464", "ingest.shop.svc:9464", "ingest.shop.svc.cluster.local", "Host.Docker.Internal:1"]
        {
            assert!(!pages.is_ours(host) && programs.is_ours(host), "{host}");
        }
    }

    #[test]
    fn a_request_without_a_host_is_a_programs() {
        let none = HeaderMap::new();
        assert_eq!(Origins::of_programs(Vec::new()).objection("/metrics", &none), None);
        assert!(Origins::of_pages(Vec::new()).objection("/", &none).is_some());
    }

    fn is_refused(path: &str, headers: &[(&'static str, &'static str)]) -> bool {
        let all = [("host", "localhost:3000")].iter().chain(headers);
        let headers = all.map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
        Origins::of_pages(Vec::new()).objection(path, &headers).is_some()
    }

    #[test]
    fn pages_of_other_sites_get_nothing_but_links_may_be_followed() {
        let panel = "/api/dashboards/clickstream/panels/1";
        for site in ["cross-site", "same-site"] {
            assert!(is_refused(panel, &[("sec-fetch-site", site), ("sec-fetch-mode", "no-cors")]));
            let link = [("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
            assert!(!is_refused("/d/pipeline", &link), "a link");
            assert!(is_refused(panel, &link), "a link that asks ClickHouse");
            let frame = [("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
            assert!(is_refused("/", &frame), "a frame");
        }
        for site in ["same-origin", "none"] {
            assert!(!is_refused(panel, &[("sec-fetch-site", site), ("sec-fetch-mode", "cors")]));
        }
        assert!(!is_refused(panel, &[]), "a program");
    }

    #[test]
    fn a_browser_that_names_another_origin_is_refused() {
        assert!(is_refused("/", &[("origin", "https://evil.example")]));
        assert!(is_refused("/", &[("origin", "null")]));
        assert!(!is_refused("/", &[("origin", "http://localhost:3000")]));
    }
}
