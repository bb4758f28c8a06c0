//! Health and metrics over HTTP, for the orchestrator and the scraper. Read-only, without authentication: it listens on
//! the loopback address unless told otherwise.
//!
//! | Path | 200 when | Meant for |
//! |---|---|---|
//! | `/livez`, `/healthz` | the process turns and no part has died; Kafka may be away | restart |
//! | `/startupz` | settings loaded, broker reached once, every part began its work once | patience at the start |
//! | `/readyz` | all of that, and every owned task is restored, and the process is not stopping | roll-outs |
//! | `/metrics` | always | scraping |
//!
//! Lag is in no answer: a worker that is behind must go on working, not be restarted. `?verbose` lists the checks.

pub mod health;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use health::{Check, Health};
use prometheus_client::registry::Registry;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Why there is no admin endpoint.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be listened on.
    #[error("cannot listen on {listen} for health and metrics: {source}; change admin.listen, or leave it empty for none")]
    Bind {
        /// `admin.listen`.
        listen: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The server ended by itself.
    #[error("the admin endpoint stopped")]
    Serve(#[source] std::io::Error),
}

impl AdminError {
    /// The process's exit code: 3, a setting to change, when the address is taken or not ours; else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            AdminError::Bind { .. } => 3,
            AdminError::Serve(_) => 1,
        }
    }
}

/// How long open connections may take to end after the shutdown.
const LINGER: Duration = Duration::from_secs(2);

/// Listens on `listen` (`127.0.0.1:9464`) and serves until `shutdown` completes.
pub async fn serve(
    listen: &str,
    health: Arc<Health>,
    registry: Arc<Registry>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), AdminError> {
    serve_on(bind(listen).await?, health, registry, shutdown).await
}

/// Only listens: for a caller that wants to know before anything else starts.
pub async fn bind(listen: &str) -> Result<TcpListener, AdminError> {
    let listener = TcpListener::bind(listen).await.map_err(|source| AdminError::Bind { listen: listen.to_owned(), source })?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "health and metrics are served");
    }
    Ok(listener)
}

/// Serves on a listener from [`bind`].
pub async fn serve_on(
    listener: TcpListener,
    health: Arc<Health>,
    registry: Arc<Registry>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), AdminError> {
    let (asked, mut was_asked) = tokio::sync::watch::channel(false);
    let server = axum::serve(listener, router(health, registry)).with_graceful_shutdown(async move {
        shutdown.await;
        asked.send_replace(true);
        // Kept open, so that the other end does not mistake its closing for the signal.
        asked.closed().await;
    });
    // A client that never ends its request must not hold up the stop.
    let too_long = async {
        let _ = was_asked.wait_for(|asked| *asked).await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        ended = async { server.await } => ended.map_err(AdminError::Serve),
        () = too_long => Ok(()),
    }
}

fn router(health: Arc<Health>, registry: Arc<Registry>) -> Router {
    let probe = |checks: fn(&Health) -> Vec<Check>| {
        get(move |State(health): State<Arc<Health>>, Query(query): Query<HashMap<String, String>>| async move {
            answer(&checks(&health), query.contains_key("verbose"))
        })
    };
    let metrics = get(move || async move { exposition(&registry) });
    Router::new()
        .route("/livez", probe(Health::live_checks))
        .route("/healthz", probe(Health::live_checks))
        .route("/startupz", probe(Health::startup_checks))
        .route("/readyz", probe(Health::ready_checks))
        .with_state(health)
        .route("/metrics", metrics)
}

/// One word, or one line per check; failed checks are always listed, so that a probe's event says why.
fn answer(checks: &[Check], verbose: bool) -> Response {
    let passed = checks.iter().all(|check| check.problem.is_none());
    let mut text = String::new();
    for check in checks {
        match &check.problem {
            None if verbose => text.push_str(&format!("[+] {} ok\n", check.name)),
            None => (),
            Some(problem) => text.push_str(&format!("[-] {} {problem}\n", check.name)),
        }
    }
    text.push_str(if passed { "ok\n" } else { "failed\n" });
    let status = if passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")], text).into_response()
}

fn exposition(registry: &Registry) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, registry) {
        Ok(()) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be written: {error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};

    struct Server {
        runtime: tokio::runtime::Runtime,
        address: SocketAddr,
        stop: tokio::sync::oneshot::Sender<()>,
        served: tokio::task::JoinHandle<Result<(), AdminError>>,
        health: Arc<Health>,
    }

    fn start() -> Server {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let health = Arc::new(Health::default());
        let registry = Arc::new(Metrics::new().1);
        let listener = runtime.block_on(bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("address");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let served = runtime.spawn(serve_on(listener, health.clone(), registry, async {
            let _ = stopped.await;
        }));
        Server { runtime, address, stop, served, health }
    }

    impl Server {
        fn get(&self, path: &str) -> (u16, String) {
            let mut stream = TcpStream::connect(self.address).expect("connect");
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("write");
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("read");
            let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("status");
            (status, text)
        }

        fn status(&self, path: &str) -> u16 {
            self.get(path).0
        }
    }

    #[test]
    fn a_process_becomes_live_then_started_then_ready() {
        let server = start();
        assert_eq!([server.status("/livez"), server.status("/startupz"), server.status("/readyz")], [200, 503, 503]);
        server.health.config_loaded();
        server.health.broker_reached();
        assert_eq!(server.status("/readyz"), 503, "nothing runs yet");
        server.health.expect("lane 0");
        assert_eq!([server.status("/startupz"), server.status("/readyz")], [503, 503]);
        server.health.started("lane 0");
        assert_eq!([server.status("/startupz"), server.status("/readyz")], [200, 503]);
        server.health.ready("lane 0");
        assert_eq!([server.status("/livez"), server.status("/healthz"), server.status("/readyz")], [200, 200, 200]);
        let (_, text) = server.get("/readyz?verbose");
        assert!(text.contains("[+] config ok\n[+] broker ok\n[+] lane 0 ok\n"), "{text}");
    }

    #[test]
    fn a_dead_lane_ends_life_and_says_why() {
        let server = start();
        server.health.started("lane 0");
        server.health.dead("lane 0", "fenced three times within a minute");
        let (status, text) = server.get("/livez");
        assert_eq!(status, 503);
        assert!(text.contains("[-] lane 0 died: fenced three times within a minute"), "{text}");
    }

    #[test]
    fn metrics_are_openmetrics_text() {
        let server = start();
        let (status, text) = server.get("/metrics");
        assert_eq!(status, 200);
        assert!(text.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{text}");
        assert!(text.contains("tripline_alerts_total{state=\"opened\"} 0\n") && text.contains("# EOF\n"), "{text}");
    }

    #[test]
    fn a_client_that_hangs_does_not_hold_up_the_stop() {
        let server = start();
        let mut hanging = TcpStream::connect(server.address).expect("connect");
        hanging.write_all(b"GET /livez HTTP/1.1\r\nHost:").expect("write");
        assert_eq!(server.status("/livez"), 200);
        server.stop.send(()).expect("the server listens for it");
        let ended = server.runtime.block_on(async { tokio::time::timeout(LINGER * 4, server.served).await });
        ended.expect("stopped in time").expect("no panic").expect("no error");
    }

    #[test]
    fn an_address_in_use_is_one_clear_message() {
        let server = start();
        let listen = server.address.to_string();
        let error = server.runtime.block_on(bind(&listen)).expect_err("it is taken");
        let text = error.to_string();
        assert!(text.starts_with(&format!("cannot listen on {listen} for health and metrics: ")), "{text}");
        assert!(text.contains("admin.listen"), "{text}");
    }
}
