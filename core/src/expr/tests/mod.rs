//! What the language promises, construct by construct; then properties against CEL and against a second interpreter.

mod constructs;
mod documented;
mod errors;
mod generate;
mod hostile;
mod limits;
mod oracles;
mod predicates;
pub(super) mod sharing;

use super::{Expr, Scope};
use crate::event::Event;
use std::borrow::Cow;

/// A refused admin request on a Saturday; it has no `user_id`.
pub(super) fn refused_request() -> Event<'static> {
    let data = serde_json::json!({
        "service": "checkout", "amount": 40, "ratio": 0.5, "ok": true, "none": null, "form": { "kind": "login", "a b": 1 }, "tags": ["x"],
    });
    Event {
        event_time_ms: 1_795_255_200_000, // 2026-11-21T10:00:00Z
        event_type: "http_request".into(),
        method: Some("POST".into()),
        path: Some("/Admin/users/7".into()),
        route: Some("/admin/users/{id}".into()),
        status_code: Some(403),
        response_time_ms: Some(12),
        ip_address: Some("10.1.2.3".into()),
        country: Some("ÅL".into()),
        is_staff: Some(false),
        headers: vec![(Cow::from("host"), Cow::from("shop.example")), (Cow::from("x-tenant"), Cow::from(""))],
        data: data.as_object().cloned().unwrap_or_default(),
        ..Event::default()
    }
}

/// Lists and lets that the tests name.
pub(super) fn scope() -> Scope {
    let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    let pair = |(name, source): (&str, &str)| (name.to_owned(), source.to_owned());
    Scope {
        lists: [
            ("admin_prefixes".to_owned(), owned(&["/admin/", "/internal/"])),
            ("many".to_owned(), (0..40).map(|i| format!("/page{i}/")).collect()),
            ("codes".to_owned(), owned(&["401", "-403", "403", "0"])),
            ("nearly_codes".to_owned(), owned(&["401", "0403"])),
            ("offices".to_owned(), owned(&["192.168.0.0/16", "10.0.0.0/8"])),
        ]
        .into(),
        lets: [
            ("refused", "status_code in [401, 403, 404]"),
            ("refused_admin", "refused && route.startsWithAny(lists.admin_prefixes)"),
            ("tenant", "headers[\"x-tenant\"] != \"\" ? headers[\"x-tenant\"] : headers.host"),
            ("codes", "[401, 403]"),
            ("folded", "path.lowerAscii()"),
            ("circle", "square"),
            ("square", "!circle"),
            ("wrong", "status_code == \"403\""),
        ]
        .map(pair)
        .into(),
    }
}

/// Compiles or shows why not.
#[track_caller]
pub(super) fn compiled(source: &str) -> Expr {
    Expr::compile(source, &scope()).unwrap_or_else(|error| panic!("{source}: {error:?}"))
}
