//! As `src/stream/lane/effects.rs`: doing what the protocol asks for.

use super::*;
use crate::kafka::group::CommittedOffset;
use crate::world::World;
use tripline_core::protocol::start::{LAYOUT, Metadata};
use tripline_core::protocol::{CommitId, Committed, Effect, Found};

impl Driver {
    /// Does what the protocol asks for, in order; what happened becomes its next input.
    pub(super) async fn perform(&mut self, effects: Vec<Effect>) {
        let mut queue: VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            pause().await;
            let input = match effect {
                Effect::Restore(id) => {
                    if self.tasks.remove(&id).is_some() {
                        self.desk.release(id);
                        self.consumer.pause(id);
                    }
                    self.call_off(id);
                    self.wanted.push_back(id);
                    None
                }
                Effect::Resume(id, offset) | Effect::Rewind(id, offset) => {
                    if let Some(task) = self.tasks.get_mut(&id) {
                        task.rewind(offset);
                    }
                    None
                }
                Effect::Begin => self.begin().err().map(Input::Failed),
                Effect::Seal(attempt, targets) => {
                    let sealed = self.commit(attempt, &targets).await;
                    self.shared.note(|| format!("p{}: commit {}: {}", self.number, attempt.0, outcome(&targets, sealed)));
                    Some(Input::Sealed(sealed))
                }
                Effect::Abort => {
                    let aborted = match &mut self.producer {
                        Some(producer) => producer.abort().await.is_ok(),
                        None => false,
                    };
                    self.shared.saw(Seen::Aborted);
                    self.shared.note(|| format!("p{}: abort: {aborted}", self.number));
                    Some(Input::Aborted(aborted))
                }
                Effect::Apply(id, committed) => {
                    self.apply(id, committed);
                    None
                }
                Effect::Drop(id) => {
                    let bug = self.shared.world().bug;
                    if let Some(task) = self.tasks.get_mut(&id) {
                        task.forget(bug);
                    }
                    None
                }
                Effect::Close(id) => {
                    self.close(id);
                    None
                }
                Effect::Recover(ids) => Some(Input::Resolved(self.recover(&ids).await)),
            };
            if let Some(input) = input {
                queue.extend(self.protocol.step(input));
            }
        }
        if self.protocol.phase() == Phase::Idle && self.patience.take().is_some() {
            self.records = 0;
            self.tally = Counted::default();
        }
    }

    fn begin(&mut self) -> Result<(), Failure> {
        let trusts = {
            let mut world = self.shared.world();
            self.patience = Some([4, 1, 2, 8, 16][world.choices.pick(About::Process, 5)]);
            world.bug == Some(Bug::LateRequestsTrusted)
        };
        self.tally = Counted::default();
        // A request of the last transaction may still arrive, and nothing in it would tell it from one of the next: the next one
        // gets an epoch of its own.
        if self.producer.as_ref().is_some_and(|producer| producer.is_tainted) && !trusts {
            self.shared.saw(Seen::ProducerRebuilt);
            return Err(Failure::InDoubt);
        }
        self.producer.as_mut().ok_or(Failure::InDoubt)?.begin()
    }

    async fn commit(&mut self, attempt: CommitId, targets: &[(TaskId, Committed)]) -> Result<(), Failure> {
        let mut producer = self.producer.take().ok_or(Failure::InDoubt)?;
        let result = self.commit_with(&mut producer, attempt, targets).await;
        self.producer = Some(producer);
        result
    }

    async fn commit_with(&mut self, producer: &mut Producer, attempt: CommitId, targets: &[(TaskId, Committed)]) -> Result<(), Failure> {
        let mut offsets = BTreeMap::new();
        for (tag, (id, target)) in targets.iter().enumerate() {
            let Some(task) = self.tasks.get_mut(id) else { continue };
            task.seal(producer, *id, *target, tag + 1).await?;
            let metadata = Metadata {
                v: LAYOUT,
                history: task.history.clone(),
                seq: target.seq,
                commit_id: attempt.to_hex(),
                owner: format!("p{}", self.number),
                partitions: crate::world::PARTITIONS,
                fingerprint: String::new(),
                topic_id: None,
                changelog_low: 0,
            };
            let metadata = serde_json::to_string(&metadata).map_err(|_| Failure::Abortable)?;
            offsets.insert(*id, CommittedOffset { offset: target.next_offset, metadata: metadata.into() });
        }
        for (tag, offset) in producer.drain().await? {
            if let Some(task) = targets.get(tag - 1).and_then(|(id, _)| self.tasks.get_mut(id)) {
                task.marker_offset = offset;
            }
        }
        if self.shared.world().bug == Some(Bug::WrittenBeforeCommit) {
            self.write_early(targets);
        }
        producer.send_offsets(self.consumer.incarnation(), &offsets).await?;
        producer.commit().await
    }

    /// [`Bug::WrittenBeforeCommit`].
    fn write_early(&mut self, targets: &[(TaskId, Committed)]) {
        for (id, _) in targets.iter().filter(|(id, _)| id.topic == 0) {
            let mut world = self.shared.world();
            if let (Some(task), Some(store)) = (self.tasks.get_mut(id), world.disks[self.number].get_mut(&id.partition)) {
                let local = store.local();
                let _ = store.write(&task.states.encode(), local.as_ref());
            }
        }
    }

    fn apply(&mut self, id: TaskId, committed: Committed) {
        let tally = std::mem::take(&mut self.tally);
        self.shared.saw(Seen::Committed);
        let known = (tally.records() > 0).then(|| self.shared.world().counted.insert(committed.commit_id.0, tally)).flatten();
        if known.is_some() {
            self.shared.violated(format!("the records of commit {} are counted twice", committed.commit_id.0));
        }
        self.suspects.retain(|(task, offset), _| *task != id || *offset >= committed.next_offset);
        if let Some(task) = self.tasks.get_mut(&id) {
            task.apply(id, committed, &self.shared);
        }
    }

    fn close(&mut self, id: TaskId) {
        self.wanted.retain(|wanted| *wanted != id);
        self.call_off(id);
        self.spoiled.remove(&id);
        self.suspects.retain(|(task, _), _| *task != id);
        // The changelog has it.
        let _ = self.write(id);
        if self.tasks.remove(&id).is_some() {
            self.desk.release(id);
        }
    }

    /// The one recovery path: a new producer with the same id, then the metadata tells what became of the attempt.
    async fn recover(&mut self, ids: &[TaskId]) -> Vec<(TaskId, Found)> {
        self.producer = None;
        self.producer = Some(Producer::connect(&self.shared, self.number).await);
        let mut outcomes = Vec::new();
        for id in ids {
            let found = self.look_up(*id).await;
            let before = self.protocol.committed(*id).map_or(Found::Nothing, |before| Found::Attempt(before.commit_id));
            let is_ours = matches!((found, self.protocol.phase()), (Found::Attempt(commit), Phase::InDoubt(attempt)) if commit == attempt);
            // Somebody else's commit, or nobody said: whether ours came before is never known.
            self.shared.world().has_lost_counts |= !is_ours && found != before;
            self.shared.saw(match found {
                Found::Unreadable => Seen::Unreadable,
                _ if is_ours => Seen::DoubtCommitted,
                _ => Seen::DoubtAborted,
            });
            outcomes.push((*id, found));
        }
        self.shared.note(|| format!("p{}: recovered: {outcomes:?}", self.number));
        outcomes
    }

    /// What the metadata of a task says, if that becomes readable soon.
    async fn look_up(&self, id: TaskId) -> Found {
        loop {
            pause().await;
            let World { kafka, choices, faults, .. } = &mut *self.shared.world();
            if choices.strikes(About::Request, faults.unreadable) {
                return Found::Unreadable;
            }
            if let Ok(found) = kafka.group.committed(id) {
                let metadata = found.and_then(|found| Metadata::parse(&found.metadata));
                return metadata.and_then(|m| CommitId::from_hex(&m.commit_id)).map_or(Found::Nothing, Found::Attempt);
            }
        }
    }

    /// The last commit, and every store written and closed.
    pub(super) async fn finish(&mut self) {
        self.tell_touched();
        let effects = self.protocol.step(Input::Revoked(self.protocol.tasks().collect()));
        self.perform(effects).await;
    }
}

fn outcome(targets: &[(TaskId, Committed)], sealed: Result<(), Failure>) -> String {
    let tasks: Vec<String> = targets.iter().map(|(id, to)| format!("{} to seq {} offset {}", name(*id), to.seq, to.next_offset)).collect();
    format!("{} {sealed:?}", tasks.join(", "))
}
