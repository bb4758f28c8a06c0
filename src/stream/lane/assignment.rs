//! Partitions come and go: rebalance callbacks, restored tasks, positions.

use super::*;

/// How long an assignment waits for the first offsets of its partitions.
const FIRST_OFFSETS_WITHIN: Duration = Duration::from_secs(1);

impl Driver {
    pub(super) fn ids(&self, list: &TopicPartitionList) -> Vec<TaskId> {
        if list.count() == 0 {
            return Vec::new();
        }
        list.elements().iter().filter_map(|e| self.shared.task(e.topic(), e.partition())).collect()
    }

    pub(super) fn list(&self, tasks: impl IntoIterator<Item = TaskId>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for task in tasks {
            list.add_partition(self.shared.topic(task), task.partition);
        }
        list
    }

    pub(super) fn on_assign(&mut self, consumer: &BaseConsumer<Context>, list: &mut TopicPartitionList) {
        // An explicit offset always: without one the client would ask for the committed one and block on a pending commit.
        // It is an absolute one: a logical one (beginning, end) is looked up at the broker, and a late answer to that would
        // move the position after our seek. What is read there before the pause takes effect is dropped by `on_record`.
        self.set_first_offsets(consumer, list);
        if let Err(error) = consumer.incremental_assign(list) {
            warn!(lane = self.number, %error, "assign failed: the consumer is rebuilt");
            self.consumer_is_dead = true;
            return;
        }
        let tasks = self.ids(list);
        if tasks.is_empty() {
            return;
        }
        if let Err(error) = consumer.pause(list) {
            warn!(lane = self.number, %error, "pause failed");
        }
        self.shared.metrics.rebalances.assign.inc();
        info!(lane = self.number, tasks = tasks.len(), "partitions assigned");
        let effects = self.protocol.step(Input::Assigned(tasks));
        self.perform(Some(consumer), effects);
    }

    /// Partitions are assigned at the first offset that they have: the client may ask for records before the pause takes effect, and a
    /// partition whose first records retention has taken would then stop for good.
    fn set_first_offsets(&self, consumer: &BaseConsumer<Context>, list: &mut TopicPartitionList) {
        let found = first_offsets(consumer, list).inspect_err(|error| debug!(lane = self.number, %error, "first offsets are not known"));
        let ids: Vec<_> = list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect();
        for (topic, partition) in ids {
            let element = found.as_ref().ok().and_then(|found| found.find_partition(&topic, partition));
            let first = element.filter(|element| element.error().is_ok()).and_then(|element| element.offset().to_raw());
            let _ = list.set_partition_offset(&topic, partition, Offset::Offset(first.filter(|first| *first >= 0).unwrap_or(0)));
        }
    }

    pub(super) fn on_revoke(&mut self, consumer: &BaseConsumer<Context>, list: &TopicPartitionList) {
        let tasks = self.ids(list);
        if !tasks.is_empty() {
            let lost = consumer.assignment_lost();
            if lost {
                self.shared.metrics.rebalances.lost.inc()
            } else {
                self.shared.metrics.rebalances.revoke.inc()
            };
            info!(lane = self.number, tasks = tasks.len(), lost, "partitions taken back");
            let _ = failpoints::reach(Point::InRevoke);
            self.tell_touched();
            let effects = self.protocol.step(if lost || std::thread::panicking() { Input::Lost(tasks) } else { Input::Revoked(tasks) });
            self.perform(Some(consumer), effects);
            let _ = failpoints::reach(Point::AfterRevoke);
        }
        if let Err(error) = consumer.incremental_unassign(list) {
            warn!(lane = self.number, %error, "unassign failed");
        }
    }

    /// What to ask for a task that is to be restored.
    pub(super) fn request(&mut self, task: TaskId) -> restore::Request {
        self.call_off(task);
        self.generation += 1;
        let flag = |is_set| Arc::new(AtomicBool::new(is_set));
        let (generation, spoiled, called_off) = (self.generation, flag(self.spoiled.remove(&task)), flag(false));
        self.restores.insert(task, Restoring { generation, spoiled: spoiled.clone(), called_off: called_off.clone() });
        restore::Request { task, generation, spoiled, called_off }
    }

    /// Nobody waits for the restore of this task any more. A store that it was to set aside and did not is left to the next one.
    pub(super) fn call_off(&mut self, task: TaskId) {
        if let Some(restoring) = self.restores.remove(&task) {
            restoring.called_off.store(true, Ordering::Relaxed);
            if restoring.spoiled.load(Ordering::Relaxed) {
                self.spoiled.insert(task);
            }
        }
    }

