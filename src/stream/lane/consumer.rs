//! A lane's consumer: a member of the group, whose callbacks run inside `poll`.

use super::*;
use crate::config::Stream;
use crate::stream::queues;

/// The longest time between two polls. A lane polls many times a second unless a transaction fails step by step, each of which may
/// take as long as a transaction, and it has to find out what became of it. It is also how long the client waits for the answer when
/// it joins the group: one that a broker has lost when it went down is asked for again only then.
fn poll_interval(stream: &Stream) -> Duration {
    stream.session_timeout.0.max(5 * stream.transaction_timeout.0 + Duration::from_secs(30))
}

/// Joins the group.
pub(super) fn consume(shared: &Arc<Shared>, context: &Context) -> Result<BaseConsumer<Context>, LaneError> {
    let transactional_id = context.driver().transactional_id.clone();
    let stream = &shared.config.stream;
    let mut config = shared.base.clone();
    config
        .set("group.id", &shared.config.app.id)
        .set("group.instance.id", &transactional_id)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("session.timeout.ms", stream.session_timeout.0.as_millis().to_string())
        .set("heartbeat.interval.ms", (stream.session_timeout.0.as_millis() / 10).clamp(100, 1_000).to_string())
        .set("max.poll.interval.ms", poll_interval(stream).as_millis().to_string())
        .set("fetch.queue.backoff.ms", "5");
    // How soon partitions that were added are noticed.
    const REFRESH: &str = "topic.metadata.refresh.interval.ms";
    if config.get(REFRESH).is_none() {
        config.set(REFRESH, "60000");
    }
    queues::bound_consumer(&mut config, shared.memory.lane().fetched);
    let client = |source| LaneError::Client { what: "consumer", source };
    let consumer: BaseConsumer<Context> = config.create_with_context(context.clone()).map_err(client)?;
    let topics: Vec<&str> = shared.inputs.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).map_err(client)?;
    Ok(consumer)
}

/// Leaves the group and joins it again: what this lane owns is given back, committed, and everything is distributed anew.
pub(super) fn rejoin(shared: &Shared, consumer: &BaseConsumer<Context>) {
    consumer.unsubscribe();
    let topics: Vec<&str> = shared.inputs.iter().map(String::as_str).collect();
    if let Err(error) = consumer.subscribe(&topics) {
        warn!(%error, "cannot join the group again");
    }
}
