//! One schedule: who takes the next step, and what the environment does meanwhile. Then everything calms down, and what was
//! promised has to hold.

use super::choices::{About, Choices, Made};
use super::driver;
use super::driver::restore::Desk;
use super::kafka::Topic;
use super::kafka::log::Record;
use super::promises;
use super::workload::inputs;
use super::world::{Bug, Seen, Shared, Sights, World};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};

/// Steps with faults.
const STORMY: usize = 900;
/// Steps in which everything has to come to rest.
const CALM: usize = 15_000;
/// Steps between two looks whether everything has come to rest.
const LOOK: usize = 32;
/// What the changelog may compact is at least so many steps old: longer than any restore takes.
const COMPACTION_LAG: usize = 250;

/// What came of a schedule.
pub struct Report {
    /// The broken promise, if there is one.
    pub violation: Option<String>,
    /// What was chosen.
    pub choices: Made,
    /// What happened, if that was asked for.
    pub trace: Vec<String>,
    /// What it went through.
    pub sights: Sights,
}

/// The thread of a process that connects and restores.
const HELPER: usize = 1;

struct Process {
    /// The lane, and its helper that connects and restores.
    threads: Vec<Pin<Box<dyn Future<Output = ()>>>>,
    /// Steps until a dead one is started again, or a frozen one wakes.
    away: usize,
    /// Steps until the helper goes on, while the lane does all the time: a disk or a broker is slow.
    stalled: usize,
}

impl Process {
    fn start(shared: &Shared, number: usize) -> Process {
        let desk = Rc::new(Desk::default());
        let threads: [Pin<Box<dyn Future<Output = ()>>>; 2] =
            [Box::pin(driver::run(shared.clone(), number, desk.clone())), Box::pin(driver::restore::serve(shared.clone(), number, desk))];
        Process { threads: threads.into(), away: 0, stalled: 0 }
    }

    fn is_dead(&self) -> bool {
        self.threads.is_empty()
    }

    /// One step of one of its threads. Answers whether the lane has ended.
    fn step(&mut self, thread: usize) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.threads[thread].as_mut().poll(&mut context).is_ready()
    }
}

/// Runs one schedule.
pub fn run(mut choices: Choices, bug: Option<Bug>, is_traced: bool) -> Report {
    let is_routed = choices.pick(About::Workload, 2) == 1;
    let count = 2 + choices.pick(About::Workload, 2);
    let mut inputs = inputs(&mut choices, is_routed);
    inputs.reverse();
    let shared = Shared::new(choices, is_routed, count, bug, is_traced);
    let processes = (0..count).map(|number| Process::start(&shared, number)).collect();
    let mut schedule = Schedule { shared, processes, inputs, cursor: 0, steps: 0, ends: Vec::new() };
    schedule.storm();
    schedule.calm();
    let Schedule { shared, processes, .. } = schedule;
    drop(processes);
    let mut world = shared.into_world();
    let violation = world.violation.take().or_else(|| promises::hold(&world).err());
    let trace = world.take_trace();
    Report { violation, trace, sights: world.sights, choices: world.choices.into_made() }
}

struct Schedule {
    shared: Shared,
    processes: Vec<Process>,
    /// The next input is the last one.
    inputs: Vec<((Topic, i32), Record)>,
    cursor: usize,
    steps: usize,
    /// Ends of the changelog's partitions, at the steps where they were looked at.
    ends: Vec<(usize, Vec<i64>)>,
}

impl Schedule {
    fn is_violated(&self) -> bool {
        self.shared.world().violation.is_some()
    }

    fn storm(&mut self) {
        for _ in 0..STORMY {
            if self.is_violated() {
                return;
            }
            let (skip, strikes) = {
                let World { choices, faults, .. } = &mut *self.shared.world();
                (choices.byte(About::Turn), choices.strikes(About::Environment, faults.environment))
            };
            if strikes {
                self.disturb();
            }
            self.step(usize::from(skip));
        }
    }

