//! Fills a volume from an HTTP server: checksum while streaming, into the part; what was received before a kill is gone on with.

mod fetch;
pub mod secret;

use crate::files;
use crate::jobs::{AtWork, Progress};
use crds::storage_volume::Format;
use fetch::{Request, get, root};
use futures::StreamExt;
use ipnet::IpNet;
use plan::storage_volume::image::{self, HEADER};
use plan::storage_volume::secret::Credential;
use plan::storage_volume::{Desired, Source};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, RANGE};
use reqwest::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Why an import, or the making of a file, failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// CamelCase word.
    pub reason: &'static str,
    /// What happened and what to do.
    pub message: String,
}

impl Failure {
    fn new(reason: &'static str, message: impl Into<String>) -> Failure {
        Failure { reason, message: message.into() }
    }

    /// A file system's error.
    pub fn io(act: &str, error: &io::Error) -> Failure {
        let reason = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "NoSpace",
            io::ErrorKind::Unsupported => "AllocationUnsupported",
            _ => "FileError",
        };
        Failure::new(reason, format!("{act}: {error}"))
    }
}

/// What is remembered beside the part.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sidecar {
    /// UID of the cluster whose volume it is.
    pub cluster: String,
    /// Host that receives it.
    pub host: String,
    url: String,
    etag: Option<String>,
}

/// Where an import goes, and from where it may come.
pub struct Place<'a> {
    /// The pool's directory.
    pub dir: &'a Path,
    /// UID of the cluster.
    pub cluster: &'a str,
    /// This host.
    pub host: &'a str,
    /// Networks that are allowed though they are private.
    pub allowed: &'a [IpNet],
    /// What the server is told. It is never written down: neither into the sidecar nor a message.
    pub credential: Option<&'a Credential>,
}

/// A server that sends nothing for this long has stalled.
const STALL: Duration = Duration::from_secs(30);
/// This part of the disk is never filled by an import.
const RESERVE: u64 = 100;

/// Receives the image and makes it the volume. `at_work` is held until nothing of that goes on, also when the caller stops waiting.
///
/// # Errors
/// Why not; whatever was received stays for the next try, unless it is known to be wrong.
pub async fn import(
    place: &Place<'_>,
    want: &Desired,
    source: &Source,
    progress: &Progress,
    at_work: AtWork,
) -> Result<(), Failure> {
    let dir = place.dir;
    let digest = receive(place, want, source, progress).await.inspect_err(|failure| {
        // What was cut off is gone on with. Anything else will not be better the next time, and a part that fills the disk would stop every
        // guest that writes there.
        if ![
            "ImportFailed",
            "ImportStalled",
            "ImportTruncated",
            "ImportUnauthorized",
            "TlsFailed",
            "AddressNotAllowed",
            "FileError",
        ]
        .contains(&failure.reason)
        {
            let _ = files::discard(dir, &want.uid);
        }
    })?;
    if let Some(expected) = &source.sha256
        && *expected != digest
    {
        let message = format!("the server sent sha256:{digest}, spec.source.http.checksum says sha256:{expected}");
        files::discard(dir, &want.uid).map_err(|error| Failure::io("remove the part", &error))?;
        return Err(Failure::new("ChecksumMismatch", message));
    }
    let (dir, want) = (dir.to_owned(), want.clone());
    let finish = tokio::task::spawn_blocking(move || {
        let _at_work = at_work;
        files::finish(&dir, &want).inspect_err(|failure| {
            // What was received whole and cannot be used will not be better the next time.
            if failure.reason != "NoSpace" {
                let _ = files::discard(&dir, &want.uid);
            }
        })
    });
    finish.await.unwrap_or_else(|error| Err(Failure::new("ImportFailed", error.to_string())))
}

