//! A broker that demands TLS, credentials and rights on every listener but the testkit's own, whose user may do everything.

use crate::line::Line;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::OnceLock;
use tripline_testkit::kafka::Listener;
use tripline_testkit::kafka::access::{Acl, Resource};
use tripline_testkit::keys::{Authority, STORE_PASSWORD};
use tripline_testkit::{Kafka, Options};

pub const PASSWORD: &str = "hunter2-of-a-test";
/// The users that the broker knows by SASL PLAIN: one who may do nothing, and one each for setup and run.
pub const PLAIN_USER: &str = "plain";
pub const PLAIN_KEEPER: &str = "plain-keeper";
pub const PLAIN_WORKER: &str = "plain-worker";

pub struct Fortress {
    pub kafka: &'static Kafka,
    pub authority: String,
    pub client_keys: String,
    _folder: tempfile::TempDir,
}

pub fn fortress() -> &'static Fortress {
    static FORTRESS: OnceLock<Fortress> = OnceLock::new();
    FORTRESS.get_or_init(|| Fortress::build().unwrap_or_else(|why| panic!("{why:#}")))
}

impl Fortress {
    fn build() -> Result<Fortress> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::new(folder.path())?;
        let here = authority.key_store("broker", "ip:127.0.0.1,dns:localhost")?;
        let elsewhere = authority.key_store("elsewhere", "dns:elsewhere.example")?;
        let client_keys = authority.key_store("client", "dns:client.example")?;
        let mut properties = vec![
            ("authorizer.class.name".into(), "org.apache.kafka.metadata.authorizer.StandardAuthorizer".into()),
            // On the plain listener: the broker itself, the controller and the testkit.
            ("super.users".into(), "User:ANONYMOUS".into()),
        ];
        properties.extend(tls("secure", &here));
        properties.extend(tls("mutual", &here));
        properties.extend(tls("elsewhere", &elsewhere));
        properties.extend(sasl("secure"));
        properties.extend(sasl("elsewhere"));
        // So that a changed password matters while connections last; a busy machine must still be able to keep up.
        properties.push(("listener.name.secure.connections.max.reauth.ms".into(), "30000".into()));
        let text = |path: PathBuf| path.display().to_string();
        let mutual = [
            ("client.auth", "required".to_owned()),
            ("truststore.type", "PEM".into()),
            ("truststore.location", text(authority.certificate())),
        ];
        properties.extend(mutual.map(|(name, value)| (format!("listener.name.mutual.ssl.{name}"), value)));
        let listener = |name: &str, protocol: &str| Listener { name: name.into(), protocol: protocol.into(), advertised: None };
        let options = Options {
            properties,
            listeners: vec![listener("SECURE", "SASL_SSL"), listener("MUTUAL", "SSL"), listener("ELSEWHERE", "SASL_SSL")],
            loggers: vec![("kafka.authorizer.logger".into(), "debug".into())],
            ..Options::default()
        };
        let kafka = Kafka::start_with(&options)?.keep();
        Ok(Fortress { kafka, authority: text(authority.certificate()), client_keys: text(client_keys), _folder: folder })
    }

    /// Settings of a line's process that comes to this listener with these client properties.
    pub fn settings(&self, line: &Line, name: &str, listener: &str, properties: &[(&str, &str)]) -> Vec<(String, String)> {
        let address = self.kafka.listener(listener).map_or_else(|| self.kafka.bootstrap().to_owned(), |address| address.to_string());
        let mut settings = line.settings(name);
        settings.retain(|(key, _)| key != "TRIPLINE_KAFKA__BOOTSTRAP_SERVERS");
        settings.push(("TRIPLINE_KAFKA__BOOTSTRAP_SERVERS".into(), address));
        let property = |name: &str| format!("TRIPLINE_KAFKA__PROPERTIES__{}", name.replace('.', "_").to_uppercase());
        settings.extend(properties.iter().map(|(name, value)| (property(name), (*value).to_owned())));
        settings
    }

    /// How a user comes in by SASL over TLS.
    pub fn sasl<'a>(&'a self, user: &'a str, password: &'a str) -> Vec<(&'a str, &'a str)> {
        let is_plain = [PLAIN_USER, PLAIN_KEEPER, PLAIN_WORKER].contains(&user);
        vec![
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", &self.authority),
            ("sasl.mechanism", if is_plain { "PLAIN" } else { "SCRAM-SHA-512" }),
            ("sasl.username", user),
            ("sasl.password", password),
        ]
    }

    /// What the broker's authorizer has said to a user so far.
    pub fn audit(&self, user: &str) -> Result<BTreeSet<Said>> {
        let log = self.kafka.broker_log().context("the broker is our child")?;
        let start = format!("Principal = User:{user} is ");
        Ok(std::fs::read_to_string(log)?.lines().filter_map(|line| Said::read(line.split_once(&start)?.1)).collect())
    }
}