    fn is_current(&self, id: TaskId, generation: u64) -> bool {
        self.protocol.owns(id) && self.restores.get(&id).is_some_and(|restoring| restoring.generation == generation)
    }

    pub(super) fn take_restored(&mut self, consumer: &BaseConsumer<Context>) {
        loop {
            match self.answers.try_recv() {
                Ok(restore::Answer { task: id, generation, outcome: Ok(ready) }) => {
                    if !self.is_current(id, generation) {
                        drop(ready);
                        self.release(id);
                        continue;
                    }
                    self.restores.remove(&id);
                    let input = match ready.committed {
                        Some(committed) => Input::Restored(id, committed),
                        None => Input::RestoredFresh(id, ready.next_offset),
                    };
                    self.tasks.insert(id, Task::new(ready));
                    let effects = self.protocol.step(input);
                    self.perform(Some(consumer), effects);
                }
                Ok(restore::Answer { task: id, generation, outcome: Err(error) }) => {
                    if !self.is_current(id, generation) {
                        continue;
                    }
                    match error {
                        // Brokers come and go, and another lane takes its time: asked again, for as long as it takes.
                        RestoreError::Kafka { .. } | RestoreError::Held(_) | RestoreError::Moved(_) => {
                            if !error.is_refusal() {
                                warn!(lane = self.number, %error, "restore is tried again");
                            }
                            self.wanted.push_back(id);
                        }
                        error => self.give_up(error.into()),
                    }
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    if self.is_restoring() {
                        self.give_up(LaneError::Restorer);
                    }
                    return;
                }
            }
        }
    }

    /// Seeks do nothing inside a rebalance callback, so they are done here. Each element's error is looked at.
    pub(super) fn seek(&mut self, consumer: &BaseConsumer<Context>) {
        let due: BTreeMap<TaskId, i64> = self.tasks.iter().filter_map(|(id, t)| Some((*id, t.seek?))).collect();
        self.seeking.retain(|id, _| due.contains_key(id));
        if due.is_empty() {
            return;
        }
        let now = Instant::now();
        if due.keys().any(|id| now.duration_since(*self.seeking.entry(*id).or_insert(now)) > SEEK_LIMIT) {
            warn!(lane = self.number, "a partition cannot be positioned: the consumer is rebuilt");
            self.seeking.clear();
            self.consumer_is_dead = true;
            return;
        }
        let mut list = TopicPartitionList::new();
        for (id, offset) in &due {
            let _ = list.add_partition_offset(self.shared.topic(*id), id.partition, Offset::Offset(*offset));
        }
        let done = match consumer.seek_partitions(list, Duration::from_secs(1)) {
            Ok(done) => done,
            Err(error) => {
                debug!(lane = self.number, %error, "seek failed, tried again");
                return;
            }
        };
        let mut resume = Vec::new();
        for element in done.elements() {
            let Some(id) = self.shared.task(element.topic(), element.partition()) else { continue };
            match (element.error(), self.tasks.get_mut(&id)) {
                (Ok(()), Some(task)) => {
                    task.seek = None;
                    self.seeking.remove(&id);
                    if std::mem::take(&mut task.paused) {
                        resume.push(id);
                    }
                }
                // It does not fetch any more, and no seek changes that.
                (Err(error), _) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::State) => {
                    warn!(
                        lane = self.number,
                        topic = element.topic(),
                        partition = element.partition(),
                        "a partition has stopped: the consumer is rebuilt"
                    );
                    self.consumer_is_dead = true;
                }
                (Err(error), _) => debug!(lane = self.number, %error, "seek of one partition failed, tried again"),
                (Ok(()), None) => {}
            }
        }
        // Only what is paused: resuming a partition that is not has stalled consumers before.
        if !resume.is_empty()
            && let Err(error) = consumer.resume(&self.list(resume))
        {
            warn!(lane = self.number, %error, "resume failed");
        }
    }
}

/// The first offset that each partition still has, by one question.
fn first_offsets(consumer: &BaseConsumer<Context>, list: &TopicPartitionList) -> KafkaResult<TopicPartitionList> {
    let mut firsts = list.clone();
    if firsts.count() == 0 {
        return Ok(firsts);
    }
    // As times, these are "the first there is" in Kafka's protocol.
    firsts.set_all_offsets(Offset::Beginning)?;
    consumer.offsets_for_times(firsts, FIRST_OFFSETS_WITHIN)
}
