//! Whether an input partition has been read to its end, how many partitions inputs have, and whether somebody reads them all:
//! asked beside the lane, which must not wait for an answer.
//!
//! A partition is at its end for us when nothing at or after the task's next offset will ever be shown to a read_committed
//! reader, as of now. The high watermark alone does not tell: behind the last record stand records of transactions
//! themselves. Nor does an end-of-file event: it also comes below a transaction that is still open. So the high watermark
//! is taken first, and then the partition has to be read past it without meeting a record.

use super::changelog::{self, Isolation, Quiet, ReadError, Span};
use super::{Shared, access, unowned};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tracing::{debug, warn};
use tripline_core::protocol::TaskId;

/// Questions that wait at most; further ones are not asked, and the partition does not count as read to its end.
const QUEUE: usize = 1_024;
/// How long one look at a partition may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// As long for the ids of topics, which are not urgent; and after so many vain looks it is said.
const IDS_WITHIN: Duration = Duration::from_secs(5);
const TOLD_EVERY: u32 = 12;
/// Time between two looks at the partition counts of the inputs.
const LAYOUT_EVERY: Duration = Duration::from_secs(30);

/// What a lane asks.
#[derive(Debug, Clone, Copy)]
pub enum Question {
    /// Whether this router partition has anything at or after this offset. The number comes back with the answer.
    IsAtEnd(u64, TaskId, i64),
    /// To look at the partition counts, if that was long ago.
    Layout,
    /// Whether every partition has an owner.
    Owners,
    /// The ids of the input topics.
    Topics,
}

/// The answer to a question.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To [`Question::IsAtEnd`]: the question's number, the partition, and whether nothing is there; `false` also when nobody
    /// knows.
    IsAtEnd(u64, TaskId, bool),
    /// To [`Question::Owners`]: nobody reads some partitions, and that for longer than a hand-over lasts.
    Unowned,
    /// To [`Question::Topics`]: ids by name, as far as they are known.
    Topics(BTreeMap<String, String>),
}

/// A lane's end of the line.
#[derive(Debug)]
pub struct Prober {
    questions: SyncSender<Question>,
    answers: Receiver<Answer>,
}

impl Prober {
    /// Starts the thread of a lane. It connects with its first question, so that a lane that ends at its start pays nothing.
    pub fn start(shared: &Arc<Shared>, lane: usize, instance: &str) -> Prober {
        let (questions, asked) = sync_channel(QUEUE);
        let (answered, answers) = channel();
        let (shared, instance) = (shared.clone(), instance.to_owned());
        let thread = std::thread::Builder::new().name(format!("probe-{lane}")).spawn(move || serve(&shared, &instance, &asked, &answered));
        if let Err(source) = thread {
            warn!(%source, "cannot start the probe thread: what waits for time to pass in quiet partitions will not fire");
        }
        Prober { questions, answers }
    }

