//! `/v1/deny`, `/v1/allow`, `/v1/block`: the guard's lists. `GET` lists, `PUT` adds, `DELETE` removes.

use std::net::IpAddr;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Json, Response};
use sbc_core::command::{Command, GuardOrder};
use sbc_core::config::Prefix;
use sbc_core::guard::{ListKind, ListRefusal, Source};

use super::super::dto::SCHEMA;
use super::super::{Answer, dto};
use super::{Context, failure, no_answer};
use crate::config::parse_prefix;

pub(super) async fn denied(State(context): State<Context>) -> Response {
    ask(&context, GuardOrder::Denied, "").await
}

pub(super) async fn undeny_all(State(context): State<Context>) -> Response {
    ask(&context, GuardOrder::UndenyAll, "").await
}

pub(super) async fn undeny(State(context): State<Context>, Path(text): Path<String>) -> Response {
    let (address, expected) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text.as_str(), None),
    };
    let source = address.parse::<IpAddr>().ok().map(Source::of);
    let Some(source) =
        source.filter(|source| expected.is_none_or(|length| length.parse() == Ok(source.prefix().len)))
    else {
        let message = format!("\"{text}\" is neither an IPv4 address nor an IPv6 address or /64");
        return failure(StatusCode::BAD_REQUEST, &message);
    };
    match context.asker.ask(Command::Guard(GuardOrder::Undeny(source))).await {
        Some(Answer::Changed(Ok(0))) => failure(StatusCode::NOT_FOUND, &format!("{source} is not denied")),
        answer => reply(answer, &text),
    }
}

pub(super) async fn allowed(State(context): State<Context>) -> Response {
    ask(&context, GuardOrder::List(ListKind::Allow), "").await
}

pub(super) async fn allow(State(context): State<Context>, Path(text): Path<String>) -> Response {
    change(&context, &text, |prefix| GuardOrder::Add(ListKind::Allow, prefix)).await
}

pub(super) async fn disallow(State(context): State<Context>, Path(text): Path<String>) -> Response {
    change(&context, &text, |prefix| GuardOrder::Remove(ListKind::Allow, prefix)).await
}

pub(super) async fn blocked(State(context): State<Context>) -> Response {
    ask(&context, GuardOrder::List(ListKind::Block), "").await
}

pub(super) async fn block(State(context): State<Context>, Path(text): Path<String>) -> Response {
    change(&context, &text, |prefix| GuardOrder::Add(ListKind::Block, prefix)).await
}

pub(super) async fn unblock(State(context): State<Context>, Path(text): Path<String>) -> Response {
    change(&context, &text, |prefix| GuardOrder::Remove(ListKind::Block, prefix)).await
}

async fn change(context: &Context, text: &str, order: impl FnOnce(Prefix) -> GuardOrder) -> Response {
    match parse_prefix(text) {
        Ok(prefix) => ask(context, order(prefix), text).await,
        Err(message) => failure(StatusCode::BAD_REQUEST, &message),
    }
}

async fn ask(context: &Context, order: GuardOrder, subject: &str) -> Response {
    reply(context.asker.ask(Command::Guard(order)).await, subject)
}

fn reply(answer: Option<Answer>, subject: &str) -> Response {
    match answer {
        Some(Answer::Denied(denied)) => Json(dto::DenyList::new(&denied)).into_response(),
        Some(Answer::Listed(prefixes)) => Json(dto::Prefixes::new(&prefixes)).into_response(),
        Some(Answer::Changed(Ok(changed))) => Json(dto::Changed { schema: SCHEMA, changed }).into_response(),
        Some(Answer::Changed(Err(refusal))) => {
            let status = match refusal {
                ListRefusal::Full { .. } | ListRefusal::Present => StatusCode::CONFLICT,
                ListRefusal::Absent => StatusCode::NOT_FOUND,
            };
            failure(status, &format!("{subject}: {refusal}"))
        }
        Some(
            Answer::Status { .. }
            | Answer::Calls(_)
            | Answer::Accepted { .. }
            | Answer::Traced(_)
            | Answer::Reconciled(_),
        )
        | None => no_answer(),
    }
}
