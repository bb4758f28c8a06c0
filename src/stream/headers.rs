//! The headers of a consumed record.

use rdkafka::message::{BorrowedMessage, Header, Headers, Message};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The most headers of a record that are looked at.
const MAX_HEADERS: usize = 64;

/// Names and values in their order: the first [`MAX_HEADERS`], up to the first whose name is not UTF-8 (none of ours is). What
/// follows is not looked at, so that nobody can make a record of headers that costs more than its bytes.
pub fn headers_of<'r>(record: &'r BorrowedMessage<'_>) -> impl Iterator<Item = (&'r str, Option<&'r [u8]>)> {
    first_headers_of(record, MAX_HEADERS)
}

/// Names and values of a dead letter: our own headers stand before what is repeated of the original.
pub fn headers_of_letter<'r>(record: &'r BorrowedMessage<'_>) -> impl Iterator<Item = (&'r str, &'r [u8])> {
    first_headers_of(record, 2 * MAX_HEADERS).filter_map(|(name, value)| Some((name, value?)))
}

fn first_headers_of<'r>(record: &'r BorrowedMessage<'_>, most: usize) -> impl Iterator<Item = (&'r str, Option<&'r [u8]>)> {
    let headers = record.headers();
    let count = headers.map_or(0, Headers::count).min(most);
    (0..count).map_while(move |at| {
        let Header { key, value } = headers.and_then(|headers| named(headers, at))?;
        Some((key, value))
    })
}

/// The binding panics on a name that is not UTF-8. Anyone who may write to an input topic can send one, and it says
/// nothing about the event.
fn named<H: Headers>(headers: &H, at: usize) -> Option<Header<'_, &[u8]>> {
    catch_unwind(AssertUnwindSafe(|| headers.try_get(at))).ok().flatten()
}
