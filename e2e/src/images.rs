//! Serves the guest's files over HTTP, well and badly: the first part of a path says how. Does I/O.
//!
//! `/guest.qcow2` as a good server does, with ranges; `/truncated/…` announces all and sends half; `/stalled/…` sends half and then nothing;
//! `/slow/…` a mebibyte a second; `/endless/…` says no length and never ends; `/redirect/…` leads to the plain path, `/inward/…` to this server by an address nobody allowed.

use crate::Result;
use crate::run::Run;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as Rest, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::routing::get;
use futures::StreamExt;
use futures::stream;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Serves until it is ended.
///
/// # Errors
/// When the address cannot be opened.
#[tokio::main(flavor = "current_thread")]
pub async fn serve(run: &Run) -> Result<()> {
    let router = Router::new()
        .route(
            "/{file}",
            get(async |State(dir): State<PathBuf>, headers, Rest(file): Rest<String>| {
                answer(&dir, "plain", &file, &headers)
            }),
        )
        .route(
            "/{how}/{file}",
            get(async |State(dir): State<PathBuf>, headers, Rest((how, file)): Rest<(String, String)>| {
                answer(&dir, &how, &file, &headers)
            }),
        )
        .with_state(run.guest.clone());
    let listener = tokio::net::TcpListener::bind((run.address(), 8080)).await?;
    Ok(axum::serve(listener, router).await?)
}

/// A file of `dir`, served as `how` says.
pub fn answer(dir: &Path, how: &str, file: &str, headers: &HeaderMap) -> Response<Body> {
    let status = |code: StatusCode| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = code;
        response
    };
    if !["guest.qcow2", "vmlinuz", "initrd.gz"].contains(&file) {
        return status(StatusCode::NOT_FOUND);
    }
    let Ok(bytes) = fs::read(dir.join(file)).map(Bytes::from) else { return status(StatusCode::INTERNAL_SERVER_ERROR) };
    let etag = format!("\"{}-{}\"", file, bytes.len());
    let half = bytes.slice(..bytes.len() / 2);
    let (code, length, body) = match how {
        "plain" => match range(headers, &etag, bytes.len()) {
            None => (StatusCode::OK, bytes.len(), Body::from(bytes)),
            Some(from) => (StatusCode::PARTIAL_CONTENT, bytes.len() - from, Body::from(bytes.slice(from..))),
        },
        "truncated" => {
            let broken = stream::iter([Ok(half), Err(std::io::Error::other("cut off"))]);
            (StatusCode::OK, bytes.len(), Body::from_stream(broken))
        }
        "stalled" => {
            let hangs = stream::iter([Ok::<_, std::io::Error>(half)]).chain(stream::pending());
            (StatusCode::OK, bytes.len(), Body::from_stream(hangs))
        }
        "slow" => {
            let from = range(headers, &etag, bytes.len());
            let rest = bytes.slice(from.unwrap_or(0)..);
            let length = rest.len();
            let code = if from.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
            (code, length, Body::from_stream(slowly(rest)))
        }
        "endless" => {
            let zeros = Bytes::from(vec![0; 1 << 18]);
            let more = stream::repeat(zeros).then(|zeros| async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Ok::<_, std::io::Error>(zeros)
            });
            return Response::new(Body::from_stream(more));
        }
        "redirect" | "inward" => {
            let target = if how == "redirect" { format!("/{file}") } else { format!("http://127.0.0.1:8080/{file}") };
            let mut response = status(StatusCode::FOUND);
            response.headers_mut().extend(target.parse().ok().map(|target| (header::LOCATION, target)));
            return response;
        }
        _ => return status(StatusCode::NOT_FOUND),
    };
    let response = Response::builder().status(code).header(header::ETAG, etag).header(header::CONTENT_LENGTH, length);
    response.body(body).unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR))
}

/// Where a wanted range begins, when it is of these very bytes.
fn range(headers: &HeaderMap, etag: &str, length: usize) -> Option<usize> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let from = text(header::RANGE)?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()?;
    (text(header::IF_RANGE) == Some(etag) && from < length).then_some(from)
}

fn slowly(bytes: Bytes) -> impl futures::Stream<Item = std::io::Result<Bytes>> {
    stream::unfold(bytes, |mut bytes| async move {
        if bytes.is_empty() {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
        let chunk = bytes.split_to(bytes.len().min(1 << 18));
        Some((Ok(chunk), bytes))
    })
}
