//! Files of a folder: `serve`.
//!
//! `tower_http` reads ranges, conditions and what encodings a client takes; what may be read at all is decided here, by
//! [`Contained`], on the path as the file system has it once every link was followed: it must lie below the folder, and
//! have no name that begins with a dot (but `.well-known`, RFC 8615). Only whoever may write into the folder could put
//! another file there between the look and the reading.
//!
//! A file is open until its answer has been taken, or given up. How many are, is bounded by places (`server.max_open_files`):
//! over HTTP/2 a client has as many answers under way as it has streams, and opens no window for any.
//!
//! Reading happens on the runtime's threads for blocking work, a piece at a time: a slow disk holds no worker up.

use std::{
    borrow::Cow,
    fs,
    future::Future,
    io::{self, ErrorKind, SeekFrom},
    path::{Component, Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, uri::PathAndQuery};
use http_body_util::Empty;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rustix::io::Errno;
use tokio::{
    io::{AsyncRead, AsyncSeek, ReadBuf},
    task::spawn_blocking,
    time::timeout,
};
use tower_http::services::fs::{
    Backend, DefaultServeDirFallback, File, Metadata, ServeDir, ServeFileSystemResponseBody,
};

use super::{answers::Asked, body::ProxyBody, error::ProxyError};
use crate::{
    config::{Files, Rewrite},
    policy::{self, marks::Marks, path::NormalPath, routes::NoRoute},
};

/// A disk that takes longer is as good as gone.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// The one name with a dot in front that is meant to be found (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// Beside a file may lie what it comes to when it is compressed.
const COMPRESSED: [&str; 2] = [".br", ".gz"];

/// A folder's own file.
const INDEX: &str = "index.html";

/// What of a request says whether a file is wanted, if it has changed, and how it may be encoded.
const ASKS: [HeaderName; 5] = [
    header::ACCEPT_ENCODING,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_UNMODIFIED_SINCE,
];

/// Answers with a file, or says that there is none.
pub(super) async fn serve(
    files: &Files,
    rewrite: &Rewrite,
    asked: &Asked<'_>,
) -> Result<Response<ProxyBody>, ProxyError> {
    if !matches!(*asked.method, Method::GET | Method::HEAD) {
        let allow = HeaderValue::from_static("GET, HEAD");
        return Err(NoRoute::Method { allow }.into());
    }
    // The folder itself, asked for without the slash that its page's links begin at.
    if asked.leaves.as_str() == "/" && !asked.came.as_str().ends_with('/') {
        return Ok(to_folder(asked));
    }
    if other_names(asked.came.as_str()).any(|name| (asked.is_guarded)(&name)) {
        return Err(ProxyError::NoFile);
    }
    // Before one is opened; it goes with the body.
    let Ok(place) = Arc::clone(asked.open_files).try_acquire_owned() else {
        return Err(ProxyError::TooManyFiles);
    };
    let is_guarded = |below: &Path| {
        let name = name_of(below, rewrite, asked.came);
        name.is_some_and(|name| (asked.is_guarded)(&name) || other_names(&name).any(|name| (asked.is_guarded)(&name)))
    };
    let found = match look(files, asked, asked.leaves.target().clone(), &is_guarded).await? {
        None => match &files.fallback {
            // An application's own paths; what a page loads is there, or it is not.
            Some(page) if policy::is_navigation(&Method::GET, asked.headers, Marks::of(asked.headers)) => {
                let page = PathAndQuery::try_from(format!("/{page}")).map_err(|_| ProxyError::NoFile)?;
                look(files, asked, page, &is_guarded).await?
            }
            Some(_) | None => None,
        },
        found => found,
    };
    let mut response = found.ok_or(ProxyError::NoFile)?;
    if response.status().is_redirection() && response.headers().contains_key(header::LOCATION) {
        return Ok(to_folder(asked));
    }
    if response.status() == StatusCode::NOT_MODIFIED {
        // What its 200 says (RFC 9110, 15.4.5).
        let encoded = HeaderValue::from_static("accept-encoding");
        response.headers_mut().entry(header::VARY).or_insert(encoded);
    }
    name_charset(response.headers_mut());
    Ok(response.map(|file| ProxyBody::file(file, place)))
}

/// What a file is called besides `path`, in words that a route may be for: what it is compressed from, its folder.
fn other_names(path: &str) -> impl Iterator<Item = String> {
    let whole = of_folder(path);
    let plain = COMPRESSED.iter().find_map(|ending| whole.strip_suffix(ending));
    let plain = plain.unwrap_or(&whole).to_owned();
    let folder = plain
        .strip_suffix(INDEX)
        .filter(|folder| folder.ends_with('/'))
        .map(str::to_owned);
    let path = path.to_owned();
    [Some(whole.into_owned()), Some(plain), folder]
        .into_iter()
        .flatten()
        .filter(move |name| *name != path)
}

/// The file that is sent for `path`, if it is a folder's.
fn of_folder(path: &str) -> Cow<'_, str> {
    if path.ends_with('/') {
        format!("{path}{INDEX}").into()
    } else {
        path.into()
    }
}