    /// Everybody is there and nothing goes wrong any more: everything has to come to its end.
    fn calm(&mut self) {
        {
            let mut world = self.shared.world();
            world.choices.is_calm = true;
            world.note(|| "everything calms down".into());
            while world.kafka.deliver_late(0).is_some() {}
        }
        let (mut quiet, mut after) = (0, 0);
        while after < CALM && !self.is_violated() {
            after += 1;
            self.step(0);
            let is_stopping = self.shared.world().is_stopping;
            if is_stopping && self.processes.iter().all(Process::is_dead) {
                return self.settle();
            }
            if after.is_multiple_of(LOOK) && !is_stopping {
                quiet = if self.is_idle() { quiet + 1 } else { 0 };
                self.shared.world().is_stopping = quiet > 1;
            }
        }
        if !self.is_violated() {
            let state = format!("{:?}", self.shared.world().kafka.transactions);
            self.shared.violated(format!("liveness: the schedule does not come to rest: {state}"));
        }
    }

    /// All input is taken, every transaction has ended.
    fn is_idle(&self) -> bool {
        let world = self.shared.world();
        let lag = |task| {
            let (topic, partition) = World::input(task);
            let next = world.kafka.group.committed(task).ok().flatten().map_or(-1, |c| c.offset);
            next < 0 || world.kafka.log(topic, partition).next(next).is_some()
        };
        self.inputs.is_empty() && world.kafka.is_settled() && !world.kafka.group.tasks().iter().any(|task| lag(*task))
    }

    fn settle(&self) {
        let mut world = self.shared.world();
        while world.kafka.write_marker(0) {}
    }

    /// One step of somebody: usually of whoever's turn it is.
    fn step(&mut self, skip: usize) {
        self.steps += 1;
        for process in &mut self.processes {
            process.away = process.away.saturating_sub(1);
            process.stalled = process.stalled.saturating_sub(1);
        }
        let actors = 2 + 2 * self.processes.len();
        let at = (self.cursor + skip) % actors;
        self.cursor = (self.cursor + 1) % actors;
        match at {
            0 => self.step_of_brokers(),
            1 => self.append(),
            at => self.step_of_process((at - 2) / 2, (at - 2) % 2),
        }
    }

    fn step_of_brokers(&mut self) {
        let there: Vec<bool> = self.processes.iter().map(|process| !process.is_dead() && process.away == 0).collect();
        let mut world = self.shared.world();
        let which = world.choices.pick(About::Turn, 7);
        if !world.kafka.write_marker(which) {
            world.kafka.group.rebalance(|instance| there[instance]);
        }
        if self.steps.is_multiple_of(16) {
            let ends = (0..super::world::PARTITIONS).map(|p| world.kafka.log(Topic::Changelog, p).high_watermark()).collect();
            self.ends.push((self.steps, ends));
        }
    }

    fn append(&mut self) {
        if let Some(((topic, partition), record)) = self.inputs.pop() {
            self.shared.world().kafka.log_mut(topic, partition).append(record);
        }
    }

    fn step_of_process(&mut self, number: usize, thread: usize) {
        let process = &mut self.processes[number];
        if process.away > 0 || (thread == HELPER && process.stalled > 0) {
            return;
        }
        if process.is_dead() {
            if !self.shared.world().is_stopping {
                self.shared.note(|| format!("p{number} starts"));
                *process = Process::start(&self.shared, number);
            }
            return;
        }
        // The lane ends when everybody shall stop; its helper has no end of its own.
        if process.step(thread) {
            process.threads.clear();
        }
    }

