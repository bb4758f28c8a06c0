//! Partitions that nobody reads.
//!
//! A static member that restarts gets its former partitions back without a rebalance. If partitions were added to an input
//! meanwhile and the member was the group's leader, nobody ever compares old and new metadata, and the new partitions stay
//! without an owner until the next rebalance. So one member looks: what the members of a settled group have, against
//! what the inputs have. When something is left over for longer than any hand-over lasts, it leaves the group and joins it
//! again, which distributes everything anew.

use super::changelog::Quiet;
use super::{Shared, fencing};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long the cluster may take for one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The partitions of the inputs that no member of the group has; empty as well while the group is not settled, or when it is
/// for another member to look.
pub fn look(shared: &Shared, client: &BaseConsumer<Quiet>, own_instance: &str) -> KafkaResult<Vec<(String, i32)>> {
    let group = &shared.config.app.id;
    let listed = client.fetch_group_list(Some(group), PATIENCE)?;
    let Some(found) = listed.groups().iter().find(|g| g.name() == group && g.state() == "Stable") else { return Ok(Vec::new()) };
    let is_first = found.members().iter().map(|m| m.id()).min().is_some_and(|first| fencing::instance_of(first) == Some(own_instance));
    if !is_first {
        return Ok(Vec::new());
    }
    let mut owned = BTreeSet::new();
    for member in found.members() {
        // An assignment that cannot be read hides what its member has: better no alarm than a false one.
        let Some(partitions) = member.assignment().and_then(assigned) else { return Ok(Vec::new()) };
        owned.extend(partitions);
    }
    let mut unowned = Vec::new();
    for topic in &shared.inputs {
        let metadata = client.fetch_metadata(Some(topic), PATIENCE)?;
        let partitions =
            metadata.topics().iter().filter(|t| t.name() == topic).flat_map(|t| t.partitions()).map(|p| (topic.clone(), p.id()));
        unowned.extend(partitions.filter(|partition| !owned.contains(partition)));
    }
    Ok(unowned)
}

/// The partitions of a member's assignment in the consumer protocol: version, topics with their partitions, user data.
fn assigned(bytes: &[u8]) -> Option<Vec<(String, i32)>> {
    let mut rest = bytes;
    let _version = number::<2>(&mut rest)?;
    let mut partitions = Vec::new();
    for _ in 0..number::<4>(&mut rest)? {
        let length = usize::try_from(number::<2>(&mut rest)?).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        rest = after;
        let topic = std::str::from_utf8(name).ok()?;
        for _ in 0..number::<4>(&mut rest)? {
            partitions.push((topic.to_owned(), i32::try_from(number::<4>(&mut rest)?).ok()?));
        }
    }
    Some(partitions)
}

/// A big-endian number of so many bytes.
fn number<const BYTES: usize>(rest: &mut &[u8]) -> Option<i64> {
    let (bytes, after) = rest.split_first_chunk::<BYTES>()?;
    *rest = after;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | i64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_and_a_cut_one_is_not() {
        let bytes = b"\0\x01\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x03\0\x02bc\0\0\0\x01\0\0\0\x07\xff\xff\xff\xff";
        let expected = [("a", 0), ("a", 3), ("bc", 7)].map(|(topic, partition)| (topic.to_owned(), partition));
        assert_eq!(assigned(bytes).as_deref(), Some(&expected[..]));
        for length in 0..bytes.len() - 4 {
            assert_eq!(assigned(&bytes[..length]), None, "cut after {length} bytes");
        }
        assert_eq!(assigned(b"\0\x01\0\0\0\0"), Some(Vec::new()), "nothing is a lot less than unknown");
    }
}
