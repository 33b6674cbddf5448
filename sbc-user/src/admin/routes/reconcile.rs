//! `POST /v1/reconcile`: what the dataplane should hold, compared with what it holds, and mended.

use axum::extract::State;
use axum::response::{IntoResponse as _, Json, Response};

use super::super::{Answer, dto};
use super::{Context, no_answer};

pub(super) async fn post(State(context): State<Context>) -> Response {
    match context.asker.reconcile().await {
        Some(Answer::Reconciled(differences)) => Json(dto::Reconciled::new(differences)).into_response(),
        Some(
            Answer::Status { .. }
            | Answer::Calls(_)
            | Answer::Accepted { .. }
            | Answer::Denied(_)
            | Answer::Listed(_)
            | Answer::Changed(_)
            | Answer::Traced(_),
        )
        | None => no_answer(),
    }
}