/// Whether a file, by its path below the folder, is for fewer.
type IsGuarded<'g> = &'g (dyn Fn(&Path) -> bool + Sync);

/// What somebody who asks as for `came` asks for to get what lies there `below` the folder. `None`: that way leads elsewhere.
fn name_of(below: &Path, rewrite: &Rewrite, came: &NormalPath) -> Option<String> {
    let segments = came.as_str().split_inclusive('/').take(rewrite.strip + 1);
    let mut name: String = segments.collect();
    let mut path = String::new();
    for component in below.components() {
        path.push('/');
        path.extend(percent_encode(component.as_os_str().as_encoded_bytes(), IN_SEGMENT));
    }
    let path = path.strip_prefix(&rewrite.add)?;
    name.truncate(name.trim_end_matches('/').len());
    name.push_str(path);
    Some(name)
}

/// What a segment of a path may hold as it is.
const IN_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Looks for one file; `None` if it isn't there, or not to be seen.
async fn look(
    files: &Files,
    asked: &Asked<'_>,
    target: PathAndQuery,
    is_guarded: IsGuarded<'_>,
) -> Result<Option<Response<ServeFileSystemResponseBody>>, ProxyError> {
    let mut request = Request::new(Empty::<Bytes>::new());
    request.method_mut().clone_from(asked.method);
    *request.uri_mut() = target.into();
    for name in ASKS {
        for value in asked.headers.get_all(&name) {
            request.headers_mut().append(name.clone(), value.clone());
        }
    }
    if let Some(range) = range(asked) {
        request.headers_mut().insert(header::RANGE, range);
    }
    let file = of_folder(asked.came.as_str());
    let compressed = !COMPRESSED
        .iter()
        .any(|ending| (asked.is_guarded)(&format!("{file}{ending}")));
    let mut whole = request.clone();
    let mut found = open(files, request, compressed, is_guarded).await?;
    let is_empty = |part: &Response<_>| {
        part.headers()
            .get(header::CONTENT_RANGE)
            .is_some_and(|said| said == "bytes */0")
    };
    let is_unsatisfiable = |response: &Response<_>| response.status() == StatusCode::RANGE_NOT_SATISFIABLE;
    if found
        .as_ref()
        .is_some_and(|part| is_unsatisfiable(part) && !is_empty(part))
        && asks_for_an_end(whole.headers())
    {
        // The file is shorter than that: all of it is meant (RFC 9110, 14.1.2).
        whole
            .headers_mut()
            .insert(header::RANGE, HeaderValue::from_static("bytes=0-"));
        drop(found);
        found = open(files, whole.clone(), compressed, is_guarded).await?;
    }
    let is_part = |response: &Response<_>| {
        matches!(
            response.status(),
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
        )
    };
    let is_other = asked
        .headers
        .get(header::IF_RANGE)
        .zip(found.as_ref())
        .is_some_and(|(of, part)| is_part(part) && !is_still(part.headers(), of));
    if is_other {
        drop(found);
        whole.headers_mut().remove(header::RANGE);
        return open(files, whole, compressed, is_guarded).await;
    }
    Ok(found)
}