fn tls(listener: &str, store: &std::path::Path) -> Vec<(String, String)> {
    let each = [("keystore.type", "PKCS12"), ("keystore.password", STORE_PASSWORD), ("key.password", STORE_PASSWORD)];
    let location = ("keystore.location", &*store.display().to_string());
    let each = each.into_iter().chain([location]);
    each.map(|(name, value)| (format!("listener.name.{listener}.ssl.{name}"), value.to_owned())).collect()
}

fn sasl(listener: &str) -> [(String, String); 3] {
    let name = |name: &str| format!("listener.name.{listener}.{name}");
    let module = "org.apache.kafka.common.security";
    let plain = [PLAIN_USER, PLAIN_KEEPER, PLAIN_WORKER].map(|user| format!("user_{user}=\"{PASSWORD}\"")).join(" ");
    [
        (name("sasl.enabled.mechanisms"), "SCRAM-SHA-512,PLAIN".into()),
        (name("scram-sha-512.sasl.jaas.config"), format!("{module}.scram.ScramLoginModule required;")),
        (name("plain.sasl.jaas.config"), format!("{module}.plain.PlainLoginModule required {plain};")),
    ]
}

/// One answer of the authorizer, in lower case and without underscores but for the name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    pub allowed: bool,
    pub operation: String,
    pub resource: String,
    pub name: String,
}

impl Said {
    /// `Allowed operation = READ from host = 127.0.0.1 on resource = Topic:LITERAL:app.requests for request = Fetch …`
    fn read(line: &str) -> Option<Said> {
        let (verdict, rest) = line.split_once(" operation = ")?;
        let (operation, rest) = rest.split_once(' ')?;
        let resource = rest.split_once(" resource = ")?.1.split(' ').next()?;
        let (resource, name) = resource.split_once(":LITERAL:")?;
        let plain = |text: &str| text.to_lowercase().replace('_', "");
        Some(Said { allowed: verdict == "Allowed", operation: plain(operation), resource: plain(resource), name: name.to_owned() })
    }
}

/// The ACLs in a line of `kafka-acls.sh`.
pub fn acls_of(command: &str) -> Result<Vec<Acl>> {
    let (mut principal, mut prefixed, mut operations, mut resources) = (String::new(), false, Vec::new(), Vec::new());
    let mut words = command.split_whitespace().skip_while(|word| *word != "--add").skip(1);
    while let Some(option) = words.next() {
        let value = words.next().with_context(|| format!("{option} of {command}"))?.to_owned();
        match option {
            "--allow-principal" => principal = value,
            "--operation" => operations.push(value),
            "--resource-pattern-type" => prefixed = value == "prefixed",
            "--topic" => resources.push((Resource::Topic, value)),
            "--group" => resources.push((Resource::Group, value)),
            "--transactional-id" => resources.push((Resource::TransactionalId, value)),
            other => anyhow::bail!("{other} is no option that is printed"),
        }
    }
    let each =
        resources.into_iter().flat_map(|(resource, name)| operations.iter().map(move |operation| (resource, name.clone(), operation)));
    let acl = |(resource, name, operation): (Resource, String, &String)| Acl {
        principal: principal.clone(),
        resource,
        name,
        prefixed,
        operation: operation.clone(),
    };
    Ok(each.map(acl).collect())
}
