//! The numbers over HTTP/1.1.

use std::convert::Infallible;
use std::io::{Write, stderr};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::gather::{down, gather};
use super::sample::text;
use crate::failure::{Exit, Failure};
use crate::operate::Store;
use crate::signals::Signals;

/// Most connections at a time; the next one waits to be accepted.
const CONNECTIONS_MAX: usize = 16;
/// How long a client may take for the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// How long the store may take: scrapers give up after ten seconds.
const STORE_PATIENCE: Duration = Duration::from_secs(8);
/// As OpenMetrics 1.0 has it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Somebody who waits for the numbers.
type Asker = oneshot::Sender<String>;

/// Serves until a signal comes.
pub(super) async fn run(store: &Store<'_>, address: SocketAddr) -> Result<Exit, Failure> {
    let mut signals = Signals::listen()
        .map_err(|error| Failure::failed("cannot listen to signals").because(&error))?;
    let listener = TcpListener::bind(address).await;
    let cannot = |error| {
        Failure::failed(format!("cannot listen on {address}"))
            .because(&error)
            .with_help("take another address with --listen")
    };
    let listener = listener.map_err(cannot)?;
    let bound = listener.local_addr().map_err(cannot)?;
    let _ = writeln!(stderr(), "serving http://{bound}/metrics");
    let (askers, asked) = mpsc::channel(CONNECTIONS_MAX);
    tokio::select! {
        _ = signals.next() => Ok(Exit::Done),
        () = accept(&listener, askers) => Ok(Exit::Done),
        ended = answer(store, asked) => ended,
    }
}

/// One look at a time, whose numbers go to all that asked before it began.
async fn answer(store: &Store<'_>, mut asked: mpsc::Receiver<Asker>) -> Result<Exit, Failure> {
    let mut askers = Vec::new();
    while asked.recv_many(&mut askers, CONNECTIONS_MAX).await > 0 {
        let samples = match timeout(STORE_PATIENCE, gather(store)).await {
            Ok(Ok(samples)) => samples,
            failed => {
                let why = failed.map_or_else(
                    |_| "no answer in time".to_owned(),
                    |failed| failed.err().map_or_else(String::new, |error| error.to_string()),
                );
                tracing::warn!("cannot look at the bus: {}", store.address.redact(&why));
                vec![down()]
            }
        };
        let text = text(&samples)?;
        for asker in askers.drain(..) {
            // Who went away needs no answer.
            let _ = asker.send(text.clone());
        }
    }
    Ok(Exit::Done)
}

async fn accept(listener: &TcpListener, askers: mpsc::Sender<Asker>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let askers = askers.clone();
                tokio::spawn(async move {
                    serve(stream, askers).await;
                    drop(permit);
                });
            }
            // Of this one connection, or too many open files: the next may do.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, askers: mpsc::Sender<Asker>) {
    let service = service_fn(move |request| respond(request, askers.clone()));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
    // A client that breaks off, or speaks something else, harms nobody.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(
    request: Request<Incoming>,
    askers: mpsc::Sender<Asker>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let plain = |status, text: &str| reply(status, "text/plain; charset=utf-8", text.to_owned());
    Ok(match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => match ask(&askers).await {
            Some(text) => reply(StatusCode::OK, OPEN_METRICS, text),
            None => plain(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
        },
        (_, "/metrics") => {
            let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "GET it\n");
            refusal
                .headers_mut()
                .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            refusal
        }
        _ => plain(StatusCode::NOT_FOUND, "the numbers are at /metrics\n"),
    })
}

async fn ask(askers: &mpsc::Sender<Asker>) -> Option<String> {
    let (asker, answer) = oneshot::channel();
    askers.send(asker).await.ok()?;
    answer.await.ok()
}

fn reply(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let content_type = hyper::header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
