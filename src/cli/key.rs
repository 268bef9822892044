//! `pgkeep key new|show|kit`.

mod kit;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::context::{Context, Outcome};
use crate::codec::{GeneratedIdentity, Identities};
use crate::config::{Config, EncryptionConfig};
use crate::error::{Code, Error, Result};
use crate::repository::host_keys;
use crate::util::durable;

/// Makes and shows keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes an identity (private key) and says its recipient (public key).
    New {
        /// Where the identity is written (mode 0600); an existing file is never overwritten. Without it the identity
        /// goes to standard output.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Shows who can read the backups and whom this host believes; no secrets.
    Show,
    Kit(kit::Args),
}

pub fn run(ctx: &Context, command: &Command) -> Result<Outcome> {
    match command {
        Command::New { output } => new(ctx, output.as_deref())?,
        Command::Show => show(ctx)?,
        Command::Kit(args) => return kit::run(ctx, args),
    }
    Ok(Outcome::Done)
}

fn new(ctx: &Context, output: Option<&Path>) -> Result<()> {
    let key = GeneratedIdentity::new();
    let Some(path) = output else {
        ctx.say(&format!("recipient: {}", key.recipient()));
        return ctx.print(&key.file_text());
    };
    write_identity(path, &key)?;
    ctx.say("Keep this file away from the hosts that it helps to restore, in two places: without it no backup opens.");
    if ctx.json {
        ctx.print_json(&json!({ "recipient": key.recipient(), "identity_file": path }))
    } else {
        ctx.print(key.recipient())
    }
}

/// For the owner alone, never over an existing file.
pub fn write_identity(path: &Path, key: &GeneratedIdentity) -> Result<()> {
    durable::write_new(path, key.file_text().as_bytes(), 0o600).map_err(|e| {
        if e.code() == Code::ObjectExists {
            Error::new(Code::Key, "the file exists already; an identity is never overwritten")
                .at(path.display())
                .hint("choose another file: whoever loses an identity loses the backups made for it")
        } else {
            e
        }
    })
}

/// What `key show` knows.
struct Shown {
    recipients: Vec<String>,
    encryption: &'static str,
    identity_file: Option<PathBuf>,
    identity: String,
    matches: Option<bool>,
    host: Option<String>,
    metadata: Option<String>,
}

fn look(config: &Config) -> Result<Shown> {
    let (encryption, recipients, identity_file) = match &config.encryption {
        EncryptionConfig::Unset => ("unset", Vec::new(), None),
        EncryptionConfig::None => ("none", Vec::new(), None),
        EncryptionConfig::Recipients { recipients, identity_file } => {
            ("age", recipients.clone(), identity_file.clone())
        }
    };
    let (identity, matches) = match &identity_file {
        None => ("not configured (a host that only backs up needs none)".to_owned(), None),
        Some(path) if !path.exists() => ("not on this host".to_owned(), None),
        Some(path) => {
            let own = Identities::load(path)?.recipients();
            let opens: Vec<&String> = recipients.iter().filter(|r| own.contains(r)).collect();
            if opens.is_empty() {
                ("opens NONE of the recipients".to_owned(), Some(false))
            } else {
                (format!("opens {} of {} recipients", opens.len(), recipients.len()), Some(true))
            }
        }
    };
    Ok(Shown {
        recipients,
        encryption,
        identity_file,
        identity,
        matches,
        host: host_keys::own_public_key(config)?.map(|key| key.line()),
        metadata: host_keys::metadata_recipient(config)?,
    })
}

fn show(ctx: &Context) -> Result<()> {
    let config = ctx.load_config()?;
    let shown = look(&config)?;
    if ctx.json {
        return ctx.print_json(&json!({
            "encryption": shown.encryption,
            "recipients": shown.recipients,
            "identity": { "file": shown.identity_file, "state": shown.identity, "matches": shown.matches },
            "host_key": shown.host,
            "metadata_recipient": shown.metadata,
            "trusted_hosts": config.trust_hosts,
        }));
    }
    let mut lines = vec![format!("encryption   {}", shown.encryption)];
    lines.extend(shown.recipients.iter().map(|r| format!("recipient    {r}")));
    let file = shown.identity_file.map_or_else(String::new, |path| format!("{}: ", path.display()));
    lines.push(format!("identity     {file}{}", shown.identity));
    let none = || "none yet; `pgkeep init` makes it".to_owned();
    lines.push(format!("metadata key {}", shown.metadata.unwrap_or_else(none)));
    lines.push(format!("host key     {}", shown.host.clone().unwrap_or_else(none)));
    lines.extend(config.trust_hosts.iter().map(|key| format!("trusted host {key}")));
    if let Some(key) = shown.host {
        lines.push(format!("\nFor the configuration of other hosts:\n{}", trust_lines(&key)));
    }
    ctx.print(&lines.join("\n"))
}

/// What another host's configuration needs, to believe this one.
pub fn trust_lines(key: &str) -> String {
    format!("[trust]\nhosts = [\"{key}\"]")
}
