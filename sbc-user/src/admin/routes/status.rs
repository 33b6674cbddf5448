//! `GET /v1/status`: how it is going.

use axum::extract::State;
use axum::response::{IntoResponse as _, Json, Response};
use sbc_core::command::Command;

use super::super::{Answer, dto};
use super::{Context, no_answer};

pub(super) async fn get(State(context): State<Context>) -> Response {
    match context.asker.ask(Command::Status).await {
        Some(Answer::Status { engine, shell }) => {
            Json(dto::Status::new(&context.facts, &engine, &shell)).into_response()
        }
        Some(
            Answer::Calls(_)
            | Answer::Accepted { .. }
            | Answer::Denied(_)
            | Answer::Listed(_)
            | Answer::Changed(_)
            | Answer::Traced(_)
            | Answer::Reconciled(_),
        )
        | None => no_answer(),
    }
}
