//! `pgkeep config check|show|example`.

use clap::Subcommand;
use serde_json::json;

use super::context::{Context, Outcome};
use crate::config::{Config, EncryptionConfig, reference};
use crate::error::Result;

/// Looks at the configuration.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reads the file and reports every fault with its line.
    Check,
    /// Prints what is configured, defaults included; no secrets.
    Show,
    /// Prints a complete commented file.
    Example,
}

pub fn run(ctx: &Context, command: &Command) -> Result<Outcome> {
    match command {
        Command::Check => {
            let config = ctx.load_config()?;
            if ctx.json {
                ctx.print_json(&json!({ "ok": true, "path": config.path }))?;
            } else {
                ctx.print(&format!("{}: no faults", config.path.display()))?;
            }
        }
        Command::Show => {
            let config = ctx.load_config()?;
            if ctx.json { ctx.print_json(&shown(&config))? } else { ctx.print(&shown_text(&config))? }
        }
        Command::Example => ctx.print(&reference::example())?,
    }
    Ok(Outcome::Done)
}

/// The configuration as the program understood it.
fn shown(config: &Config) -> serde_json::Value {
    let clusters = config.clusters.iter().map(|c| {
        json!({
            "name": c.name, "connection": c.connection, "data_directory": c.data_directory,
            "bin_directory": c.bin_directory, "primary": c.primary,
            "service": { "stop": c.service.stop, "start": c.service.start, "status": c.service.status },
        })
    });
    let repositories = config.repositories.iter().map(|r| {
        json!({
            "name": r.name, "url": r.store.url, "required": r.required, "region": r.store.region,
            "endpoint": r.store.endpoint, "profile": r.store.profile,
        })
    });
    let encryption = match &config.encryption {
        EncryptionConfig::Unset => json!(null),
        EncryptionConfig::None => json!("none"),
        EncryptionConfig::Recipients { recipients, identity_file } => {
            json!({ "recipients": recipients, "identity_file": identity_file })
        }
    };
    json!({
        "path": config.path,
        "state_directory": config.state_directory,
        "clusters": clusters.collect::<Vec<_>>(),
        "repositories": repositories.collect::<Vec<_>>(),
        "encryption": encryption,
        "trust": { "hosts": config.trust_hosts },
        "backup": { "workers": config.backup.workers, "compression": config.backup.compression },
        "archive": {
            "push_deadline": humantime::format_duration(config.archive.push_deadline).to_string(),
            "fetch_deadline": humantime::format_duration(config.archive.fetch_deadline).to_string(),
            "optional_grace": humantime::format_duration(config.archive.optional_grace).to_string(),
            "compression": config.archive.compression,
        },
        "restore": { "workers": config.restore.workers, "look_ahead": config.restore.look_ahead },
    })
}

/// The same as indented lines.
fn shown_text(config: &Config) -> String {
    let mut text = String::new();
    lines(&mut text, &shown(config), 0);
    text
}

fn lines(text: &mut String, value: &serde_json::Value, depth: usize) {
    use serde_json::Value;
    let indent = "  ".repeat(depth);
    let scalar = |value: &Value| match value {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                if value.is_object() || value.is_array() {
                    text.push_str(&format!("{indent}{name}:\n"));
                    lines(text, value, depth + 1);
                } else {
                    text.push_str(&format!("{indent}{name}: {}\n", scalar(value)));
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                if item.is_object() {
                    text.push_str(&format!("{indent}-\n"));
                    lines(text, item, depth + 1);
                } else {
                    text.push_str(&format!("{indent}- {}\n", scalar(item)));
                }
            }
        }
        other => text.push_str(&format!("{indent}{}\n", scalar(other))),
    }
}
