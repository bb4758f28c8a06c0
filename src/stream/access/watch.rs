//! Refusals while the process runs. Whoever meets one reports it here and tries again later; one thread finds out what exactly is
//! denied, says so every 30 s, and notices when it is allowed again.
//!
//! It has to ask: librdkafka reports a denied fetch once and then keeps silent, so that no news proves nothing.

use super::rights::{Operation, Resource, Right};
use super::{AccessError, Verdict, user, verify};
use crate::config::Config;
use crate::stream::Role;
use crate::stream::client::ClientError;
use crate::telemetry::metrics::Metrics;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tracing::{error, info};

/// Time between two looks while something is denied: the first, and the longest.
const LOOK_AFTER: Duration = Duration::from_secs(1);
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(5);
/// Time between two lines in the log.
const SAY_EVERY: Duration = Duration::from_secs(30);
/// A refusal that the brokers do not explain holds for so long after it was last met.
const UNEXPLAINED: Duration = Duration::from_secs(30);
/// How long a look waits for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Whether Kafka refuses what was asked, or to talk to us at all: nothing that passes by itself.
pub fn is_refusal(error: &KafkaError) -> bool {
    let code = match error {
        KafkaError::Transaction(error) => Some(error.code()),
        error => error.rdkafka_error_code(),
    };
    code.is_some_and(is_refusal_code)
}

pub(in crate::stream) fn is_refusal_code(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication
            | Code::SSL
    )
}

/// What is denied at present. One for the process.
#[derive(Debug)]
pub struct Watch {
    /// Wakes the thread.
    doubt: SyncSender<()>,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    /// What the thread found.
    denied: Option<String>,
    /// Transactional ids that were refused and not yet accepted.
    ids: BTreeSet<String>,
    /// The latest refusal, and when.
    latest: Option<(String, Instant)>,
}

impl Watch {
    /// Starts the thread. It ends with the last handle.
    pub fn start(config: &Config, roles: &[Role], metrics: &Arc<Metrics>) -> std::io::Result<Arc<Watch>> {
        // One doubt is as good as many.
        let (doubt, doubts) = sync_channel(1);
        let watch = Arc::new(Watch { doubt, state: Mutex::default(), metrics: metrics.clone() });
        let looker = Looker { watch: Arc::downgrade(&watch), config: config.clone(), roles: roles.to_vec() };
        std::thread::Builder::new().name("access".to_owned()).spawn(move || looker.serve(&doubts))?;
        Ok(watch)
    }

    /// Reports an error; whether it was a refusal, which is then spoken of here and nowhere else.
    pub fn refused(&self, error: &KafkaError) -> bool {
        let is_refusal = is_refusal(error);
        if is_refusal {
            self.note(error.to_string());
        }
        is_refusal
    }

    /// Reports the refusal of a record or of a step of a transaction.
    pub fn refused_code(&self, code: Code) {
        self.note(code.to_string());
    }

    /// Reports refusals that somebody else has counted.
    pub fn refused_elsewhere(&self, what: &str) {
        self.note(what.to_owned());
    }

    /// This transactional id was refused.
    pub fn id_refused(&self, id: &str) {
        self.state().ids.insert(id.to_owned());
        self.note(Code::TransactionalIdAuthorizationFailed.to_string());
    }

    /// It was accepted.
    pub fn id_accepted(&self, id: &str) {
        self.state().ids.remove(id);
    }

    /// What is denied at present, in words.
    pub fn reason(&self) -> Option<String> {
        self.state().denied.clone()
    }

    fn note(&self, what: String) {
        self.metrics.refusals.inc();
        self.state().latest = Some((what, Instant::now()));
        // Full: it is awake already.
        let _ = self.doubt.try_send(());
    }

    fn is_refused_lately(&self) -> bool {
        self.state().latest.as_ref().is_some_and(|(_, when)| when.elapsed() < UNEXPLAINED)
    }

    fn found(&self, denied: Option<String>) {
        self.metrics.access_denied.set(i64::from(denied.is_some()));
        self.state().denied = denied;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Looker {
    watch: Weak<Watch>,
    config: Config,
    roles: Vec<Role>,
}

/// What a look found.
enum Found {
    Allowed,
    Denied(String),
    /// The brokers did not answer, or they do not say.
    Unknown,
}

impl Looker {
    fn serve(&self, doubts: &Receiver<()>) {
        while doubts.recv().is_ok() {
            if self.wait_until_allowed(doubts).is_none() {
                return;
            }
        }
    }

    /// Looks again and again; `None` when the process ends meanwhile.
    fn wait_until_allowed(&self, doubts: &Receiver<()>) -> Option<()> {
        let mut said: Option<(String, Instant)> = None;
        let mut pause = LOOK_AFTER;
        loop {
            let found = self.look();
            let watch = self.watch.upgrade()?;
            match found {
                Found::Allowed => break watch.found(None),
                Found::Denied(denied) => {
                    if said.as_ref().is_none_or(|(what, when)| *what != denied || when.elapsed() >= SAY_EVERY) {
                        error!(denied, "Kafka refuses what the roles need: waiting until it is allowed");
                        said = Some((denied.clone(), Instant::now()));
                    }
                    watch.found(Some(denied));
                }
                // Without an answer the last one holds; without any, the doubt ends with the refusals.
                Found::Unknown if said.is_none() && !watch.is_refused_lately() => break,
                Found::Unknown => {}
            }
            drop(watch);
            // A further doubt is no reason to look earlier.
            match doubts.recv_timeout(pause) {
                Ok(()) => std::thread::sleep(pause),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
            pause = (pause * 2).min(LOOK_AT_LEAST_EVERY);
        }
        if said.is_some() {
            info!("Kafka allows everything again");
        }
        Some(())
    }

    fn look(&self) -> Found {
        let verdict = verify(&self.config, &self.roles, CONNECT_WITHIN);
        let Some(watch) = self.watch.upgrade() else { return Found::Unknown };
        let state = watch.state();
        let ids: Vec<Right> = state.ids.iter().map(|id| id_right(id)).collect();
        let denied = |user, missing| Found::Denied(AccessError::Denied { user, missing }.to_string());
        match verdict {
            Err(AccessError::Denied { user, mut missing }) => {
                missing.extend(ids);
                denied(user, missing)
            }
            Err(AccessError::Client(error @ ClientError::Refused { .. })) => Found::Denied(error.to_string()),
            // Their being away is told elsewhere.
            Err(AccessError::Client(_)) => Found::Unknown,
            Ok(_) if !ids.is_empty() => denied(user(&self.config), ids),
            Ok(Verdict::Allowed) => Found::Allowed,
            // Brokers that refuse and do not say what.
            Ok(Verdict::Unsaid) => match &state.latest {
                Some((what, when)) if when.elapsed() < UNEXPLAINED => {
                    Found::Denied(format!("Kafka refuses a request ({what}); compare its ACLs with `tripline acls print`"))
                }
                _ => Found::Allowed,
            },
        }
    }
}

/// The right to use a transactional id.
pub fn id_right(id: &str) -> Right {
    Right { resource: Resource::TransactionalId, name: id.to_owned(), prefixed: false, operation: Operation::Write, why: "transactions" }
}
