//! The admin HTTP server: `/healthz` for load balancers and service managers,
//! `/metrics` for Prometheus. It only reads, knows no users, and belongs on
//! loopback or behind something that does.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use super::bind;
use super::bounded::Bounded;
use super::control::Control;
use super::failure::Failure;
use super::health::Health;
use super::metrics::{self, Scrape};

/// What the handlers share.
struct Admin {
    control: Arc<Control>,
    /// One request at a time asks the shards, however many come in.
    turn: Mutex<()>,
}

/// Listens on `address`; needs a tokio runtime.
///
/// # Errors
/// The address is taken, not ours, or not permitted.
pub fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Failure> {
    let made = StdListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, bound))
    });
    made.map_err(|error| {
        let explained = bind::explain(address, &error);
        Failure::runtime(format!(
            "admin HTTP: {explained}; or set [admin] http elsewhere, or \"off\""
        ))
    })
}

/// Answers for ever.
pub async fn serve(listener: TcpListener, control: Arc<Control>) -> io::Result<()> {
    let state = Arc::new(Admin { control, turn: Mutex::new(()) });
    let router = Router::new()
        .route("/", get(index))
        .route("/healthz", get(healthz))
        .route("/metrics", get(show_metrics))
        .with_state(state);
    axum::serve(Bounded::new(listener), router).await
}

async fn index() -> &'static str {
    "ringpost\n/healthz  whether mail is accepted\n/metrics  figures for Prometheus\n"
}

async fn healthz(State(admin): State<Arc<Admin>>) -> Response {
    let _turn = admin.turn.lock().await;
    let answers = admin.control.fleet.snapshots().await;
    let health = Health::of(admin.control.phase(), &answers);
    let code = if health.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, axum::Json(health)).into_response()
}

async fn show_metrics(State(admin): State<Arc<Admin>>) -> Response {
    let _turn = admin.turn.lock().await;
    let scrape = Scrape {
        shards: admin.control.fleet.snapshots().await,
        phase: admin.control.phase(),
        durability: admin.control.config().durability.name(),
        started: admin.control.started,
        resident: resident(),
    };
    match metrics::encode(scrape) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Memory of this process in RAM, in bytes (proc(5), `VmRSS` in kB).
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::admin::control::Phase;
    use crate::admin::fake::{self, Manner};

    async fn fetch(control: Arc<Control>, request: &str) -> (u16, String, String) {
        let (listener, address) = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let task = tokio::spawn(serve(listener, control));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).await.unwrap();
        task.abort();
        let (head, body) = got.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, head.to_ascii_lowercase(), body.to_owned())
    }

    #[tokio::test]
    async fn healthz_tells_a_load_balancer_and_a_person() {
        let (code, head, body) = fetch(fake::control(&[Manner::Well]), "GET /healthz").await;
        assert_eq!(code, 200);
        assert!(head.contains("content-type: application/json"), "{head}");
        assert_eq!(body, r#"{"status":"ok","reasons":[]}"#);

        let ill = fake::control(&[Manner::Well, Manner::Poisoned]);
        let (code, _, body) = fetch(ill, "GET /healthz").await;
        assert_eq!(code, 503);
        assert!(body.contains("shard 1 accepts no mail"), "{body}");

        let draining = fake::control(&[Manner::Well]);
        draining.enter(Phase::Draining);
        let (code, _, body) = fetch(draining, "GET /healthz").await;
        assert_eq!(code, 503);
        assert!(body.contains(r#""status":"draining""#), "{body}");
    }

    #[tokio::test]
    async fn metrics_are_served_as_openmetrics() {
        let control = fake::control(&[Manner::Well, Manner::Gone]);
        let (code, head, body) = fetch(control, "GET /metrics").await;
        assert_eq!(code, 200);
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"));
        assert!(body.contains("ringpost_messages_accepted_total{shard=\"0\"} 10\n"), "{body}");
        assert!(body.contains("ringpost_shards_silent 1\n"), "{body}");
        assert!(body.contains("ringpost_resident_memory_bytes "), "{body}");
    }

    #[tokio::test]
    async fn nothing_else_is_there() {
        assert_eq!(fetch(fake::control(&[Manner::Well]), "GET /queue").await.0, 404);
        assert_eq!(fetch(fake::control(&[Manner::Well]), "POST /metrics").await.0, 405);
        let index = fetch(fake::control(&[Manner::Well]), "GET /").await;
        assert!(index.2.contains("/healthz") && index.2.contains("/metrics"));
    }

    #[tokio::test]
    async fn a_port_in_use_is_explained() {
        let (_listener, address) = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = listen(address).unwrap_err();
        assert!(error.message.contains("another process listens there"), "{error}");
        assert!(error.message.contains("[admin] http"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_let_go() {
        let (listener, address) = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let task = tokio::spawn(serve(listener, fake::control(&[Manner::Well])));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: ").await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
        task.abort();
    }
}