    /// Asks; whether the question was taken.
    pub fn ask(&self, question: Question) -> bool {
        match self.questions.try_send(question) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// An answer, if there is one.
    pub fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

fn serve(shared: &Arc<Shared>, instance: &str, questions: &Receiver<Question>, answers: &Sender<Answer>) {
    let mut probe = None;
    for question in questions {
        if probe.is_none() {
            probe = Probe::connect(shared).inspect_err(|error| warn!(%error, "cannot ask for the ends of input partitions")).ok();
        }
        match (question, &mut probe) {
            (Question::IsAtEnd(number, task, next), probe) => {
                let is_at_end = probe.as_ref().is_some_and(|probe| probe.is_at_end(task, next));
                if answers.send(Answer::IsAtEnd(number, task, is_at_end)).is_err() {
                    return;
                }
            }
            (Question::Layout, Some(probe)) => probe.look_at_layout(),
            (Question::Owners, Some(probe)) => {
                if probe.finds_unowned(instance) && answers.send(Answer::Unowned).is_err() {
                    return;
                }
            }
            (Question::Topics, Some(probe)) => {
                let topics: Vec<&str> = shared.inputs.iter().map(String::as_str).collect();
                match access::topic_ids(probe.ends.client(), &topics, IDS_WITHIN) {
                    Ok(ids) => {
                        probe.without_ids = 0;
                        if answers.send(Answer::Topics(ids)).is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        probe.without_ids += 1;
                        if probe.without_ids % TOLD_EVERY == 0 {
                            warn!(
                                error,
                                looks = probe.without_ids,
                                "the ids of the input topics are not known: nobody notices if one is made anew"
                            );
                        }
                    }
                }
            }
            (Question::Layout | Question::Owners | Question::Topics, None) => {}
        }
        if let Some(probe) = &probe {
            changelog::hear(&probe.committed);
            changelog::hear(&probe.ends);
        }
    }
}

struct Probe {
    shared: Arc<Shared>,
    committed: BaseConsumer<Quiet>,
    ends: BaseConsumer<Quiet>,
    looked: Option<Instant>,
    /// Looks in a row that brought no ids of topics.
    without_ids: u32,
    /// What nobody read at the last look, and since when.
    unowned: BTreeMap<(String, i32), Instant>,
}

impl Probe {
    fn connect(shared: &Arc<Shared>) -> Result<Probe, KafkaError> {
        let client = |isolation| changelog::client(&shared.base, &shared.config.app.id, isolation, changelog::FEW);
        Ok(Probe {
            shared: shared.clone(),
            committed: client(Isolation::Committed)?,
            ends: client(Isolation::Uncommitted)?,
            looked: None,
            without_ids: 0,
            unowned: BTreeMap::new(),
        })
    }

    fn is_at_end(&self, task: TaskId, next: i64) -> bool {
        let topic = self.shared.topic(task);
        let end = match self.ends.fetch_watermarks(topic, task.partition, PATIENCE) {
            Ok((_, end)) => end,
            Err(error) => {
                debug!(topic, partition = task.partition, %error, "the end of a partition is not known");
                return false;
            }
        };
        if end <= next {
            // Below what was read: the topic was made anew, and the task will say so.
            return end == next;
        }
        let mut found = false;
        let span = Span { topic, partition: task.partition, from: next, end };
        let read = changelog::read(
            &self.committed,
            span,
            PATIENCE,
            || self.shared.is_stopping(),
            |_| {
                found = true;
                Ok::<_, Infallible>(true)
            },
        );
        !found && read.inspect_err(|error: &ReadError<Infallible>| debug!(?error, "a look past the last record ended early")).is_ok()
    }

    /// A partition between two owners has none while the former one ends its transaction; one that is without for longer has
    /// been forgotten.
    fn finds_unowned(&mut self, instance: &str) -> bool {
        let found = unowned::look(&self.shared, &self.ends, instance);
        let found = found.inspect_err(|error| debug!(%error, "the owners of partitions are not known")).unwrap_or_default();
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.unowned);
        let since = |partition| (before.remove(&partition).unwrap_or(now), partition);
        self.unowned = found.into_iter().map(since).map(|(since, partition)| (partition, since)).collect();
        let stream = &self.shared.config.stream;
        let hand_over = stream.session_timeout.0 + stream.transaction_timeout.0;
        let forgotten: Vec<_> = self.unowned.iter().filter(|(_, since)| now.duration_since(**since) >= hand_over).collect();
        let Some(((topic, partition), _)) = forgotten.first() else { return false };
        warn!(partitions = forgotten.len(), topic, partition, "partitions without an owner: the group is asked to distribute them");
        self.unowned.clear();
        true
    }

    fn look_at_layout(&mut self) {
        if self.looked.is_some_and(|looked| looked.elapsed() < LAYOUT_EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        for topic in self.shared.inputs.iter().skip(1) {
            let found = self.ends.fetch_metadata(Some(topic), PATIENCE);
            let count = found.ok().and_then(|m| m.topics().iter().find(|t| t.name() == topic).map(|t| t.partitions().len() as i32));
            if let Some(count) = count.filter(|count| *count > 0) {
                self.shared.layout.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.clone(), count);
            }
        }
    }
}
