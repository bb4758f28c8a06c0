//! As `src/stream/lane/assignment.rs`: partitions come and go.

use super::restore::NotReady;
use super::*;

impl Driver {
    pub(super) async fn on_assign(&mut self, tasks: BTreeSet<TaskId>) {
        self.consumer.assign(&tasks);
        self.shared.note(|| format!("p{}: given {}", self.number, list(&tasks)));
        let effects = self.protocol.step(Input::Assigned(tasks.into_iter().collect()));
        self.perform(effects).await;
    }

    pub(super) async fn on_revoke(&mut self, tasks: BTreeSet<TaskId>) {
        self.shared.saw(Seen::Revoked);
        self.shared.note(|| format!("p{}: gives back {}", self.number, list(&tasks)));
        self.tell_touched();
        let effects = self.protocol.step(Input::Revoked(tasks.iter().copied().collect()));
        self.perform(effects).await;
        self.consumer.unassign(&tasks);
    }

    pub(super) async fn on_lost(&mut self) {
        let tasks = self.consumer.assigned();
        self.shared.saw(Seen::Lost);
        self.shared.note(|| format!("p{}: expelled, loses {}", self.number, list(&tasks)));
        self.tell_touched();
        let effects = self.protocol.step(Input::Lost(tasks.into_iter().collect()));
        self.perform(effects).await;
        self.consumer.rejoin();
    }

    pub(super) fn request(&mut self, task: TaskId) -> Request {
        self.call_off(task);
        self.generation += 1;
        let flag = |is_set| Rc::new(Cell::new(is_set));
        let (spoiled, called_off) = (flag(self.spoiled.remove(&task)), flag(false));
        let request = Request { task, generation: self.generation, spoiled, called_off };
        self.restores.insert(task, request.clone());
        request
    }

    pub(super) fn call_off(&mut self, task: TaskId) {
        if let Some(request) = self.restores.remove(&task) {
            request.called_off.set(true);
            if request.spoiled.get() {
                self.spoiled.insert(task);
            }
        }
    }

    pub(super) async fn take_restored(&mut self) {
        loop {
            let answer = self.desk.answers.borrow_mut().pop_front();
            let Some(restore::Answer { task: id, generation, outcome }) = answer else { return };
            let is_current = self.protocol.owns(id) && self.restores.get(&id).is_some_and(|request| request.generation == generation);
            let ready = match outcome {
                Ok(ready) if is_current => ready,
                Ok(_) => {
                    self.desk.release(id);
                    continue;
                }
                Err(NotReady::Moved) if is_current => {
                    self.wanted.push_back(id);
                    continue;
                }
                // Nobody reset anything: there is no reason to call an operator.
                Err(NotReady::Halt(halt)) if is_current => {
                    self.shared.violated(format!("p{}: {} does not start: {halt}", self.number, name(id)));
                    continue;
                }
                Err(_) => continue,
            };
            self.restores.remove(&id);
            let input = match ready.committed {
                Some(committed) => Input::Restored(id, committed),
                None => Input::RestoredFresh(id, ready.next_offset),
            };
            self.shared.note(|| format!("p{}: {} restored: {:?}", self.number, name(id), ready.committed));
            self.tasks.insert(id, Task::new(*ready));
            let effects = self.protocol.step(input);
            self.perform(effects).await;
        }
    }

    pub(super) fn seek(&mut self) {
        for (id, task) in &mut self.tasks {
            if let Some(offset) = task.seek.take() {
                task.is_paused = false;
                self.consumer.seek(*id, offset);
            }
        }
    }
}

fn list(tasks: &BTreeSet<TaskId>) -> String {
    tasks.iter().map(|task| name(*task)).collect::<Vec<_>>().join(", ")
}
