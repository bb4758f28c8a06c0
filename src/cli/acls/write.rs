//! Rights as text, as commands, as a manifest and as JSON.

use crate::stream::access::rights::{Operation, Resource, Right};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// A table with what each right is for.
pub fn text(principal: &str, rights: &[Right]) -> String {
    let rows: Vec<[String; 4]> = rights
        .iter()
        .map(|right| {
            let name = if right.prefixed { format!("{}*", right.name) } else { right.name.clone() };
            [right.resource.to_string(), name, right.operation.to_string(), right.why.to_owned()]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let mut text = format!("{principal} needs, from any host (a name with * is a prefix):\n");
    for [resource, name, operation, why] in &rows {
        let _ = writeln!(text, "{resource:0$}  {name:1$}  {operation:2$}  {why}", widths[0], widths[1], widths[2]);
    }
    text
}

/// What a command of `kafka-acls.sh` can say at once: one kind of resource, one kind of name, the same operations.
type Together = (Resource, bool, Vec<Operation>);

/// The operations of each resource.
fn by_resource(rights: &[Right]) -> BTreeMap<(Resource, &str, bool), Vec<Operation>> {
    let mut resources: BTreeMap<_, Vec<Operation>> = BTreeMap::new();
    for right in rights {
        resources.entry((right.resource, right.name.as_str(), right.prefixed)).or_default().push(right.operation);
    }
    resources
}

/// Lines for a shell.
pub fn commands(principal: &str, rights: &[Right], servers: &str) -> String {
    let mut together: BTreeMap<Together, Vec<&str>> = BTreeMap::new();
    for ((resource, name, prefixed), operations) in by_resource(rights) {
        together.entry((resource, prefixed, operations)).or_default().push(name);
    }
    let mut text = "# admin.properties: the client settings of somebody who may change ACLs\n".to_owned();
    for ((resource, prefixed, operations), names) in together {
        let _ = write!(text, "kafka-acls.sh --bootstrap-server {} --command-config admin.properties --add", quoted(servers));
        let _ = write!(text, " --allow-principal {}", quoted(principal));
        for operation in &operations {
            let _ = write!(text, " --operation {operation}");
        }
        if prefixed {
            text.push_str(" --resource-pattern-type prefixed");
        }
        let option = match resource {
            Resource::Topic => "--topic",
            Resource::Group => "--group",
            Resource::TransactionalId => "--transactional-id",
        };
        for name in names {
            let _ = write!(text, " {option} {name}");
        }
        text.push('\n');
    }
    text
}

/// For a shell: names of Kafka need no quotes, principals and addresses may.
fn quoted(text: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b".,:_-=/@".contains(&b);
    if text.bytes().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// A manifest for Strimzi, whose users are named after principals of the type `User`.
pub fn strimzi(principal: &str, rights: &[Right]) -> Result<String, String> {
    let name = principal.strip_prefix("User:").filter(|name| is_kubernetes_name(name));
    let name = name.ok_or_else(|| {
        format!("`{principal}` cannot be a KafkaUser: name one with --principal, as in `User:tripline`, in lower-case letters, digits, `.` and `-`")
    })?;
    let mut text = format!(
        "apiVersion: kafka.strimzi.io/v1beta2\n\
         kind: KafkaUser\n\
         metadata:\n  \
           name: {name}\n  \
           labels:\n    \
             strimzi.io/cluster: my-cluster # the name of your Kafka resource\n\
         spec:\n  \
           authentication:\n    \
             type: scram-sha-512 # or tls\n  \
           authorization:\n    \
             type: simple\n    \
             acls:\n"
    );
    for ((resource, name, prefixed), operations) in by_resource(rights) {
        let kind = match resource {
            Resource::Topic => "topic",
            Resource::Group => "group",
            Resource::TransactionalId => "transactionalId",
        };
        let pattern = if prefixed { "prefix" } else { "literal" };
        let operations: Vec<String> = operations.iter().map(Operation::to_string).collect();
        let _ = writeln!(text, "      - resource: {{type: {kind}, name: \"{name}\", patternType: {pattern}}}");
        let _ = writeln!(text, "        operations: [{}]", operations.join(", "));
    }
    Ok(text)
}

fn is_kubernetes_name(name: &str) -> bool {
    let is_end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
    name.len() <= 253 && name.bytes().all(legal) && is_end(name.as_bytes().first()) && is_end(name.as_bytes().last())
}

/// For programs.
pub fn json(principal: &str, rights: &[Right]) -> Value {
    let each = rights.iter().map(|right| {
        json!({
            "resource": right.resource, "name": right.name, "pattern": if right.prefixed { "prefixed" } else { "literal" },
            "operation": right.operation, "why": right.why,
        })
    });
    json!({"principal": principal, "acls": each.collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Role;
    use crate::stream::access::rights::{Purpose, needed};
    use crate::stream::client::tests::config;
    use clap::ValueEnum;

    fn rights() -> Vec<Right> {
        needed(&config(), &[Purpose::Run], Role::value_variants())
    }

    #[test]
    fn commands_say_what_belongs_together_at_once() {
        let text = commands("User:tripline", &rights(), "a:9092,b:9092");
        let lines: Vec<&str> = text.lines().collect();
        let start =
            "kafka-acls.sh --bootstrap-server a:9092,b:9092 --command-config admin.properties --add --allow-principal User:tripline";
        assert!(
            lines.contains(
                &format!("{start} --operation Read --operation DescribeConfigs --topic app.events --topic app.requests").as_str()
            ),
            "{text}"
        );
        assert!(lines.contains(&format!("{start} --operation Read --group tripline --group tripline-sink").as_str()), "{text}");
        let ids = format!("{start} --operation Write --resource-pattern-type prefixed --transactional-id tripline-");
        assert!(lines.contains(&ids.as_str()), "{text}");
    }

    #[test]
    fn a_shell_gets_quotes_where_it_needs_them() {
        assert_eq!(quoted("User:tripline"), "User:tripline");
        assert_eq!(quoted("User:CN=o'hara, O=x"), r"'User:CN=o'\''hara, O=x'");
        assert_eq!(quoted("User:*"), "'User:*'");
    }

    #[test]
    fn the_manifest_is_yaml_with_every_right_and_refuses_what_is_no_name() {
        let text = strimzi("User:tripline", &rights()).expect("a name");
        let manifest: Value = serde_saphyr::from_str(&text).expect("YAML");
        assert_eq!((&manifest["kind"], &manifest["metadata"]["name"]), (&json!("KafkaUser"), &json!("tripline")));
        let acls = manifest["spec"]["authorization"]["acls"].as_array().expect("a list");
        let operations: usize = acls.iter().map(|acl| acl["operations"].as_array().map_or(0, Vec::len)).sum();
        assert_eq!(operations, rights().len());
        let ids = json!({"type": "transactionalId", "name": "tripline-", "patternType": "prefix"});
        assert!(acls.iter().any(|acl| acl["resource"] == ids), "{text}");
        for principal in ["User:CN=tripline", "Group:tripline", "User:-"] {
            assert!(strimzi(principal, &rights()).is_err(), "{principal}");
        }
    }

    #[test]
    fn people_read_what_each_right_is_for() {
        let text = text("User:tripline", &rights());
        assert!(text.starts_with("User:tripline needs"), "{text}");
        let line = text.lines().find(|line| line.starts_with("transactional id  tripline-* ")).expect("ids");
        assert!(line.contains("  Write  ") && line.contains("transactions: one id for each identity and lane"), "{line}");
        assert_eq!(text.lines().count(), rights().len() + 1);
    }
}
