//! Access: what a worker needs to be allowed ([`rights`]), what the brokers say of it ([`authorized`]), and what happens
//! while they refuse it ([`Watch`]).
//!
//! A refusal at the start ends the process with everything that is missing in one message. While the process runs, it waits
//! until the right is back: not ready, one line in the log every 30 s, and on it goes. `docs/security.md` is the operator's side.

mod authorized;
pub mod rights;
mod watch;

pub use authorized::{Answer, topic_ids};
pub(in crate::stream) use watch::is_refusal_code;
pub use watch::{Watch, id_right, is_refusal};

use crate::config::Config;
use crate::stream::Role;
use crate::stream::changelog::Quiet;
use crate::stream::client::{self, ClientError};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rights::{Operation, Purpose, Resource, Right};
use std::time::Duration;

/// How long the cluster may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why a worker may not do its work.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// There is no client, no cluster, or it refuses to talk to us.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Rights are missing: all of them.
    #[error("{}", denied(user, missing))]
    Denied {
        /// `sasl.username`, if there is one.
        user: Option<String>,
        /// What is missing.
        missing: Vec<Right>,
    },
}

impl AccessError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            AccessError::Client(error) => error.exit_code(),
            AccessError::Denied { .. } => 4,
        }
    }
}

fn denied(user: &Option<String>, missing: &[Right]) -> String {
    let who = user.as_ref().map_or_else(|| "this client".to_owned(), |user| format!("user `{user}`"));
    let what: Vec<String> = missing.iter().map(Right::to_string).collect();
    format!(
        "Kafka does not allow {who}: {}; `tripline acls print` says what is needed, and as commands with `-o commands`",
        what.join(", ")
    )
}

/// Who we are to the brokers, as far as the settings tell.
pub(in crate::stream) fn user(config: &Config) -> Option<String> {
    config.kafka.properties.get("sasl.username").cloned()
}

/// What the cluster says of the rights of these roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is allowed.
    Allowed,
    /// Nothing is denied, and not everything was said.
    Unsaid,
}

/// Asks the cluster for every right that these roles cannot do without; the error names all that are missing. Topics that do not exist
/// are not its matter, and transactional ids answer only to those who use them.
pub fn verify(config: &Config, roles: &[Role], patience: Duration) -> Result<Verdict, AccessError> {
    client::reach(config, patience)?;
    let client: BaseConsumer<Quiet> = client::base(config).create_with_context(Quiet).map_err(ClientError::creating)?;
    let needed = rights::needed(config, &[Purpose::Run], roles);
    // Settings that cannot be read are a warning of the topics' check.
    let needed: Vec<Right> = needed.into_iter().filter(|right| right.operation != Operation::DescribeConfigs).collect();
    let names = |resource| {
        let mut names: Vec<&str> = needed.iter().filter(|r| r.resource == resource).map(|r| r.name.as_str()).collect();
        names.dedup();
        names
    };
    let unreachable = |why| ClientError::Unreachable { servers: config.kafka.bootstrap_servers.clone(), why };
    let topics = authorized::topics(client.client(), &names(Resource::Topic), TIMEOUT).map_err(unreachable)?;
    let groups = authorized::groups(client.client(), &names(Resource::Group), TIMEOUT).map_err(unreachable)?;
    let mut verdict = Verdict::Allowed;
    let mut missing = Vec::new();
    for right in needed {
        let answer = match right.resource {
            Resource::Topic => topics.get(&right.name),
            Resource::Group => groups.get(&right.name),
            Resource::TransactionalId => continue,
        };
        match answer {
            Some(Answer::Allowed(operations)) if operations.contains(&right.operation) => {}
            Some(Answer::Allowed(_) | Answer::Denied) => missing.push(right),
            Some(Answer::Absent) => {}
            Some(Answer::Unsaid | Answer::Unknown(_)) | None => verdict = Verdict::Unsaid,
        }
    }
    if missing.is_empty() { Ok(verdict) } else { Err(AccessError::Denied { user: user(config), missing }) }
}

/// Those of `names` that this client may not see: whether they exist nobody tells it.
pub(in crate::stream) fn hidden<C: rdkafka::ClientContext>(
    client: &rdkafka::client::Client<C>,
    names: &[&str],
) -> Result<Vec<String>, String> {
    let answers = authorized::topics(client, names, TIMEOUT)?;
    Ok(answers.into_iter().filter(|(_, answer)| *answer == Answer::Denied).map(|(name, _)| name).collect())
}