/// Streams into the part; gives the SHA-256 of the whole.
async fn receive(place: &Place<'_>, want: &Desired, source: &Source, progress: &Progress) -> Result<String, Failure> {
    let dir = place.dir;
    let broken = |error: io::Error| Failure::io("write the part", &error);
    let (path, sidecar) = (files::part(dir, &want.uid), files::sidecar(dir, &want.uid));
    let known = fs::read(&sidecar).ok().and_then(|text| serde_json::from_slice::<Sidecar>(&text).ok());
    let known = known.filter(|known| known.url == source.url && path.exists()).and_then(|known| known.etag);
    let offset = match &known {
        Some(_) => fs::symlink_metadata(&path).map_err(broken)?.len(),
        None => 0,
    };
    let mut headers = HeaderMap::new();
    // A server must send the bytes that the checksum speaks of.
    headers.insert(ACCEPT_ENCODING, "identity".parse().map_err(|_| Failure::new("ImportFailed", "header"))?);
    if let (Some(etag), true) = (&known, offset > 0)
        && let (Ok(range), Ok(etag)) = (format!("bytes={offset}-").parse(), etag.parse())
    {
        headers.insert(RANGE, range);
        headers.insert(IF_RANGE, etag);
    }
    let request = Request {
        url: &source.url,
        headers,
        credential: place.credential,
        ca_bundle: source.ca_bundle.as_deref(),
        allowed: place.allowed,
    };
    let response = get(request).await?;
    let resumes = response.status() == StatusCode::PARTIAL_CONTENT;
    if resumes && !begins_at(&response, offset) {
        // What is there and what came do not belong together: the next try begins anew.
        files::discard(dir, &want.uid).map_err(broken)?;
        let message = format!("the server was asked to go on after {offset} bytes and sent another part");
        return Err(Failure::new("ImportFailed", message));
    }
    let mut hash = Sha256::new();
    let (mut file, start) = if resumes {
        let mut file = files::open_part(&path, false).map_err(broken)?;
        hash_all(&mut file, &mut hash).map_err(broken)?;
        (file, offset)
    } else {
        files::discard(dir, &want.uid).map_err(broken)?;
        (files::open_part(&path, true).map_err(broken)?, 0)
    };
    let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
    // A weak ETag promises no equal bytes.
    let etag = etag.filter(|etag| !etag.starts_with("W/")).map(str::to_owned);
    let (cluster, host) = (place.cluster.to_owned(), place.host.to_owned());
    let note = serde_json::to_vec(&Sidecar { cluster, host, url: source.url.clone(), etag });
    fs::write(&sidecar, note.unwrap_or_default()).map_err(broken)?;
    let length = response.content_length();
    // What has no length has no end as far as anybody knows, and zeros take no room: it is counted as if they did.
    let mut left = free(dir)?;
    if let Some(length) = length {
        room(want, start, length, left)?;
    }
    progress.received.store(start, Ordering::Relaxed);
    progress.total.store(length.map_or(0, |length| start + length), Ordering::Relaxed);

    let (mut received, mut head) = (start, Vec::new());
    let mut body = response.bytes_stream();
    loop {
        let chunk = match tokio::time::timeout(STALL, body.next()).await {
            Err(_) => {
                return Err(Failure::new(
                    "ImportStalled",
                    format!("the server sent nothing for {} s, after {received} bytes", STALL.as_secs()),
                ));
            }
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                return Err(Failure::new(
                    "ImportTruncated",
                    format!("the connection broke after {received} bytes: {}", root(&error)),
                ));
            }
            Ok(Some(Ok(chunk))) => chunk,
        };
        room(want, received, chunk.len() as u64, left)?;
        left = if length.is_some() { free(dir)? } else { left.min(free(dir)?).saturating_sub(chunk.len() as u64) };
        if start == 0 {
            begins_well(want, &mut head, &chunk)?;
        }
        hash.update(&chunk);
        let write = if want.full { file.write_all(&chunk) } else { files::write_thinly(&mut file, &chunk) };
        write.map_err(broken)?;
        received += chunk.len() as u64;
        progress.received.store(received, Ordering::Relaxed);
    }
    // Zeros at the end have only been passed over.
    file.set_len(received).map_err(broken)?;
    if let Some(length) = length.filter(|length| start + length != received) {
        let message = format!("the server announced {} bytes and sent {received}", start + length);
        return Err(Failure::new("ImportTruncated", message));
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether the first bytes are those of an image that can be used; the rest of one that cannot is not waited for.
fn begins_well(want: &Desired, head: &mut Vec<u8>, chunk: &[u8]) -> Result<(), Failure> {
    if head.len() >= HEADER {
        return Ok(());
    }
    head.extend(&chunk[..chunk.len().min(HEADER - head.len())]);
    if head.len() < HEADER {
        return Ok(());
    }
    let image = image::read(head, head.len() as u64, want.format);
    image.map(drop).map_err(|unfit| Failure::new(unfit.reason, unfit.message))
}

/// Bytes that may be written into the directory.
fn free(dir: &Path) -> Result<u64, Failure> {
    let disk = rustix::fs::statvfs(dir).map_err(|error| Failure::io("look for room", &error.into()))?;
    let (free, reserve) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize / RESERVE);
    Ok(free.saturating_sub(reserve))
}

