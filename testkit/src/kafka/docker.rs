//! Apache Kafka in Docker, where an engine answers.

use super::{Options, VERSION, common_properties};
use crate::http::exchange;
use anyhow::{Context, Result, bail};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::SyncRunner;
use testcontainers::{GenericImage, ImageExt};

const ENGINE_ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// Includes fetching the image the first time.
const STARTS_WITHIN: Duration = Duration::from_secs(300);
const CONTROLLER_PORT: u16 = 29093;

/// A broker in a container, removed when this value goes.
///
/// The container belongs to one thread: removing it runs an async client, which must not happen on a thread that is itself
/// inside a runtime, or after the thread's locals are gone (the shared broker is stopped while the process exits).
#[derive(Debug)]
pub(super) struct Container {
    bootstrap: String,
    stop: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Container {
    pub(super) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The keeper wakes up when the sender is gone.
        self.stop.take();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// Starts a container; whether the broker in it is ready is the caller's to find out.
pub(super) fn start(options: &Options) -> Result<Container> {
    ping().context("no Docker engine answers")?;
    // The broker tells its clients where it is, so the outer port must be known before it starts: inside and outside are equal.
    let port = crate::free_address()?.port();
    let bootstrap = format!("127.0.0.1:{port}");
    let mut request = GenericImage::new("apache/kafka", VERSION)
        .with_wait_for(WaitFor::message_on_stdout("Kafka Server started"))
        .with_mapped_port(port, port.tcp())
        .with_startup_timeout(STARTS_WITHIN)
        .with_label("org.tripline.testkit", "kafka")
        .with_env_var("KAFKA_HEAP_OPTS", format!("-Xms64m -Xmx{}", options.heap));
    let placed = [
        ("controller.quorum.voters", format!("1@localhost:{CONTROLLER_PORT}")),
        ("listeners", format!("PLAINTEXT://0.0.0.0:{port},CONTROLLER://localhost:{CONTROLLER_PORT}")),
        ("advertised.listeners", format!("PLAINTEXT://{bootstrap}")),
        ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".to_owned()),
    ];
    for (name, value) in common_properties().into_iter().chain(placed) {
        request = request.with_env_var(variable(name), value);
    }
    for (name, value) in &options.properties {
        request = request.with_env_var(variable(name), value);
    }

    let (stop, stopped) = mpsc::channel::<()>();
    let (started, outcome) = mpsc::channel();
    let keeper = thread::spawn(move || match request.start() {
        Ok(container) => {
            let _ = started.send(Ok(()));
            let _ = stopped.recv();
            drop(container);
        }
        Err(why) => {
            let _ = started.send(Err(why));
        }
    });
    outcome.recv().context("the thread of the container went away")?.with_context(|| format!("could not start apache/kafka:{VERSION}"))?;
    Ok(Container { bootstrap, stop: Some(stop), keeper: Some(keeper) })
}

/// The image's convention: `num.io.threads` is `KAFKA_NUM_IO_THREADS`.
fn variable(property: &str) -> String {
    format!("KAFKA_{}", property.replace('_', "__").replace('-', "___").replace('.', "_").to_uppercase())
}

/// Asks the engine for a sign of life, so that a machine without one finds out at once.
fn ping() -> Result<()> {
    let host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    let answered = match host.as_deref() {
        Some(host) if host.starts_with("tcp://") || host.starts_with("http://") => ping_tcp(host),
        Some(host) => ping_unix(host.trim_start_matches("unix://").into()),
        None => sockets().into_iter().find(|socket| socket.exists()).context("no socket of an engine was found").and_then(ping_unix),
    };
    match answered? {
        (200, _) => Ok(()),
        (status, _) => bail!("the engine answered {status}"),
    }
}

fn ping_unix(socket: PathBuf) -> Result<(u16, String)> {
    let stream = UnixStream::connect(&socket).with_context(|| format!("could not connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(ENGINE_ANSWERS_WITHIN))?;
    exchange(stream, "docker", "/_ping")
}

fn ping_tcp(host: &str) -> Result<(u16, String)> {
    let address = host.split_once("//").map_or(host, |(_, rest)| rest).trim_end_matches('/');
    let stream = TcpStream::connect(address).with_context(|| format!("could not connect to {host}"))?;
    stream.set_read_timeout(Some(ENGINE_ANSWERS_WITHIN))?;
    exchange(stream, "docker", "/_ping")
}

/// Where an engine listens when `DOCKER_HOST` does not say, in the order of testcontainers.
fn sockets() -> Vec<PathBuf> {
    let mut sockets = vec![PathBuf::from("/var/run/docker.sock")];
    sockets.extend(std::env::var_os("XDG_RUNTIME_DIR").map(|run| PathBuf::from(run).join(".docker/run/docker.sock")));
    if let Some(home) = std::env::home_dir() {
        sockets.push(home.join(".docker/run/docker.sock"));
        sockets.push(home.join(".docker/desktop/docker.sock"));
    }
    sockets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_become_the_images_variables() {
        assert_eq!(variable("num.io.threads"), "KAFKA_NUM_IO_THREADS");
        assert_eq!(variable("a_b.c-d"), "KAFKA_A__B_C___D");
    }
}
