//! The threads of a lane that restore its tasks.

use super::clients::Clients;
use super::job;
use super::{Answer, Ready, Request, RestoreError};
use crate::stream::Shared;
use rdkafka::error::KafkaError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// Time between two tries while Kafka refuses.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Time until a task whose offset moved is looked at again.
const MOVED_PAUSE: Duration = Duration::from_millis(200);

/// How often clients without work are heard.
const HEARD_EVERY: Duration = Duration::from_secs(5);

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
    // Now, so that they have found the group's coordinator when the first request comes; one that fails is made for the request.
    let mut clients = Clients::connect(shared).inspect_err(|error| debug!(%error, "no clients yet")).ok();
    loop {
        // The lock is held while waiting: the other threads wait for it instead.
        let received = asked.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(HEARD_EVERY);
        let request = match received {
            Ok(request) => request,
            // Not before a request: a task waits for that.
            Err(RecvTimeoutError::Timeout) => {
                clients.iter().for_each(Clients::hear);
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let answer = Answer { task: request.task, generation: request.generation, outcome: restore(shared, &mut clients, &request) };
        if answers.send(answer).is_err() {
            return;
        }
    }
}

fn restore(shared: &Arc<Shared>, clients: &mut Option<Clients>, request: &Request) -> Result<Ready, RestoreError> {
    let partition = request.task.partition;
    if request.is_called_off() {
        return Err(RestoreError::CalledOff(partition));
    }
    let started = Instant::now();
    // A panic in here must not leave the lane waiting for ever.
    let attempt = || job::restore(connected(shared, clients, request)?, shared, request);
    let outcome = catch_unwind(AssertUnwindSafe(attempt)).unwrap_or(Err(RestoreError::Panicked(partition)));
    shared.metrics.restore.seconds.observe(started.elapsed().as_secs_f64());
    match &outcome {
        Err(RestoreError::Kafka { source, .. }) if shared.access.refused(source) || is_creation(source) => {
            std::thread::sleep(REFUSED_PAUSE)
        }
        Err(RestoreError::Moved(_)) => std::thread::sleep(MOVED_PAUSE),
        _ => {}
    }
    outcome
}

/// The thread's clients; created for the first request, or for the first after they could not be.
fn connected<'c>(shared: &Shared, clients: &'c mut Option<Clients>, request: &Request) -> Result<&'c Clients, RestoreError> {
    let kafka = |source| RestoreError::Kafka { topic: shared.topic(request.task).to_owned(), partition: request.task.partition, source };
    match clients {
        Some(clients) => Ok(clients),
        None => Ok(clients.insert(Clients::connect(shared).map_err(kafka)?)),
    }
}

fn is_creation(error: &KafkaError) -> bool {
    matches!(error, KafkaError::ClientCreation(_) | KafkaError::ClientConfig(..))
}
