//! `GET /v1/calls`: every call that is up.

use axum::extract::State;
use axum::response::{IntoResponse as _, Json, Response};
use sbc_core::command::Command;

use super::super::{Answer, dto};
use super::{Context, no_answer};

pub(super) async fn get(State(context): State<Context>) -> Response {
    match context.asker.ask(Command::Calls).await {
        Some(Answer::Calls(calls)) => Json(dto::Calls::new(&calls, crate::clock::now().wall)).into_response(),
        Some(
            Answer::Status { .. }
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
