//! The clients, as far as librdkafka behaves differently from the wire: a transactional producer that retries by itself, and
//! a consumer with positions.

use super::choices::About;
use super::kafka::group::{News, Offsets};
use super::kafka::log::Record;
use super::kafka::transactions::Refusal;
use super::kafka::{Late, Place, Topic};
use super::world::{Seen, Shared, World, pause};
use std::collections::{BTreeMap, BTreeSet};
use tripline_core::protocol::{Failure, TaskId};

/// A transactional producer.
#[derive(Debug)]
pub struct Producer {
    shared: Shared,
    id: usize,
    epoch: u32,
    added: BTreeSet<Place>,
    is_open: bool,
    /// Dead for good.
    is_fatal: bool,
    /// A record of the open transaction could not be delivered.
    has_failed: bool,
    /// A request was sent again because its answer did not come: the first may still arrive.
    pub is_tainted: bool,
    placed: Vec<(usize, i64)>,
}

impl Producer {
    /// Connects: fences every earlier producer of this id, and waits until what it left open is ended.
    pub async fn connect(shared: &Shared, id: usize) -> Producer {
        loop {
            pause().await;
            let epoch = shared.world().kafka.transactions.init(id);
            if let Ok(epoch) = epoch {
                let (added, placed) = (BTreeSet::new(), Vec::new());
                let shared = shared.clone();
                return Producer {
                    shared,
                    id,
                    epoch,
                    added,
                    is_open: false,
                    is_fatal: false,
                    has_failed: false,
                    is_tainted: false,
                    placed,
                };
            }
        }
    }

    /// The world that it is in.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Begins a transaction; the brokers hear of it with the first record.
    pub fn begin(&mut self) -> Result<(), Failure> {
        if self.is_fatal || self.is_open {
            return Err(Failure::InDoubt);
        }
        (self.is_open, self.has_failed) = (true, false);
        self.added.clear();
        self.placed.clear();
        Ok(())
    }

