//! What can be asked: one file for each subject.

mod calls;
mod guard;
mod reconcile;
mod status;
mod trace;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get, post, put};

use super::Asker;
use super::dto::{Facts, Failure, SCHEMA};

/// What handlers share.
#[derive(Clone, Debug)]
struct Context {
    facts: std::sync::Arc<Facts>,
    asker: Asker,
}

pub(super) fn router(facts: Facts, asker: Asker) -> Router {
    Router::new()
        .route("/v1/status", get(status::get))
        .route("/v1/calls", get(calls::get))
        .route("/v1/deny", get(guard::denied).delete(guard::undeny_all))
        .route("/v1/deny/{*source}", delete(guard::undeny))
        .route("/v1/allow", get(guard::allowed))
        .route("/v1/allow/{*prefix}", put(guard::allow).delete(guard::disallow))
        .route("/v1/block", get(guard::blocked))
        .route("/v1/block/{*prefix}", put(guard::block).delete(guard::unblock))
        .route("/v1/trace", get(trace::show).delete(trace::end))
        .route("/v1/trace/after/{number}", get(trace::show_after))
        .route("/v1/trace/source/{address}/{seconds}", put(trace::source))
        .route("/v1/trace/flow/{address}/{seconds}", put(trace::flow))
        .route("/v1/reconcile", post(reconcile::post))
        .fallback(|| async { failure(StatusCode::NOT_FOUND, "there is no such resource") })
        .with_state(Context { facts: std::sync::Arc::new(facts), asker })
}

fn failure(status: StatusCode, error: &str) -> Response {
    (status, Json(Failure { schema: SCHEMA, error: error.to_owned() })).into_response()
}

/// The loop has ended, or answered something else: the daemon is stopping.
fn no_answer() -> Response {
    failure(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping")
}
