//! Why a broker and a client do not talk to each other, sorted from librdkafka's words, with the way out.

use crate::config::Config;
use std::fmt;

/// A refusal, of one side or the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The broker does not know the user, or not with this password.
    Credentials {
        /// `sasl.username`.
        user: String,
    },
    /// The broker has other SASL mechanisms.
    Mechanism {
        /// `sasl.mechanism`.
        mechanism: String,
        /// What the broker has, in its words.
        offered: String,
    },
    /// The broker's certificate is signed by nobody whom we trust.
    Certificate,
    /// The broker's certificate is for another host.
    HostName,
    /// The broker wants a certificate of ours, or does not trust the one it got.
    ClientCertificate,
    /// The broker closes connections of plain text.
    WantsTls,
    /// The broker does not speak TLS.
    WantsPlainText,
    /// The broker wants credentials.
    WantsSasl,
    /// The broker knows no credentials.
    WantsNoSasl,
}

impl Refusal {
    /// Reads librdkafka's words; `None` for trouble of another kind.
    pub(super) fn of(words: &str, config: &Config) -> Option<Refusal> {
        let set = |name: &str| config.kafka.properties.get(name).cloned().unwrap_or_default();
        let has = |part: &str| words.contains(part);
        let has_sasl = set("security.protocol").to_ascii_lowercase().starts_with("sasl");
        Some(if let Some((_, offered)) = words.split_once("Unsupported SASL mechanism: broker's supported mechanisms: ") {
            let mechanism = [set("sasl.mechanism"), set("sasl.mechanisms")].concat();
            Refusal::Mechanism { mechanism, offered: without_circumstances(offered).trim().to_owned() }
        } else if has("mechanism handshake failed") {
            Refusal::WantsNoSasl
        } else if has("SASL authentication error") {
            Refusal::Credentials { user: set("sasl.username") }
        } else if has("certificate verify failed") || has("certificate could not be verified") {
            Refusal::Certificate
        } else if has("alert bad certificate") || has("certificate required") || has("alert unknown ca") || has("alert certificate") {
            Refusal::ClientCertificate
        } else if has("connecting to a PLAINTEXT broker listener") || has("wrong version number") {
            Refusal::WantsPlainText
        } else if has("connecting to a SSL listener") {
            Refusal::WantsTls
        } else if !has_sasl && has("Disconnected") && (has("in state UP") || has("might require SASL authentication")) {
            Refusal::WantsSasl
        } else {
            return None;
        })
    }

    /// The process's exit code: 3 where only our settings can heal it, 4 where the cluster can, too.
    pub fn exit_code(&self) -> u8 {
        match self {
            Refusal::Credentials { .. } | Refusal::Certificate | Refusal::HostName | Refusal::ClientCertificate => 4,
            Refusal::Mechanism { .. } | Refusal::WantsTls | Refusal::WantsPlainText | Refusal::WantsSasl | Refusal::WantsNoSasl => 3,
        }
    }
}

/// What follows "Kafka at host:port".
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Credentials { user } => {
                write!(f, "refuses user `{user}` with this password: check sasl.username, sasl.password and sasl.mechanism in kafka.properties")
            }
            Refusal::Mechanism { mechanism, offered } => {
                write!(f, "does not take the SASL mechanism `{mechanism}`: set sasl.mechanism in kafka.properties to one of {offered}")
            }
            Refusal::Certificate => f.write_str(
                "has a certificate that this client does not trust: name a file with the authority that signed it in ssl.ca.location in kafka.properties",
            ),
            Refusal::HostName => f.write_str(
                "has a certificate for another host: write a name that the certificate has in kafka.bootstrap_servers, and let the brokers advertise such names (advertised.listeners)",
            ),
            Refusal::ClientCertificate => f.write_str(
                "wants a certificate of this client that it trusts: set ssl.keystore.location and ssl.keystore.password in kafka.properties",
            ),
            Refusal::WantsTls => f.write_str(
                "takes connections and closes them at the first plain text: if that port speaks TLS, set security.protocol in kafka.properties to `ssl` or `sasl_ssl`",
            ),
            Refusal::WantsPlainText => f.write_str(
                "does not speak TLS on that port: name the port that does in kafka.bootstrap_servers, or set security.protocol in kafka.properties to `plaintext` or `sasl_plaintext`",
            ),
            Refusal::WantsSasl => f.write_str(
                "closes connections without credentials: set security.protocol in kafka.properties to `sasl_ssl` (or `sasl_plaintext`), with sasl.mechanism, sasl.username and sasl.password",
            ),
            Refusal::WantsNoSasl => f.write_str(
                "knows no credentials on that port: set security.protocol in kafka.properties to `ssl` or `plaintext`, or name the port that does in kafka.bootstrap_servers",
            ),
        }
    }
}

