//! A plain HTTP/1.1 server for the pages of `vestibule dev`. Loopback only; the gateway's own is `server`.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};
use tracing::debug;

use crate::lifecycle::Tasks;

pub type Answer = Response<Full<Bytes>>;

/// At once; others wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 256;

/// For a request's head; also how long a connection may lie idle.
const HEAD: Duration = Duration::from_secs(30);

/// After `accept` failed, for want of file descriptors perhaps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `listener` until the soft stop of `tasks`.
pub async fn serve<F>(
    listener: TcpListener,
    name: &'static str,
    answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    tasks: Tasks,
) where
    F: Future<Output = Answer> + Send + 'static,
{
    let answer = Arc::new(answer);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let soft = tasks.stop.soft.clone();
    let accepting = async {
        while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // Pages are small: each is one packet that somebody waits for. Without it they are only slower.
            let _ = stream.set_nodelay(true);
            let answer = Arc::clone(&answer);
            let stop = soft.clone();
            tasks.spawn(name, async move {
                let service = service_fn(move |request| {
                    let answering = answer(request);
                    async move { Ok::<_, Infallible>(answering.await) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD)
                    .serve_connection(TokioIo::new(stream), service);
                let mut connection = std::pin::pin!(connection);
                let ended = tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = stop.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                };
                if let Err(error) = ended {
                    debug!(%error, server = name, "a connection broke off");
                }
                drop(permit);
            });
        }
    };
    soft.run_until_cancelled(accepting).await;
}

/// An answer with a body of type `content_type`.
pub fn page(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
    answer
}