/// Which part is wanted: of GET alone, and in bytes, however that is written. Whatever else it may be is as if it were not
/// there (RFC 9110, 14.1 and 14.2).
fn range(asked: &Asked<'_>) -> Option<HeaderValue> {
    if *asked.method != Method::GET {
        return None;
    }
    let value = asked.headers.get(header::RANGE)?.to_str().ok()?;
    let (unit, set) = value.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let set = set.trim();
    let Some((first, last)) = set.split_once('-') else {
        return HeaderValue::try_from(format!("bytes={set}")).ok();
    };
    let (first, last) = (number(first), number(last));
    // No file has so many bytes: where one range is to end behind the last, it ends there.
    HeaderValue::try_from(match (first, last) {
        (first, last) if !is_number(last) || last.parse::<u64>().is_ok() => format!("bytes={first}-{last}"),
        ("", _) => "bytes=0-".to_owned(),
        (first, _) => format!("bytes={first}-"),
    })
    .ok()
}

/// As it is written without zeros in front, which `tower_http` doesn't take.
fn number(text: &str) -> &str {
    match text.trim_start_matches('0') {
        "" if !text.is_empty() => "0",
        rest if is_number(text) => rest,
        _ => text,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether so many of the last bytes are wanted, and not none.
fn asks_for_an_end(headers: &HeaderMap) -> bool {
    let said = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let last = said.and_then(|said| said.strip_prefix("bytes=-"));
    last.is_some_and(|last| is_number(last) && last.bytes().any(|digit| digit != b'0'))
}

/// Whether a file is the one of which a client has a part already (RFC 9110, 13.1.5).
fn is_still(now: &HeaderMap, of: &HeaderValue) -> bool {
    // Both are compared exactly; a weak tag is never that of a file.
    [header::ETAG, header::LAST_MODIFIED]
        .iter()
        .any(|name| now.get(name) == Some(of))
}

/// Has `tower_http` look for a file, and answer. `compressed`: with what lies beside it, if the client takes that.
async fn open(
    files: &Files,
    request: Request<Empty<Bytes>>,
    compressed: bool,
    is_guarded: IsGuarded<'_>,
) -> Result<Option<Response<ServeFileSystemResponseBody>>, ProxyError> {
    let contained = Contained {
        // As `tower_http` begins paths.
        folder: Path::new(".").join(&files.folder),
        followed: Arc::default(),
    };
    let mut dir: ServeDir<DefaultServeDirFallback, Contained> =
        ServeDir::with_backend(&files.folder, contained.clone()).ignore_multi_range_requests(true);
    if compressed {
        dir = dir.precompressed_br().precompressed_gzip();
    }
    match timeout(OPEN_TIMEOUT, dir.try_call(request)).await {
        Ok(Ok(response)) if response.status() == StatusCode::NOT_FOUND => Ok(None),
        // A link leads to what another route guards.
        Ok(Ok(_)) if contained.followed().iter().any(|below| is_guarded(below)) => Ok(None),
        Ok(Ok(response)) => Ok(Some(response)),
        Ok(Err(error)) => match error.kind() {
            ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::InvalidFilename
            | ErrorKind::InvalidInput => Ok(None),
            // A link that leads to itself.
            _ if Errno::from_io_error(&error) == Some(Errno::LOOP) => Ok(None),
            _ => Err(ProxyError::File(error)),
        },
        Err(_) => Err(ProxyError::File(ErrorKind::TimedOut.into())),
    }
}

/// To the folder's page, whose links begin at a slash.
fn to_folder(asked: &Asked<'_>) -> Response<ProxyBody> {
    let mut location = format!("{}/", asked.came.as_str());
    if let Some(query) = asked.came.query() {
        location.push('?');
        location.push_str(query);
    }
    let mut response = Response::new(ProxyBody::own(Bytes::new()));
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Text is UTF-8 today; unsaid, browsers take plain text for something else.
fn name_charset(headers: &mut HeaderMap) {
    let with_charset = headers
        .get(header::CONTENT_TYPE)
        .and_then(|media| media.to_str().ok())
        .filter(|media| media.starts_with("text/") && !media.contains(';'))
        .and_then(|media| HeaderValue::try_from(format!("{media}; charset=utf-8")).ok());
    if let Some(media) = with_charset {
        headers.insert(header::CONTENT_TYPE, media);
    }
}

/// The files of a folder that may be seen.
#[derive(Clone, Debug)]
struct Contained {
    folder: PathBuf,
    /// Where links led, below the folder.
    followed: Arc<Mutex<Vec<PathBuf>>>,
}

type Promise<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl Contained {
    fn followed(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        // It is whole whenever it is let go.
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where `path` leads, if that is a file or folder to be seen.
    fn find(&self, path: &Path) -> io::Result<(PathBuf, fs::Metadata)> {
        // Followed anew each time: a release is often made current by turning a link.
        // Once: between two looks at the link it may be turned.
        let folder = self.folder.canonicalize()?;
        let asked = path.strip_prefix(&self.folder).map_err(|_| ErrorKind::NotFound)?;
        let path = folder.join(asked).canonicalize()?;
        let below = path.strip_prefix(&folder).map_err(|_| ErrorKind::NotFound)?;
        let seen = below.components().enumerate().all(|(at, component)| match component {
            Component::Normal(name) => !name.as_encoded_bytes().starts_with(b".") || (at == 0 && name == WELL_KNOWN),
            Component::CurDir => true,
            Component::Prefix(_) | Component::RootDir | Component::ParentDir => false,
        });
        let about = fs::metadata(&path)?;
        // Opening a pipe could wait for ever.
        if !seen || !(about.is_file() || about.is_dir()) {
            return Err(ErrorKind::NotFound.into());
        }
        if below != asked {
            self.followed().push(below.to_owned());
        }
        Ok((path, about))
    }
}

impl Backend for Contained {
    type File = Opened;
    type Metadata = About;
    type OpenFuture = Promise<Opened>;
    type MetadataFuture = Promise<About>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let folder = self.clone();
        Box::pin(blocking(move || {
            let (path, about) = folder.find(&path)?;
            if about.is_dir() {
                return Err(ErrorKind::IsADirectory.into());
            }
            let file = fs::File::open(path)?;
            let about = file.metadata()?;
            Ok(Opened {
                file: file.into(),
                about: About(about),
            })
        }))
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let folder = self.clone();
        Box::pin(blocking(move || folder.find(&path).map(|(_, about)| About(about))))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a disk is waited for here, nothing is computed"
)]
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

/// A file that is being sent.
#[derive(Debug)]
struct Opened {
    file: tokio::fs::File,
    about: About,
}

#[derive(Clone, Debug)]
struct About(fs::Metadata);

impl Metadata for About {
    fn is_dir(&self) -> bool {
        self.0.is_dir()
    }

    /// Reproducible builds date every file alike, at the beginning of time or a second later: then one release can't be told
    /// from the next, and nothing is said of it.
    fn modified(&self) -> io::Result<SystemTime> {
        let at = self.0.modified()?;
        if at <= SystemTime::UNIX_EPOCH + Duration::from_secs(1) {
            return Err(ErrorKind::Unsupported.into());
        }
        Ok(at)
    }

    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl File for Opened {
    type Metadata = About;
    type MetadataFuture<'a> = std::future::Ready<io::Result<About>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        std::future::ready(Ok(self.about.clone()))
    }
}

impl AsyncRead for Opened {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_read(cx, buf)
    }
}

impl AsyncSeek for Opened {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.file).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.file).poll_complete(cx)
    }
}
