//! Compares what was found in a topic with what had to be there. Pure: two lists in, every difference out.
//!
//! A record is recognised by its id. Where an id may stand more than once (a standing that time takes back twice), the n-th
//! record of an id is compared with the n-th that was expected.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One record, reduced to what is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What it is known by.
    pub id: String,
    /// Among which others its order counts: the entity, or the source partition.
    pub about: String,
    /// Everything else that has to be equal, as text.
    pub body: String,
    /// Where it stands, or which record it comes from: for messages.
    pub place: String,
}

/// What can be wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Expected and not found.
    Lost,
    /// Found more often than expected.
    Duplicated,
    /// Found and never expected.
    Invented,
    /// Found with other contents, or about another entity.
    Changed,
    /// The records about one entity stand in another order.
    OutOfOrder,
}

impl Kind {
    /// Every kind, in the order of the report.
    pub const ALL: [Kind; 5] = [Kind::Lost, Kind::Duplicated, Kind::Invented, Kind::Changed, Kind::OutOfOrder];

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Lost => "lost",
            Kind::Duplicated => "duplicated",
            Kind::Invented => "invented",
            Kind::Changed => "changed",
            Kind::OutOfOrder => "out of order",
        }
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong.
    pub kind: Kind,
    /// In which topic, or in the event store.
    pub topic: String,
    /// The record's id.
    pub id: String,
    /// Where, and what differs.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}: {} ({})", self.kind.name(), self.topic, self.id, self.detail)
    }
}

/// Every difference between what was found in a topic and what was expected, both in their order.
pub fn compare(topic: &str, found: &[Item], expected: &[Item]) -> Vec<Violation> {
    let (found_by, expected_by) = (numbered(found), numbered(expected));
    let violation = |kind, item: &Item, detail| Violation { kind, topic: topic.to_owned(), id: item.id.clone(), detail };
    let mut violations = Vec::new();
    for (key, item) in &expected_by {
        match found_by.get(key) {
            None => violations.push(violation(Kind::Lost, item, format!("about {}, from {}", item.about, item.place))),
            Some(there) if (&there.body, &there.about) != (&item.body, &item.about) => {
                let detail = format!("at {}, from {}: {}", there.place, item.place, difference(there, item));
                violations.push(violation(Kind::Changed, item, detail));
            }
            Some(_) => {}
        }
    }
    for (key, item) in &found_by {
        if !expected_by.contains_key(key) {
            let first = found_by.get(&(key.0, 0)).filter(|_| expected_by.contains_key(&(key.0, 0)));
            let (kind, also) =
                first.map_or((Kind::Invented, String::new()), |first| (Kind::Duplicated, format!(", first at {}", first.place)));
            violations.push(violation(kind, item, format!("about {}, at {}{also}", item.about, item.place)));
        }
    }
    violations.extend(out_of_order(topic, (found, &found_by), (expected, &expected_by)));
    violations
}

/// An id and which of its records it is, from 0.
type Key<'a> = (&'a str, usize);

fn keys(items: &[Item]) -> impl Iterator<Item = (Key<'_>, &Item)> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    items.iter().map(move |item| {
        let next = seen.entry(&item.id).or_default();
        *next += 1;
        ((item.id.as_str(), *next - 1), item)
    })
}

fn numbered(items: &[Item]) -> BTreeMap<Key<'_>, &Item> {
    keys(items).collect()
}

