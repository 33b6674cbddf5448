//! `/v1/trace`: what becomes of chosen packets. `PUT` begins a trace, `DELETE` ends it, `GET` shows it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Json, Response};

use super::super::{Answer, dto};
use super::{Context, failure, no_answer};
use crate::trace::{LONGEST, Target, TraceOrder};

pub(super) async fn show(State(context): State<Context>) -> Response {
    order(&context, TraceOrder::Show { after: 0 }).await
}

pub(super) async fn show_after(State(context): State<Context>, Path(after): Path<u64>) -> Response {
    order(&context, TraceOrder::Show { after }).await
}

pub(super) async fn end(State(context): State<Context>) -> Response {
    order(&context, TraceOrder::End).await
}

pub(super) async fn source(
    State(context): State<Context>,
    Path((text, seconds)): Path<(String, u64)>,
) -> Response {
    match text.parse::<IpAddr>() {
        Ok(address) => begin(&context, Target::Source(address), seconds).await,
        Err(_) => failure(StatusCode::BAD_REQUEST, &format!("\"{text}\" is no address")),
    }
}

pub(super) async fn flow(
    State(context): State<Context>,
    Path((text, seconds)): Path<(String, u64)>,
) -> Response {
    match text.parse::<SocketAddr>() {
        Ok(address) => begin(&context, Target::Flow(address), seconds).await,
        Err(_) => failure(StatusCode::BAD_REQUEST, &format!("\"{text}\" is no address and port")),
    }
}

async fn begin(context: &Context, target: Target, seconds: u64) -> Response {
    let lasts = Duration::from_secs(seconds);
    if lasts.is_zero() || lasts > LONGEST {
        let message = format!("a trace lasts 1 to {} seconds", LONGEST.as_secs());
        return failure(StatusCode::BAD_REQUEST, &message);
    }
    order(context, TraceOrder::Begin { target, lasts }).await
}

async fn order(context: &Context, order: TraceOrder) -> Response {
    match context.asker.trace(order).await {
        Some(Answer::Traced(Ok(view))) => Json(dto::Trace::new(&view)).into_response(),
        Some(Answer::Traced(Err(error))) => failure(StatusCode::CONFLICT, &error),
        Some(
            Answer::Status { .. }
            | Answer::Calls(_)
            | Answer::Accepted { .. }
            | Answer::Denied(_)
            | Answer::Listed(_)
            | Answer::Changed(_)
            | Answer::Reconciled(_),
        )
        | None => no_answer(),
    }
}
