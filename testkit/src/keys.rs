//! Keys and certificates for a test: an authority of its own, and key stores that it has signed. Made with Java's `keytool`,
//! which stands beside the `java` that runs the broker.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The password of every key store that is made here.
pub const STORE_PASSWORD: &str = "of-a-test";
const AUTHORITY: &str = "authority";

/// A certificate authority that exists for one test.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// Makes one in this folder.
    pub fn new(folder: &Path) -> Result<Authority> {
        let authority = Authority { folder: folder.to_owned() };
        let store = authority.path(&format!("{AUTHORITY}.p12"));
        key_pair(&store, AUTHORITY, &["-dname", "CN=authority of a test", "-ext", "bc:c"])?;
        let certificate = text(&authority.certificate());
        keytool(&["-exportcert", "-rfc", "-alias", AUTHORITY, "-file", &certificate], &store)?;
        Ok(authority)
    }

    /// Its certificate, PEM: what clients and brokers trust.
    pub fn certificate(&self) -> PathBuf {
        self.path("authority.pem")
    }

    /// A PKCS#12 key store with one signed key; the certificate is for these names (`ip:127.0.0.1,dns:localhost`).
    pub fn key_store(&self, owner: &str, names: &str) -> Result<PathBuf> {
        let store = self.path(&format!("{owner}.p12"));
        fs::copy(self.path(&format!("{AUTHORITY}.p12")), &store)?;
        let (subject, names) = (format!("CN={owner}"), format!("san={names}"));
        key_pair(&store, owner, &["-signer", AUTHORITY, "-dname", &subject, "-ext", &names])?;
        // Whoever opens the store takes the one key that is left.
        keytool(&["-delete", "-alias", AUTHORITY], &store)?;
        Ok(store)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

fn key_pair(store: &Path, alias: &str, more: &[&str]) -> Result<()> {
    let mut args = vec!["-genkeypair", "-alias", alias, "-keyalg", "EC", "-groupname", "secp256r1", "-validity", "2"];
    args.extend(more);
    keytool(&args, store)
}

fn keytool(args: &[&str], store: &Path) -> Result<()> {
    let mut command = Command::new("keytool");
    command.args(args).arg("-keystore").arg(store).args(["-storetype", "PKCS12", "-storepass", STORE_PASSWORD]);
    command.arg("-J-XX:TieredStopAtLevel=1");
    let done = command.output().context("keytool, which comes with Java, was not found")?;
    ensure!(done.status.success(), "keytool {args:?}: {}", String::from_utf8_lossy(&done.stdout).trim());
    Ok(())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
