//! `tripline flags`: what flags say, and why.

use super::{Failure, Output, print};
use crate::config::Loaded;
use crate::{flags, rules};
use clap::{Args, Subcommand};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tripline_core::diagnostic::nearest;
use tripline_core::flags::{FlagSnapshot, FlagUser};

/// What to ask.
#[derive(Debug, Clone, Subcommand)]
pub enum FlagsCommand {
    /// Every flag that the rule pack declares or the flags file has, for somebody unknown
    List(Asked),
    /// Whether one flag is on for a user, and why
    Eval {
        /// The flag
        name: String,
        /// The signed-in user's id
        #[arg(long, value_name = "ID")]
        user: Option<String>,
        /// The user works for the operator
        #[arg(long)]
        staff: bool,
        /// Where flags are
        #[command(flatten)]
        asked: Asked,
    },
}

/// Where flags are, and how to print them.
#[derive(Debug, Clone, Args)]
pub struct Asked {
    /// Flags file [default: flags.file]
    #[arg(long, value_name = "FILE")]
    pub flags: Option<PathBuf>,
    /// Folder of the rule pack that declares the defaults [default: rules.path]
    #[arg(long, value_name = "DIR")]
    pub rules: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Answers it.
pub fn run(command: &FlagsCommand, loaded: &Loaded) -> Result<u8, Failure> {
    match command {
        FlagsCommand::List(asked) => {
            let known = Known::read(asked, loaded)?;
            let names: Vec<&str> = known.names();
            print(&known.table(&names, FlagUser::default(), asked.output))
        }
        FlagsCommand::Eval { name, user, staff, asked } => {
            let known = Known::read(asked, loaded)?;
            let names = known.names();
            if !names.contains(&name.as_str()) {
                let hint = nearest(name, names).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                return Err(Failure::usage(format!("neither the rule pack nor the flags file knows `{name}`{hint}")));
            }
            let who = FlagUser { user_id: user.as_deref(), is_staff: *staff, is_authenticated: user.is_some() };
            print(&known.table(&[name], who, asked.output))
        }
    }
}

struct Known {
    snapshot: FlagSnapshot,
    defaults: BTreeMap<String, bool>,
}

impl Known {
    fn read(asked: &Asked, loaded: &Loaded) -> Result<Known, Failure> {
        let config = &loaded.config;
        let file = asked.flags.as_ref().unwrap_or(&config.flags.file);
        let pack = asked.rules.as_ref().unwrap_or(&config.rules.path);
        let snapshot = flags::load_file(file).map_err(|problems| Failure::invalid(&problems))?;
        let rules = rules::load_pack(pack, &config.rules.settings).map_err(|problems| Failure::invalid(&problems))?;
        Ok(Known { snapshot, defaults: rules.flags.into_iter().map(|flag| (flag.name, flag.default)).collect() })
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.defaults.keys().chain(self.snapshot.flags.keys()).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn table(&self, names: &[&str], user: FlagUser<'_>, output: Output) -> String {
        let rows = names.iter().map(|name| {
            let default = self.defaults.get(*name).copied().unwrap_or(false);
            let (on, why) = self.snapshot.explain(name, default, user);
            (*name, on, why)
        });
        match output {
            Output::Json => {
                let flags: Vec<_> = rows.map(|(name, on, why)| json!({"name": name, "on": on, "why": why})).collect();
                format!("{:#}\n", json!({"digest": self.snapshot.digest, "flags": flags}))
            }
            Output::Table => {
                let width = names.iter().map(|n| n.len()).max().unwrap_or_default();
                rows.map(|(name, on, why)| format!("{name:width$}  {}  {why}\n", if on { "on " } else { "off" })).collect()
            }
        }
    }
}
