//! The threads of a lane that restore its tasks.

use super::job::Clients;
use super::{Answer, Request, RestoreError};
use crate::stream::Shared;
use rdkafka::error::{KafkaError, KafkaResult};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::warn;

/// Time between two tries while Kafka refuses.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Starts the threads of a lane. They end when the lane drops its end of the requests; without any thread the receiver of
/// answers is disconnected.
pub fn start(shared: &Arc<Shared>, lane: usize) -> (Sender<Request>, Receiver<Answer>) {
    let (requests, asked) = channel();
    let (answers, answered) = channel();
    let asked = Arc::new(Mutex::new(asked));
    for number in 0..shared.config.stream.restores.max(1) {
        let (shared, asked, answers) = (shared.clone(), asked.clone(), answers.clone());
        let thread = std::thread::Builder::new().name(format!("restore-{lane}-{number}"));
        if let Err(source) = thread.spawn(move || serve(&shared, &asked, &answers)) {
            warn!(lane, %source, "cannot start a restore thread");
        }
    }
    (requests, answered)
}

/// Serves requests until the lane hangs up.
fn serve(shared: &Arc<Shared>, asked: &Mutex<Receiver<Request>>, answers: &Sender<Answer>) {
    let clients = Clients::connect(shared);
    loop {
        // The lock is held while waiting: the other threads wait for it instead.
        let Ok(request) = asked.lock().unwrap_or_else(PoisonError::into_inner).recv() else { return };
        let answer = Answer { task: request.task, generation: request.generation, outcome: restore(shared, &clients, &request) };
        if answers.send(answer).is_err() {
            return;
        }
    }
}

fn restore(shared: &Arc<Shared>, clients: &KafkaResult<Clients>, request: &Request) -> Result<super::Ready, RestoreError> {
    let started = Instant::now();
    let outcome = match clients {
        Ok(clients) => clients.restore(shared, request),
        // A client that cannot even be created: every request gets the reason.
        Err(source) => Err(RestoreError::Kafka {
            topic: shared.topic(request.task).to_owned(),
            partition: request.task.partition,
            source: KafkaError::ClientCreation(source.to_string()),
        }),
    };
    shared.metrics.restore.seconds.observe(started.elapsed().as_secs_f64());
    if let Err(RestoreError::Kafka { source, .. }) = &outcome
        && shared.access.refused(source)
    {
        std::thread::sleep(REFUSED_PAUSE);
    }
    outcome
}