/// librdkafka ends its lines with what nobody asked for: `(after 360ms in state AUTH_REQ, 1 identical error(s) suppressed)`.
pub(super) fn without_circumstances(words: &str) -> &str {
    words.split_once(" (after ").map_or(words, |(words, _)| words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::client::tests::config;

    fn check(properties: &[(&str, &str)], words: &str, expected: Option<Refusal>, code: u8) {
        let mut config = config();
        config.kafka.properties.extend(properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let refusal = Refusal::of(words, &config);
        assert_eq!(refusal, expected, "{words}");
        if let Some(refusal) = refusal {
            assert_eq!(refusal.exit_code(), code, "{words}");
            assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
        }
    }

    #[test]
    fn the_words_of_librdkafka_are_sorted() {
        let scram = [
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "SCRAM-SHA-256"),
            ("sasl.username", "anna"),
            ("sasl.password", "hunter2"),
        ];
        let anna = || Some(Refusal::Credentials { user: "anna".into() });
        check(
            &scram,
            "SASL authentication error: Authentication failed: Invalid username or password (after 323ms in state AUTH_REQ)",
            anna(),
            4,
        );
        check(
            &scram,
            "SASL authentication error: Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-512",
            anna(),
            4,
        );
        let offered = Refusal::Mechanism { mechanism: "SCRAM-SHA-256".into(), offered: "SCRAM-SHA-512,PLAIN".into() };
        check(
            &scram,
            "SASL SCRAM-SHA-256 mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported mechanisms: SCRAM-SHA-512,PLAIN (after 302ms in state AUTH_HANDSHAKE, 1 identical error(s) suppressed)",
            Some(offered),
            3,
        );
        check(
            &scram,
            "SASL SCRAM-SHA-512 mechanism handshake failed: Broker: Request not valid in current SASL state: broker's supported mechanisms:  (after 9ms in state AUTH_HANDSHAKE)",
            Some(Refusal::WantsNoSasl),
            3,
        );
        check(
            &scram,
            "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified, verify that ssl.ca.location is correctly configured",
            Some(Refusal::Certificate),
            4,
        );
        check(
            &scram,
            "SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to a PLAINTEXT broker listener? (after 1ms in state SSL_HANDSHAKE)",
            Some(Refusal::WantsPlainText),
            3,
        );
        let tls = [("security.protocol", "ssl")];
        check(
            &tls,
            "Receive failed: error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert number 42 (after 1ms in state APIVERSION_QUERY)",
            Some(Refusal::ClientCertificate),
            4,
        );
        check(&tls, "Disconnected: SSL connection closed by peer (after 1ms in state UP)", Some(Refusal::WantsSasl), 3);
        check(
            &[],
            "Disconnected while requesting ApiVersion: might be caused by incorrect security.protocol configuration (connecting to a SSL listener?)",
            Some(Refusal::WantsTls),
            3,
        );
    }

    #[test]
    fn brokers_that_are_away_refuse_nothing() {
        check(&[], "Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)", None, 0);
        // One that goes down while it is used.
        check(&[("security.protocol", "sasl_ssl")], "Disconnected: SSL connection closed by peer (after 1ms in state UP)", None, 0);
    }
}
