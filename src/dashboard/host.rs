//! Who may call us by which name: a page of somebody else, whose name was made to lead here (DNS rebinding), may not.

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;

/// Refuses requests whose Host is neither an address, nor localhost, nor one of `names`.
pub async fn check(State(names): State<Arc<Vec<String>>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    match host {
        Some(host) if is_ours(host, &names) => next.run(request).await,
        _ => (StatusCode::FORBIDDEN, "this host name is not served: see --allow-host\n").into_response(),
    }
}

/// An address cannot be made to lead elsewhere, so every one is fine.
fn is_ours(host: &str, names: &[String]) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::is_ours;

    #[test]
    fn only_our_own_names_are_served() {
        let names = ["dash.example".to_owned()];
        for host in ["localhost:3000", "LOCALHOST", "127.0.0.1:3000", "[::1]:3000", "10.0.0.7", "dash.example:80"] {
            assert!(is_ours(host, &names), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:3000", "", ":3000", "dash.example.evil:80"] {
            assert!(!is_ours(host, &names), "{host}");
        }
    }
}