    async fn add(&mut self, place: Place) -> Result<(), Refusal> {
        while !self.added.contains(&place) {
            pause().await;
            let added = self.shared.world().kafka.transactions.add(self.id, self.epoch, place);
            match added {
                Ok(()) => {
                    self.added.insert(place);
                }
                Err(Refusal::Concurrent) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }

    fn refused(&mut self, refusal: Refusal) -> Failure {
        self.is_fatal |= refusal == Refusal::Fenced;
        if self.is_fatal { Failure::InDoubt } else { Failure::Abortable }
    }

    /// Produces a record. That it could not be delivered is heard of when the transaction is drained.
    pub async fn send(&mut self, at: (Topic, i32), record: Record, tag: usize) -> Result<(), Failure> {
        if self.is_fatal {
            return Err(Failure::InDoubt);
        }
        let added = self.add(Place::Log(at.0, at.1)).await;
        pause().await;
        let placed = added.and_then(|()| {
            let World { kafka, choices, faults, .. } = &mut *self.shared.world();
            if choices.strikes(About::Request, faults.delivery_failed) {
                return Err(Refusal::InvalidState);
            }
            kafka.produce(self.id, self.epoch, at, record)
        });
        match placed {
            Ok(offset) if tag > 0 => self.placed.push((tag, offset)),
            Ok(_) => {}
            Err(refusal) => {
                self.refused(refusal);
                self.has_failed = true;
            }
        }
        Ok(())
    }

    /// Waits until every record is acknowledged; answers the offsets of the tagged ones.
    pub async fn drain(&mut self) -> Result<Vec<(usize, i64)>, Failure> {
        pause().await;
        match (self.is_fatal, self.has_failed) {
            (true, _) => Err(Failure::InDoubt),
            (_, true) => Err(Failure::Abortable),
            _ => Ok(std::mem::take(&mut self.placed)),
        }
    }

    /// Adds the input offsets.
    pub async fn send_offsets(&mut self, incarnation: u64, offsets: &Offsets) -> Result<(), Failure> {
        self.add(Place::Offsets).await.map_err(|refusal| self.refused(refusal))?;
        loop {
            pause().await;
            let answer = {
                let World { kafka, choices, faults, .. } = &mut *self.shared.world();
                if choices.strikes(About::Request, faults.offsets_refused) {
                    Err(Refusal::UnknownMember)
                } else if choices.strikes(About::Request, faults.arrives_late) {
                    let (producer, epoch, offsets) = (self.id, self.epoch, offsets.clone());
                    kafka.late.push(Late::Offsets { producer, epoch, incarnation, offsets });
                    self.is_tainted = true;
                    continue;
                } else {
                    kafka.commit_offsets(self.id, self.epoch, incarnation, offsets.clone())
                }
            };
            return answer.map_err(|refusal| {
                self.shared.saw(Seen::OffsetsRefused);
                self.shared.note(|| format!("p{}: offsets refused: {refusal:?}", self.id));
                self.refused(refusal)
            });
        }
    }

    /// Commits.
    pub async fn commit(&mut self) -> Result<(), Failure> {
        self.end(true).await
    }

    /// Aborts.
    pub async fn abort(&mut self) -> Result<(), Failure> {
        self.end(false).await
    }

    async fn end(&mut self, commit: bool) -> Result<(), Failure> {
        if self.is_fatal {
            return Err(Failure::InDoubt);
        }
        let (producer, epoch) = (self.id, self.epoch);
        let word = if commit { "commit" } else { "abort" };
        // Nobody but us knows of a transaction without records.
        while !self.added.is_empty() {
            pause().await;
            let answer = {
                let world = &mut *self.shared.world();
                let (choices, faults) = (&mut world.choices, &world.faults);
                if choices.strikes(About::Request, faults.arrives_late) {
                    world.kafka.late.push(Late::End { producer, epoch, commit });
                    self.is_tainted = true;
                    world.note(|| format!("p{producer}: {word} is on its way for long, and sent again"));
                    continue;
                }
                if choices.strikes(About::Request, faults.answer_lost) {
                    let _ = world.kafka.transactions.end(producer, epoch, commit);
                    self.is_tainted = true;
                    world.note(|| format!("p{producer}: {word} arrived, its answer did not: sent again"));
                    continue;
                }
                if choices.strikes(About::Request, faults.given_up) {
                    let arrives = choices.pick(About::Request, 3);
                    match arrives {
                        0 => {}
                        1 => drop(world.kafka.transactions.end(producer, epoch, commit)),
                        _ => world.kafka.late.push(Late::End { producer, epoch, commit }),
                    }
                    world.note(|| format!("p{producer}: {word} given up; it {}", ["is lost", "arrived", "will arrive"][arrives]));
                    self.is_fatal = true;
                    return Err(Failure::InDoubt);
                }
                world.kafka.transactions.end(producer, epoch, commit)
            };
            match answer {
                Ok(()) => break,
                Err(Refusal::Concurrent) => {}
                Err(refusal) => {
                    self.shared.note(|| format!("p{producer}: {word} refused: {refusal:?}"));
                    self.is_fatal = true;
                    return Err(Failure::InDoubt);
                }
            }
        }
        self.is_open = false;
        pause().await;
        Ok(())
    }
}

/// A member of the group that reads committed records.
#[derive(Debug)]
pub struct Consumer {
    shared: Shared,
    instance: usize,
    incarnation: u64,
    assigned: BTreeSet<TaskId>,
    /// Where each partition goes on; those that are paused have none.
    positions: BTreeMap<TaskId, i64>,
    turn: usize,
}

/// What a poll brings.
#[derive(Debug)]
pub enum Polled {
    News(News),
    Record(TaskId, i64, Record),
    Nothing,
}

impl Consumer {
    /// Joins the group.
    pub fn join(shared: &Shared, instance: usize) -> Consumer {
        let incarnation = shared.world().kafka.group.join(instance);
        let (assigned, positions) = (BTreeSet::new(), BTreeMap::new());
        Consumer { shared: shared.clone(), instance, incarnation, assigned, positions, turn: 0 }
    }

    /// What the group knows the member by.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// News first, if it has arrived; then a record of one of the partitions.
    pub fn poll(&mut self) -> Polled {
        let world = &mut *self.shared.world();
        let hears = !world.choices.strikes(About::Environment, world.faults.news_late);
        if let Some(news) = world.kafka.group.news(self.instance, self.incarnation, &self.assigned).filter(|_| hears) {
            return Polled::News(news);
        }
        self.turn += 1;
        let turned = self.positions.iter().cycle().skip(self.turn % self.positions.len().max(1)).take(self.positions.len());
        for (task, position) in turned {
            let (topic, partition) = World::input(*task);
            if let Some((offset, record)) = world.kafka.log(topic, partition).next(*position) {
                let (task, record) = (*task, record.clone());
                self.positions.insert(task, offset + 1);
                return Polled::Record(task, offset, record);
            }
        }
        Polled::Nothing
    }

    /// Takes partitions; they are paused.
    pub fn assign(&mut self, tasks: &BTreeSet<TaskId>) {
        self.assigned.extend(tasks);
    }

    /// Lets go of partitions.
    pub fn unassign(&mut self, tasks: &BTreeSet<TaskId>) {
        for task in tasks {
            self.assigned.remove(task);
            self.positions.remove(task);
        }
        self.shared.world().kafka.group.let_go(self.instance, self.incarnation, tasks);
    }

    /// Everything was lost: lets go of it and joins again.
    pub fn rejoin(&mut self) {
        self.assigned.clear();
        self.positions.clear();
        self.incarnation = self.shared.world().kafka.group.join(self.instance);
    }

    /// What it believes to own.
    pub fn assigned(&self) -> BTreeSet<TaskId> {
        self.assigned.clone()
    }

    /// Goes on from an offset.
    pub fn seek(&mut self, task: TaskId, offset: i64) {
        if self.assigned.contains(&task) {
            self.positions.insert(task, offset);
        }
    }

    /// Shows no more of a partition until it is sought again.
    pub fn pause(&mut self, task: TaskId) {
        self.positions.remove(&task);
    }
}
