//! An import of a sparse and of a dense image over `curl | sha256sum` into the same directory. The two take turns.

use super::rss::Rss;
use super::table::{Row, Table, percentile};
use crate::Result;
use crate::shell::output;
use crate::story::Story;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_LENGTH;
use axum::routing::get;
use crds::storage_volume::StorageVolume;
use futures::stream;
use serde_json::json;
use std::time::{Duration, Instant};

const ROUNDS: usize = 3;
const CHUNK: usize = 256 << 10;
const SPEED: f64 = 0.8;
const GROWTH_MIB: f64 = 16.0;
const HOST: &str = "node-a";

/// An image that is served: its path, its size, and the byte that it consists of.
struct Image(&'static str, u64, u8);

/// What a sparse file of two gibibytes reads as, and one without any hole.
const IMAGES: [Image; 2] = [Image("sparse", 2 << 30, 0), Image("dense", 512 << 20, 0x5a)];

/// Measures.
///
/// # Errors
/// When the image cannot be served or received.
pub async fn measure(table: &mut Table) -> Result<()> {
    let story = Story::alone("bench-import").await;
    let listener = tokio::net::TcpListener::bind((story.run.address(), 0)).await?;
    let base = format!("http://{}", listener.local_addr()?);
    let serve = |router: Router, Image(name, size, byte): Image| {
        router.route(&format!("/{name}.raw"), get(async move || response(size, byte)))
    };
    let router = IMAGES.into_iter().fold(Router::new(), serve);
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    // The pool's directory is there once a volume is.
    story.apply(story.volume_manifest("first", json!({"host": HOST, "capacity": "1Mi"}))).await?;
    story.volume_is("first", "True", "Ready").await;
    for image in IMAGES {
        let title = format!("an import of a {} image of {} MiB", image.0, image.1 >> 20);
        table.add(&title, one(&story, &base, &image).await?);
    }
    server.abort();
    story.end().await;
    Ok(())
}

async fn one(story: &Story, base: &str, Image(name, size, _): &Image) -> Result<Vec<Row>> {
    let url = format!("{base}/{name}.raw");
    let (mut ours, mut direct, mut growth) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (seconds, sum) = curled(story, &url).await?;
        direct.push(seconds);
        let (seconds, mebibytes) = imported(story, &format!("{name}{round}"), &url, &sum).await?;
        ours.push(seconds);
        growth.push(mebibytes);
    }
    let speed = |seconds: &[f64], part| (size >> 20) as f64 / percentile(seconds, part);
    let ratio = |part| speed(&ours, part) / speed(&direct, part);
    Ok(vec![
        Row::told("curl into a file and sha256sum, p50", format!("{:.0} MiB/s", speed(&direct, 0.5))),
        Row::told("import, p50", format!("{:.0} MiB/s", speed(&ours, 0.5))),
        Row::at_least("ratio of the speeds, p50", ratio(0.5), SPEED, ""),
        Row::at_least("ratio of the speeds, p95", ratio(0.95), SPEED, ""),
        Row::at_most("the agent's memory grows at most by", percentile(&growth, 1.0), GROWTH_MIB, " MiB"),
    ])
}

fn response(size: u64, byte: u8) -> axum::http::Response<Body> {
    let chunk = Bytes::from(vec![byte; CHUNK]);
    let chunks = (0..size / CHUNK as u64).map(move |_| Ok::<_, std::io::Error>(chunk.clone()));
    let mut response = axum::http::Response::new(Body::from_stream(stream::iter(chunks)));
    response.headers_mut().insert(CONTENT_LENGTH, size.into());
    response
}

/// Seconds that curl, a file that is on the disk then and a checksum take; and the checksum.
async fn curled(story: &Story, url: &str) -> Result<(f64, String)> {
    let file = story.outside(HOST, &format!("/var/lib/virtfleet/{}/curl", story.namespace));
    let (script, begun) = ("curl -sS \"$1\" | tee \"$2\" | sha256sum && sync \"$2\" && rm \"$2\"", Instant::now());
    let argv = ["sh", "-c", script, "sh", url, &file.to_string_lossy()].map(str::to_owned);
    let said = tokio::task::spawn_blocking(move || output(&argv)).await??;
    Ok((begun.elapsed().as_secs_f64(), said.split_whitespace().next().unwrap_or_default().to_owned()))
}

/// Seconds from the volume's apply until it is ready, and by how many mebibytes the agent grew meanwhile.
async fn imported(story: &Story, name: &str, url: &str, sum: &str) -> Result<(f64, f64)> {
    let pid = story.pid(&format!("agent-{HOST}")).and_then(|pid| u32::try_from(pid).ok()).ok_or("no agent")?;
    let before = Rss::of(pid)?;
    let begun = Instant::now();
    let http = json!({"url": url, "checksum": format!("sha256:{sum}")});
    let spec = json!({"host": HOST, "format": "Raw", "deletionPolicy": "Delete", "source": {"http": http}});
    story.apply(story.volume_manifest(name, spec)).await?;
    let mut most = before;
    let grows = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            most = most.max(Rss::of(pid).unwrap_or(before));
        }
    };
    tokio::select! {
        _ = story.volume_is(name, "True", "Ready") => {}
        () = grows => {}
    }
    let seconds = begun.elapsed().as_secs_f64();
    story.delete::<StorageVolume>(name).await;
    Ok((seconds, most.mebibytes() - before.mebibytes()))
}
