//! Any text as an expression: it compiles or is refused at a place inside it, and what compiles gives a value on any event.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tripline_core::event::Event;
use tripline_core::expr::{Expr, Scope};

const FULL: &[u8] = br#"{"event_time":1760000000000,"event_type":"http_request","user_id":"u","ip_address":"203.0.113.9","path":"/a/b",
    "method":"GET","status_code":404,"is_staff":false,"headers":{"host":"h"},"data":{"x":1,"y":"z","f":0.5}}"#;
const BARE: &[u8] = br#"{"event_time":0946684800000,"event_type":"t"}"#;

fuzz_target!(|source: &str| {
    let mut scope = Scope::default();
    scope.lists.insert("words".into(), vec!["/a".into(), "10.0.0.0/8".into()]);
    scope.lets.insert("near".into(), "status_code > 1 && far".into());
    scope.lets.insert("far".into(), "has(path)".into());
    match Expr::compile(source, &scope) {
        Err(error) => assert!(error.offset <= source.len() && !error.message.is_empty()),
        Ok(expr) => {
            for bytes in [FULL, BARE] {
                if let Ok(event) = Event::decode(Some(bytes)) {
                    assert_eq!(expr.holds(&event), expr.eval(&event).is_true());
                }
            }
        }
    }
});
