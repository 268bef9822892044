//! `/metrics`, `/healthz` and `/readyz` over HTTP, for those who watch the agent: on this host alone unless the
//! configuration says otherwise.
//!
//! * `/metrics`: Prometheus's text of the board.
//! * `/healthz`: 200 while the process lives and none of its loops hangs, else 503 with their names.
//! * `/readyz`: 200 while archiving works, else 503 with the reasons, a line each.
//!
//! Bounds: [`CONNECTIONS`] at once, one request each, [`LIFE`] for each from its first byte to its last: a client that
//! reads slowly, or says nothing, keeps its place no longer. An address that is taken fails this task and no other; it
//! is tried again. Connections outlive the end of a generation by no more than their time.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

use super::supervisor::Task;
use super::{Hub, metrics, readiness};
use crate::error::{Code, Error, Result};

/// More than these wait to be accepted.
const CONNECTIONS: usize = 16;
/// Of a connection.
const LIFE: Duration = Duration::from_secs(10);
/// After an accept that failed (no descriptors left): not at once again.
const PAUSE: Duration = Duration::from_millis(200);

/// None where the configuration turns it off.
pub fn task(hub: &Hub) -> Option<Task> {
    let address = hub.config.agent.http?;
    let hub = hub.clone();
    Some(Task::new("http", move || serve(hub.clone(), address)))
}

async fn serve(hub: Hub, address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).await.map_err(|e| taken(address, e))?;
    let bound = listener.local_addr().unwrap_or(address);
    tracing::info!("metrics are at http://{bound}/metrics");
    hub.board.update(|all| all.http = Some(bound.to_string()));
    let bounded = Bounded { listener, room: Arc::new(Semaphore::new(CONNECTIONS)), life: LIFE };
    let served = axum::serve(bounded, routes(hub.clone())).into_future();
    tokio::select! {
        () = hub.shutdown.cancelled() => {}
        ended = served => {
            ended.map_err(|e| Error::new(Code::Io, "serving metrics has ended").at(bound).because(e))?;
        }
    }
    Ok(())
}

fn taken(address: SocketAddr, cause: io::Error) -> Error {
    Error::new(
        Code::Io,
        "metrics cannot be served (archiving goes on); set `http` under [agent] to a free address",
    )
    .at(address)
    .because(cause)
    .hint("`http = \"none\"` turns them off; `ss -ltnp` shows who has the address")
}

fn routes(hub: Hub) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .fallback(async || {
            answer(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n".to_owned())
        })
        .with_state(hub)
}

async fn scrape(State(hub): State<Hub>) -> Response {
    let text = metrics::render(&hub.board.snapshot(), &metrics::process::facts(), hub.clock.now());
    match text {
        Ok(text) => {
            let mut response = answer(StatusCode::OK, text);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
            response
        }
        Err(error) => {
            tracing::error!(%error, "a scrape failed");
            answer(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
        }
    }
}

async fn health(State(hub): State<Hub>) -> Response {
    let late = hub.pulse.late();
    if late.is_empty() {
        return answer(StatusCode::OK, "ok\n".to_owned());
    }
    answer(StatusCode::SERVICE_UNAVAILABLE, format!("these tasks hang: {}\n", late.join(", ")))
}

async fn ready(State(hub): State<Hub>) -> Response {
    let doubts = readiness::doubts(&hub.board.snapshot(), hub.clock.now());
    if doubts.is_empty() {
        return answer(StatusCode::OK, "archiving works\n".to_owned());
    }
    answer(StatusCode::SERVICE_UNAVAILABLE, doubts.join("\n") + "\n")
}

/// One answer per connection: nobody keeps a place that he does not use.
fn answer(status: StatusCode, text: String) -> Response {
    (status, [(CONNECTION, "close"), (CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// Takes connections while there is room, and bounds their time.
struct Bounded {
    listener: TcpListener,
    room: Arc<Semaphore>,
    life: Duration,
}

impl Listener for Bounded {
    type Io = Timed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Timed, SocketAddr) {
        loop {
            // Never closed, so never None.
            let permit = Arc::clone(&self.room).acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    let end = Box::pin(tokio::time::sleep(self.life));
                    return (Timed { stream, end, _permit: permit }, from);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that breaks when its time is over.
struct Timed {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Timed {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::agent::{Board, State as Memory, example};
    use crate::config::Config;
    use crate::util::clock::Clock;

    fn hub() -> Hub {
        let text = "encryption = \"none\"\n[cluster.main]\nconnection = \"host=/tmp\"\n[[repository]]\nname = \
                    \"a\"\nurl = \"file:///srv/pgkeep\"\n";
        let board = Board::new(example::now());
        board.update(|all| *all = example::healthy());
        Hub {
            config: Arc::new(Config::parse(std::path::Path::new("/x"), text).unwrap()),
            clock: Clock::fixed(example::now()),
            shutdown: tokio_util::sync::CancellationToken::new(),
            board,
            state: Memory::in_memory().unwrap(),
            end: tokio_util::sync::CancellationToken::new(),
            lasting: tokio_util::task::TaskTracker::new(),
            pulse: crate::agent::pulse::Pulse::default(),
        }
    }

    async fn serving(hub: &Hub, room: usize, life: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bounded = Bounded { listener, room: Arc::new(Semaphore::new(room)), life };
        tokio::spawn(axum::serve(bounded, routes(hub.clone())).into_future());
        address
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut said = String::new();
        // Ends because the server closes.
        stream.read_to_string(&mut said).await.unwrap();
        said
    }

    #[tokio::test]
    async fn each_page_answers_and_the_connection_is_closed() {
        let hub = hub();
        let address = serving(&hub, 16, LIFE).await;
        let metrics = ask(address, "/metrics").await;
        assert!(metrics.starts_with("HTTP/1.1 200 OK") && metrics.contains("version=0.0.4"), "{metrics}");
        assert!(metrics.contains("\npgkeep_rpo_seconds{cluster=\"main\"} 2\n"), "{metrics}");
        assert!(ask(address, "/healthz").await.ends_with("\r\n\r\nok\n"));
        assert!(ask(address, "/readyz").await.ends_with("\r\n\r\narchiving works\n"));
        assert!(ask(address, "/").await.starts_with("HTTP/1.1 404"));
        hub.pulse.beat("archiver main", Duration::ZERO);
        let hangs = ask(address, "/healthz").await;
        assert!(hangs.starts_with("HTTP/1.1 503") && hangs.ends_with("hang: archiver main\n"), "{hangs}");
        hub.board.update(|all| *all = example::troubled());
        let said = ask(address, "/readyz").await;
        assert!(said.starts_with("HTTP/1.1 503") && said.contains("cluster main: archiving fails"), "{said}");
    }

    #[tokio::test]
    async fn clients_that_say_nothing_lose_their_place() {
        let address = serving(&hub(), 2, Duration::from_millis(300)).await;
        let mut silent = Vec::new();
        for _ in 0..4 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // Two hold a place, two wait before it; all are shown out.
        assert!(ask(address, "/healthz").await.ends_with("ok\n"));
    }

    #[tokio::test]
    async fn a_taken_address_is_said_with_the_way_out() {
        let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = holder.local_addr().unwrap();
        let error = serve(hub(), address).await.unwrap_err();
        let said = error.to_string();
        assert!(said.contains(&address.to_string()) && said.contains("archiving goes on"), "{said}");
    }
}
