//! The routes of the plain port: `/healthz`, `/readyz`, `/metrics`.

use std::fmt::Display;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

use super::metrics::{MEDIA_TYPE, Metrics};

/// `/readyz` answers with what `ready` returns.
pub fn routes<E: Display>(
    ready: impl Fn() -> Result<(), E> + Clone + Send + Sync + 'static,
    metrics: Arc<Metrics>,
) -> Router {
    let readyz = async move || match ready() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    };
    let metrics = async move || ([(CONTENT_TYPE, MEDIA_TYPE)], metrics.encode());
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(async || (StatusCode::NOT_FOUND, "no such path\n"))
}