/// One violation for each entity whose records, as far as both sides have them, do not stand in the expected order.
fn out_of_order(
    topic: &str,
    (found, found_by): (&[Item], &BTreeMap<Key<'_>, &Item>),
    (expected, expected_by): (&[Item], &BTreeMap<Key<'_>, &Item>),
) -> Vec<Violation> {
    let (found, expected) = (sequences(found, expected_by), sequences(expected, found_by));
    let abouts: BTreeSet<&str> = found.keys().copied().collect();
    let mut violations = Vec::new();
    for about in abouts {
        let (Some(ours), Some(theirs)) = (found.get(about), expected.get(about)) else { continue };
        if let Some((ours, theirs)) = ours.iter().zip(theirs).find(|((ours, _), (theirs, _))| ours != theirs) {
            let ((id, _), item) = ours;
            let detail = format!("about {about}, at {}, where {} had to stand", item.place, theirs.0.0);
            violations.push(Violation { kind: Kind::OutOfOrder, topic: topic.to_owned(), id: (*id).to_owned(), detail });
        }
    }
    violations
}

/// The records about each entity in their order, those alone that the other side has too.
fn sequences<'a>(items: &'a [Item], others: &BTreeMap<Key<'_>, &Item>) -> BTreeMap<&'a str, Vec<(Key<'a>, &'a Item)>> {
    let mut sequences: BTreeMap<&str, Vec<(Key<'_>, &Item)>> = BTreeMap::new();
    for (key, item) in keys(items) {
        if others.contains_key(&key) {
            sequences.entry(&item.about).or_default().push((key, item));
        }
    }
    sequences
}

/// The first place where two records differ.
fn difference(found: &Item, expected: &Item) -> String {
    if found.about != expected.about {
        return format!("it is about {}, not {}", found.about, expected.about);
    }
    let same = found.body.bytes().zip(expected.body.bytes()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| {
        let bytes = text.as_bytes();
        String::from_utf8_lossy(&bytes[same.saturating_sub(40).min(bytes.len())..(same + 40).min(bytes.len())]).into_owned()
    };
    format!("`{}`, expected `{}`", around(&found.body), around(&expected.body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(n: usize, about: &str, body: &str) -> Item {
        Item { id: format!("id{n}"), about: about.into(), body: body.into(), place: format!("t/0@{n}") }
    }

    /// Six records about two entities, in turns.
    fn expected() -> Vec<Item> {
        (0..6).map(|n| item(n, ["user:a", "user:b"][n % 2], &format!("{{\"score\":{n}}}"))).collect()
    }

    /// The kinds and ids of what is wrong after a corruption.
    fn check(corrupt: impl FnOnce(&mut Vec<Item>), wrong: &[(Kind, &str)]) -> Vec<Violation> {
        let mut found = expected();
        corrupt(&mut found);
        let violations = compare("decisions", &found, &expected());
        assert_eq!(violations.iter().map(|v| (v.kind, v.id.as_str())).collect::<Vec<_>>(), wrong, "{violations:?}");
        violations
    }

    #[test]
    fn equal_lists_have_no_difference() {
        check(|_| (), &[]);
    }

    #[test]
    fn a_record_that_is_missing_is_lost() {
        let violations = check(|found| drop(found.remove(3)), &[(Kind::Lost, "id3")]);
        assert_eq!(violations[0].to_string(), "lost in decisions: id3 (about user:b, from t/0@3)");
    }

    #[test]
    fn a_record_that_stands_twice_is_duplicated_and_both_places_are_named() {
        let twice = |found: &mut Vec<Item>| found.push(Item { place: "t/0@99".into(), ..found[2].clone() });
        let violations = check(twice, &[(Kind::Duplicated, "id2")]);
        assert_eq!(violations[0].detail, "about user:a, at t/0@99, first at t/0@2");
    }

    #[test]
    fn a_record_that_nothing_explains_is_invented() {
        check(|found| found.insert(1, item(77, "user:a", "{}")), &[(Kind::Invented, "id77")]);
        check(|found| found.extend([item(77, "user:a", "{}"), item(77, "user:a", "{}")]), &[(Kind::Invented, "id77"); 2]);
    }

    #[test]
    fn a_field_that_differs_and_another_entity_are_changed() {
        let violations = check(|found| found[4].body = "{\"score\":9}".into(), &[(Kind::Changed, "id4")]);
        assert_eq!(violations[0].detail, "at t/0@4, from t/0@4: `{\"score\":9}`, expected `{\"score\":4}`");
        check(|found| found[4].about = "user:b".into(), &[(Kind::Changed, "id4"), (Kind::OutOfOrder, "id4")]);
    }

    #[test]
    fn two_records_of_one_entity_in_the_wrong_order_are_named_and_those_of_two_entities_are_not() {
        let violations = check(|found| found.swap(1, 5), &[(Kind::OutOfOrder, "id5")]);
        assert_eq!(violations[0].detail, "about user:b, at t/0@5, where id1 had to stand");
        check(|found| found.swap(1, 2), &[]);
    }

    #[test]
    fn order_is_judged_among_what_both_sides_have() {
        check(|found| drop(found.remove(0)), &[(Kind::Lost, "id0")]);
    }

    #[test]
    fn an_id_that_is_expected_twice_may_stand_twice() {
        let gone = |n: usize| Item { id: "gone".into(), ..item(n, "user:a", "null") };
        assert_eq!(compare("standing", &[gone(1), gone(2)], &[gone(1), gone(2)]), []);
        let kinds = |found: &[Item]| compare("standing", found, &[gone(1), gone(2)]).iter().map(|v| v.kind).collect::<Vec<_>>();
        assert_eq!(kinds(&[gone(1)]), [Kind::Lost]);
        assert_eq!(kinds(&[gone(1), gone(2), gone(3)]), [Kind::Duplicated]);
    }
}