    /// Something goes wrong.
    fn disturb(&mut self) {
        let (what, number, more) = {
            let choices = &mut self.shared.world().choices;
            (choices.pick(About::Environment, 15), choices.pick(About::Environment, self.processes.len()), choices.byte(About::Environment))
        };
        match what {
            0 => {}
            1 | 2 => self.kill(number, usize::from(more)),
            3 => self.kill_with_power(number, usize::from(more)),
            4 => self.freeze(number, usize::from(more)),
            5 => {
                self.expel(number);
            }
            6 => {
                self.shared.world().kafka.group.turn();
                self.shared.note(|| "partitions move".into());
            }
            7 => {
                if self.shared.world().kafka.transactions.time_out(number) {
                    self.shared.saw(Seen::TimedOut);
                    self.shared.note(|| format!("the transaction of p{number} times out"));
                }
            }
            8..=10 => {
                let late = self.shared.world().kafka.deliver_late(usize::from(more));
                if let Some(late) = late {
                    self.shared.saw(Seen::ArrivedLate);
                    self.shared.note(|| format!("arrives late: {}", late.name()));
                }
            }
            11 => self.fence(number),
            12 => self.damage(number, usize::from(more)),
            13 => self.stall(number, usize::from(more)),
            _ => self.compact(),
        }
    }

    fn kill(&mut self, number: usize, more: usize) {
        let process = &mut self.processes[number];
        if process.is_dead() {
            return;
        }
        process.threads.clear();
        process.away = [5, 40, 150][more % 3];
        self.shared.world().has_lost_counts = true;
        self.shared.saw(Seen::Killed);
        self.shared.note(|| format!("p{number} is killed"));
    }

    /// Whatever its disk had not synced is gone, or all of it.
    fn kill_with_power(&mut self, number: usize, more: usize) {
        self.kill(number, more);
        let mut world = self.shared.world();
        if more % 4 == 3 {
            world.disks[number].clear();
            world.saw(Seen::DiskLost);
        } else {
            world.saw(Seen::BatchesLost);
            world.disks[number].values_mut().for_each(|store| store.lose(more % 5));
        }
        world.note(|| {
            format!("the disk of p{number} loses {}", if more % 4 == 3 { "everything".into() } else { format!("{} batches", more % 5) })
        });
    }

    fn freeze(&mut self, number: usize, more: usize) {
        let process = &mut self.processes[number];
        if !process.is_dead() {
            process.away = [10, 60, 150][more % 3];
            self.shared.saw(Seen::Frozen);
            self.shared.note(|| format!("p{number} is frozen"));
            if more % 2 == 1 {
                self.expel(number);
            }
        }
    }

    fn stall(&mut self, number: usize, more: usize) {
        self.processes[number].stalled = [10, 30, 90][more % 3];
        self.shared.note(|| format!("the restores of p{number} stand still"));
    }

    fn expel(&mut self, number: usize) {
        if self.shared.world().kafka.group.expel(number) {
            self.shared.note(|| format!("the session of p{number} ends"));
        }
    }

    /// A successor takes an owner for gone that lives, and connects with its id.
    fn fence(&mut self, number: usize) {
        let mut world = self.shared.world();
        let had_open = world.kafka.transactions.has_open(number);
        let _ = world.kafka.transactions.init(number);
        if had_open {
            world.saw(Seen::OwnerFenced);
        }
        world.note(|| format!("a successor fences p{number}"));
    }

    fn damage(&mut self, number: usize, more: usize) {
        let mut world = self.shared.world();
        let stores = world.disks[number].len();
        if let Some((partition, store)) = world.disks[number].iter_mut().nth(more % stores.max(1)) {
            store.is_damaged = true;
            let partition = *partition;
            world.note(|| format!("the store of task {partition} at p{number} is damaged"));
        }
    }

    fn compact(&mut self) {
        let old = self.ends.iter().rev().find(|(at, _)| at + COMPACTION_LAG <= self.steps);
        let Some((_, ends)) = old else { return };
        let mut world = self.shared.world();
        for (partition, end) in ends.iter().enumerate() {
            world.kafka.log_mut(Topic::Changelog, partition as i32).compact(*end);
        }
        world.saw(Seen::Compacted);
        world.note(|| "the changelog is compacted".into());
    }
}
