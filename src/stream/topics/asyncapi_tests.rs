//! `schemas/asyncapi.yaml` says of every topic what `topics apply` would make of it; `core/tests/asyncapi.rs` has the rest.

use super::{Role, desired};
use serde_json::Value;
use std::collections::BTreeMap;

const DOCUMENT: &str = include_str!("../../../schemas/asyncapi.yaml");

#[test]
fn the_document_has_every_topic_of_others_with_its_settings() {
    let document: Value = serde_saphyr::from_str(DOCUMENT).expect("the document is YAML");
    let channels = document["channels"].as_object().expect("channels");
    let config = crate::config::defaults().config;
    for topic in desired(&config, &BTreeMap::new()) {
        let channel = channels.values().find(|channel| channel["address"] == topic.name.as_str());
        if matches!(topic.role, Role::Observations | Role::Changelog | Role::Epochs) {
            assert!(channel.is_none(), "{}: internal", topic.name);
            continue;
        }
        let channel = channel.unwrap_or_else(|| panic!("{} is not in the document", topic.name));
        let told = &channel["bindings"]["kafka"]["topicConfiguration"];
        if topic.role == Role::Input {
            assert!(told.is_null(), "{}: its owner's choice", topic.name);
            continue;
        }
        let wanted = |name: &str| topic.settings.get(name).map(|want| want.value()).unwrap_or_default();
        let policy: Vec<&str> = told["cleanup.policy"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert_eq!(policy.join(","), wanted("cleanup.policy"), "{}", topic.name);
        let retention = told.get("retention.ms").map(ToString::to_string).unwrap_or_default();
        assert_eq!(retention, wanted("retention.ms"), "{}", topic.name);
    }
}
