//! The headers of a consumed record.

use rdkafka::message::{BorrowedMessage, Header, Headers, Message};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Names and values in their order; a header whose name is not UTF-8 is left out, since none of ours is.
pub fn headers_of<'r>(record: &'r BorrowedMessage<'_>) -> impl Iterator<Item = (&'r str, Option<&'r [u8]>)> {
    let headers = record.headers();
    let count = headers.map_or(0, Headers::count);
    (0..count).filter_map(move |at| {
        let Header { key, value } = headers.and_then(|headers| named(headers, at))?;
        Some((key, value))
    })
}

/// The binding panics on a name that is not UTF-8. Anyone who may write to an input topic can send one, and it says
/// nothing about the event.
fn named<H: Headers>(headers: &H, at: usize) -> Option<Header<'_, &[u8]>> {
    catch_unwind(AssertUnwindSafe(|| headers.try_get(at))).ok().flatten()
}
