//! Asking a running daemon over its socket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::dto::Failure;

/// A daemon that does not answer within this is not well.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest answer that is read: some 100,000 calls.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// Asks for one resource.
///
/// # Errors
/// Nobody listens, the socket is not ours to open, no answer, or not the expected one; in words for an operator.
pub async fn get<T: DeserializeOwned>(socket: &Path, resource: &str) -> anyhow::Result<T> {
    order(socket, Method::GET, resource).await
}

/// Asks for one resource, or for a change of it.
///
/// # Errors
/// As [`get`].
pub async fn order<T: DeserializeOwned>(socket: &Path, method: Method, resource: &str) -> anyhow::Result<T> {
    match tokio::time::timeout(PATIENCE, request(socket, method, resource)).await {
        Ok(answer) => answer,
        Err(_) => bail!("the daemon on {} does not answer", socket.display()),
    }
}

async fn request<T: DeserializeOwned>(socket: &Path, method: Method, resource: &str) -> anyhow::Result<T> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        format!("cannot reach sbcd on {} (is it running? are you root or in group sbc?)", socket.display())
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request =
        Request::builder().method(method).uri(resource).header("host", "sbcd").body(Empty::<Bytes>::new())?;
    let exchange = async {
        let answer = sender.send_request(request).await.context("the daemon closed the connection")?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        if !status.is_success() {
            match serde_json::from_slice::<Failure>(&body) {
                Ok(failure) => bail!("{}", failure.error),
                Err(_) => bail!("the daemon answered {status}"),
            }
        }
        serde_json::from_slice(&body).context("the daemon's answer is not of this sbcctl's version")
    };
    // The connection is driven as long as the exchange lasts.
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        driven = connection => {
            driven.context("connection to the daemon")?;
            exchange.await
        }
    }
}
