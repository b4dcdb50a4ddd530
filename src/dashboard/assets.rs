//! The files of the page, which are built into the program.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// The files of the page.
const ASSETS: [(&str, &str, &str); 8] = [
    ("app.js", "text/javascript; charset=utf-8", include_str!("page/app.js")),
    ("values.js", "text/javascript; charset=utf-8", include_str!("page/values.js")),
    ("range.js", "text/javascript; charset=utf-8", include_str!("page/range.js")),
    ("watch.js", "text/javascript; charset=utf-8", include_str!("page/watch.js")),
    ("charts.js", "text/javascript; charset=utf-8", include_str!("page/charts.js")),
    ("app.css", "text/css; charset=utf-8", include_str!("page/app.css")),
    ("uPlot.iife.min.js", "text/javascript; charset=utf-8", include_str!("../../assets/uplot/uPlot.iife.min.js")),
    ("uPlot.min.css", "text/css; charset=utf-8", include_str!("../../assets/uplot/uPlot.min.css")),
];

pub async fn page() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], include_str!("page/index.html"))
}

pub async fn asset(Path(name): Path<String>) -> Response {
    match ASSETS.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, text)) => ([(header::CONTENT_TYPE, *kind)], *text).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
