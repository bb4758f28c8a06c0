//! Doing what the protocol asks for: transactions, their outcome, and the one recovery path.

use super::*;

impl Driver {
    /// Does what the protocol asks for, in order; what happened becomes its next input.
    pub(super) fn perform(&mut self, consumer: Option<&BaseConsumer<Context>>, effects: Vec<Effect>) {
        let mut queue: VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            let input = match effect {
                Effect::Restore(id) => {
                    if self.tasks.remove(&id).is_some() {
                        self.release(id);
                        if let Some(consumer) = consumer
                            && let Err(error) = consumer.pause(&self.list([id]))
                        {
                            warn!(lane = self.number, %error, "pause failed");
                        }
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
                Effect::Begin => self.begin(),
                Effect::Seal(attempt, targets) => Some(Input::Sealed(self.commit(consumer, attempt, &targets))),
                Effect::Abort => Some(Input::Aborted(self.abort())),
                Effect::Apply(id, committed) => {
                    self.apply(id, committed);
                    None
                }
                Effect::Drop(id) => {
                    if let Some(task) = self.tasks.get_mut(&id) {
                        task.forget();
                    }
                    None
                }
                Effect::Close(id) => {
                    self.close(id);
                    None
                }
                Effect::Recover(ids) => Some(Input::Resolved(self.recover(consumer, &ids))),
            };
            if let Some(input) = input {
                queue.extend(self.protocol.step(input));
            }
        }
        if self.protocol.phase() == Phase::Idle && self.opened.take().is_some() {
            (self.records, self.changed_bytes) = (0, 0);
            self.tally.clear();
        }
    }

    pub(super) fn begin(&mut self) -> Option<Input> {
        self.opened = Some(Instant::now());
        self.tally.clear();
        if self.producer.as_ref().is_some_and(LaneProducer::is_suspect) {
            self.shared.metrics.commits.suspects.inc();
            warn!(lane = self.number, "a request of the last transaction may still be on its way: the next one begins with a new producer");
            return Some(Input::Failed(Failure::InDoubt));
        }
        let begun = self.producer.as_ref().map_or(Err(Failure::InDoubt), LaneProducer::begin);
        let begun = begun.and_then(|()| failpoints::reach(Point::AfterBegin));
        begun.err().map(Input::Failed)
    }

    pub(super) fn abort(&mut self) -> bool {
        self.shared.metrics.commits.aborts.inc();
        self.aborts_in_row += 1;
        let refusal = self.producer.as_ref().and_then(LaneProducer::refusal);
        refusal.into_iter().for_each(|code| self.shared.access.refused_code(code));
        if self.aborts_in_row > PATIENT_ABORTS {
            let pause = (self.aborts_in_row - PATIENT_ABORTS).saturating_mul(50).min(1_000);
            if refusal.is_none() {
                warn!(lane = self.number, aborts = self.aborts_in_row, "transactions are aborted one after the other");
            }
            std::thread::sleep(Duration::from_millis(pause));
        }
        self.producer.as_ref().is_some_and(|p| p.abort().is_ok())
    }

    pub(super) fn commit(
        &mut self,
        consumer: Option<&BaseConsumer<Context>>,
        attempt: CommitId,
        targets: &[(TaskId, Committed)],
    ) -> Result<(), Failure> {
        let started = Instant::now();
        failpoints::reach(Point::BeforeSeal)?;
        let producer = self.producer.take().ok_or(Failure::InDoubt)?;
        let result = self.commit_with(&producer, consumer, attempt, targets);
        self.producer = Some(producer);
        match result {
            Ok(()) => {
                let commits = &self.shared.metrics.commits;
                commits.total.inc();
                commits.seconds.observe(started.elapsed().as_secs_f64());
                commits.records.observe(self.records as f64);
                self.metrics.committed_now();
                // Only now: a kill here finds a commit that the store has not heard of.
                failpoints::reach(Point::AfterCommit)
            }
            Err(failure) => {
                debug!(lane = self.number, ?failure, "commit failed");
                Err(failure)
            }
        }
    }

    pub(super) fn commit_with(
        &mut self,
        producer: &LaneProducer,
        consumer: Option<&BaseConsumer<Context>>,
        attempt: CommitId,
        targets: &[(TaskId, Committed)],
    ) -> Result<(), Failure> {
        let consumer = consumer.ok_or(Failure::InDoubt)?;
        let mut offsets = TopicPartitionList::new();
        for (tag, (id, target)) in targets.iter().enumerate() {
            let Some(task) = self.tasks.get_mut(id) else { continue };
            task.seal(&self.shared, producer, &self.engine, *id, *target, tag + 1, &mut self.tally)?;
            let metadata = Metadata {
                v: LAYOUT,
                history: task.history.clone(),
                seq: target.seq,
                commit_id: attempt.to_hex(),
                owner: self.transactional_id.clone(),
                partitions: self.shared.partitions,
                fingerprint: task.last.map_or_else(|| task.found_fingerprint.clone(), restore::format_fingerprint),
                topic_id: task.topic_id.clone(),
                changelog_low: task.changelog_low,
            };
            let mut element = offsets.add_partition(self.shared.topic(*id), id.partition);
            element.set_offset(Offset::Offset(target.next_offset)).map_err(|_| Failure::Abortable)?;
            element.set_metadata(serde_json::to_string(&metadata).map_err(|_| Failure::Abortable)?);
        }
        failpoints::reach(Point::AfterChangelog)?;
        producer.drain()?;
        for (tag, offset) in producer.placed() {
            if let Some(task) = targets.get(tag.wrapping_sub(1)).and_then(|(id, _)| self.tasks.get_mut(id)) {
                task.marker_offset = offset;
            }
        }
        failpoints::reach(Point::AfterDrain)?;
        // The group's generation is read as late as possible: an earlier look is refused after a rebalance.
        let group = consumer.group_metadata().ok_or(Failure::Abortable)?;
        producer.send_offsets(&offsets, &group).inspect_err(|failure| {
            if *failure == Failure::Abortable {
                self.shared.metrics.commits.rebalances.inc();
            }
        })?;
        failpoints::reach(Point::AfterSendOffsets)?;
        producer.commit()
    }

    pub(super) fn apply(&mut self, id: TaskId, committed: Committed) {
        let budget = self.cache_budget();
        // Counted when the commit is known, whether it was known at once or had to be looked up.
        self.shared.metrics.add(&self.tally);
        self.tally.clear();
        self.suspects.retain(|(task, offset), _| *task != id || *offset >= committed.next_offset);
        self.aborts_in_row = 0;
        if let Some(task) = self.tasks.get_mut(&id) {
            task.apply(committed, budget);
        }
        let _ = failpoints::reach(Point::AfterApply);
    }

    pub(super) fn close(&mut self, id: TaskId) {
        self.wanted.retain(|wanted| *wanted != id);
        self.call_off(id);
        self.spoiled.remove(&id);
        self.suspects.retain(|(task, _), _| *task != id);
        if let Some(mut task) = self.tasks.remove(&id) {
            if let Err(error) = task.write() {
                warn!(lane = self.number, %error, "could not write on close; the changelog has it");
            }
            drop(task);
            self.release(id);
        }
    }

    pub(super) fn release(&self, id: TaskId) {
        if id.topic == 0 {
            self.shared.registry.release(id.partition);
        }
    }

    /// The one recovery path: a new producer with the same id, then the metadata tells what became of the attempt.
    pub(super) fn recover(&mut self, consumer: Option<&BaseConsumer<Context>>, ids: &[TaskId]) -> Vec<(TaskId, Found)> {
        self.shared.metrics.commits.rebuilds.inc();
        // A transaction that outlived its timeout is fenced by the broker itself: no other process is behind that.
        let timed_out = self.opened.is_some_and(|opened| opened.elapsed() >= self.shared.config.stream.transaction_timeout.0);
        if !timed_out && self.producer.as_ref().is_some_and(LaneProducer::is_fenced) {
            self.note_fenced();
        }
        warn!(lane = self.number, tasks = ids.len(), "rebuilding the producer and looking up what is committed");
        self.shared.health.waiting(&name(self.number), "looking up the outcome of a transaction");
        // Nobody knows: what the transaction changed must not stay, least of all when the process stops now.
        let unreadable = || ids.iter().map(|id| (*id, Found::Unreadable)).collect();
        self.producer = None;
        let _ = failpoints::reach(Point::InRecover);
        match connect_producer(&self.shared, &self.transactional_id) {
            Ok(producer) => self.producer = Some(producer),
            Err(source) => {
                self.give_up(LaneError::Client { what: "producer", source });
                return unreadable();
            }
        }
        let Some(consumer) = consumer else { return unreadable() };
        if let Ok(outcomes) = self.outcomes(consumer, ids, Duration::from_secs(2)) {
            return outcomes;
        }
        // One that is pending hides the others: asked one by one. What still does not answer is not waited for here, where
        // the whole lane would wait, but restored beside it.
        let deadline = Instant::now() + LOOK_UP_LIMIT;
        let mut outcomes = Vec::with_capacity(ids.len());
        for &id in ids {
            let patience = deadline.saturating_duration_since(Instant::now()).min(Duration::from_millis(300));
            let asked = if patience.is_zero() { Ok(Vec::new()) } else { self.outcomes(consumer, &[id], patience) };
            outcomes.push(asked.ok().and_then(|found| found.first().copied()).unwrap_or((id, Found::Unreadable)));
        }
        outcomes
    }

    /// What the metadata of these tasks says.
    fn outcomes(&self, consumer: &BaseConsumer<Context>, ids: &[TaskId], patience: Duration) -> Result<Vec<(TaskId, Found)>, KafkaError> {
        let found = consumer.committed_offsets(self.list(ids.iter().copied()), patience)?;
        let outcome = |id: &TaskId| {
            let Some(element) = found.find_partition(self.shared.topic(*id), id.partition) else { return Ok((*id, Found::Nothing)) };
            element.error()?;
            let commit = Metadata::parse(element.metadata()).and_then(|m| CommitId::from_hex(&m.commit_id));
            Ok((*id, commit.map_or(Found::Nothing, Found::Attempt)))
        };
        ids.iter().map(outcome).collect()
    }

    /// The lane cannot go on; while the process stops anyway that is no news.
    pub(super) fn give_up(&mut self, error: LaneError) {
        if !self.shared.is_stopping() {
            self.fatal.get_or_insert(error);
        }
    }

    /// The last commit, and every store written and closed.
    pub(super) fn finish(&mut self, consumer: &BaseConsumer<Context>, in_trouble: bool) {
        self.tell_touched();
        let tasks: Vec<TaskId> = self.protocol.tasks().collect();
        let effects = self.protocol.step(if in_trouble { Input::Lost(tasks) } else { Input::Revoked(tasks) });
        self.perform(Some(consumer), effects);
        info!(lane = self.number, "lane stopped");
    }
}

/// How long a lane waits altogether for what is not readable at once, after a doubt.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(3);

/// Connects for the first time: an id that Kafka does not allow ends the start.
pub(super) fn first_producer(shared: &Shared, id: &str) -> Result<LaneProducer, LaneError> {
    let producer = match try_producer(shared, id) {
        Err(error) if is_denied_id(&error) => {
            let missing = vec![access::id_right(id)];
            return Err(AccessError::Denied { user: access::user(&shared.config), missing }.into());
        }
        Err(KafkaError::Transaction(_)) => connect_producer(shared, id),
        other => other,
    };
    producer.map_err(|source| LaneError::Client { what: "producer", source })
}

/// Connects, again and again while brokers are away or refuse; a wrong property fails at once.
pub(super) fn connect_producer(shared: &Shared, id: &str) -> Result<LaneProducer, KafkaError> {
    loop {
        match try_producer(shared, id) {
            Err(error @ KafkaError::Transaction(_)) if !shared.is_stopping() => {
                if is_denied_id(&error) {
                    shared.access.id_refused(id);
                } else if !shared.access.refused(&error) {
                    warn!(%error, "init_transactions failed, tried again");
                }
                std::thread::sleep(Duration::from_millis(500));
            }
            other => {
                shared.access.id_accepted(id);
                return other;
            }
        }
    }
}

fn try_producer(shared: &Shared, id: &str) -> Result<LaneProducer, KafkaError> {
    let (timeout, largest_bytes) = (shared.config.stream.transaction_timeout.0, shared.config.max_record_bytes());
    LaneProducer::connect(&shared.base, id, timeout, largest_bytes, shared.memory.lane().produced)
}

fn is_denied_id(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.code() == RDKafkaErrorCode::TransactionalIdAuthorizationFailed)
}