/// Whether so much more may be written: an image can be larger than it says, or have no end.
fn room(want: &Desired, received: u64, more: u64, free: u64) -> Result<(), Failure> {
    if let (Format::Raw, Some(capacity)) = (want.format, want.capacity)
        && received + more > capacity
    {
        let message = format!("the image is larger than spec.capacity, which is {capacity} bytes");
        return Err(Failure::new("CapacityTooSmall", message));
    }
    if more > free {
        let message =
            format!("{more} more bytes are needed, {free} may be taken: a hundredth of the disk is left to the guests");
        return Err(Failure::new("NoSpace", message));
    }
    Ok(())
}

/// Whether a part of the image that a server sent is the one that begins there.
fn begins_at(response: &Response, offset: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let begin = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse::<u64>().ok());
    offset > 0 && begin == Some(offset)
}

fn hash_all(file: &mut fs::File, hash: &mut Sha256) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            count => hash.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::sync::oneshot;

    /// Answers one request with a part of `image` that begins at `begin`.
    async fn served(begin: usize, image: &'static [u8]) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/image", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            let (body, last) = (&image[begin..], image.len() - 1);
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\nETag: \"x\"\r\nContent-Length: {}\r\nContent-Range: bytes {begin}-{last}/{}\r\n\r\n",
                body.len(),
                image.len()
            );
            stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        });
        url
    }

    #[tokio::test]
    async fn what_does_not_go_on_where_the_part_ends_is_not_put_behind_it() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        for (begin, whole) in [(4, true), (0, false), (6, false)] {
            let dir = tempfile::tempdir().unwrap();
            let url = served(begin, b"12345678").await;
            let note = Sidecar { cluster: "c".into(), host: "h".into(), url: url.clone(), etag: Some("\"x\"".into()) };
            fs::write(files::part(dir.path(), "u"), "1234").unwrap();
            fs::write(files::sidecar(dir.path(), "u"), serde_json::to_vec(&note).unwrap()).unwrap();
            let source = Source { url, sha256: None, secret: None, ca_bundle: None };
            let want = Desired {
                uid: "u".into(),
                file: "shop.v-u.raw".into(),
                format: crds::storage_volume::Format::Raw,
                capacity: None,
                full: false,
                source: Some(source.clone()),
            };
            let allowed = ["127.0.0.1/32".parse().unwrap()];
            let place = Place { dir: dir.path(), cluster: "c", host: "h", allowed: &allowed, credential: None };
            let result = import(&place, &want, &source, &Progress::default(), oneshot::channel().0).await;
            assert_eq!(result.is_ok(), whole, "{begin}: {result:?}");
            let file = fs::read(dir.path().join(&want.file)).ok();
            assert_eq!(file.as_deref(), whole.then_some(&b"12345678"[..]));
            assert!(!files::part(dir.path(), "u").exists());
        }
    }

    #[test]
    fn an_image_is_known_by_its_first_bytes_however_they_come() {
        let want = |format| Desired {
            uid: "u".into(),
            file: String::new(),
            format,
            capacity: Some(1 << 20),
            full: false,
            source: None,
        };
        let fed = |format, chunks: &[&[u8]]| {
            let mut head = Vec::new();
            chunks.iter().try_for_each(|chunk| begins_well(&want(format), &mut head, chunk))
        };
        let zeros = [0; HEADER];
        assert!(fed(Format::Raw, &[&zeros]).is_ok() && fed(Format::Qcow2, &[&zeros[..9]]).is_ok());
        for chunks in [&[&zeros[..]][..], &[&zeros[..9], &zeros[..]][..]] {
            assert_eq!(fed(Format::Qcow2, chunks).unwrap_err().reason, "WrongFormat");
        }
        assert_eq!(room(&want(Format::Raw), 1 << 20, 1, u64::MAX).unwrap_err().reason, "CapacityTooSmall");
        assert_eq!(room(&want(Format::Qcow2), 1 << 20, 2, 1).unwrap_err().reason, "NoSpace");
    }
}
