//! This host: keys, the data directory, PostgreSQL's programs.

use super::findings::Findings;
use crate::codec::Identities;
use crate::config::{ClusterConfig, Config, EncryptionConfig};
use crate::postgres::control_file::ControlFile;
use crate::postgres::facts::ServerFacts;
use crate::postgres::privilege::Owner;
use crate::postgres::service::{self, Commands, Service};
use crate::postgres::tools::Tools;
use crate::repository::{access, host_keys};

/// Who can read the backups, who signs them.
pub fn keys(config: &Config, findings: &mut Findings) {
    match &config.encryption {
        // Refused before the first check.
        EncryptionConfig::Unset => {}
        EncryptionConfig::None => findings.warn(
            "encryption",
            "everything is stored in the clear (encryption = \"none\")",
            "whoever reads the repository reads the database; [encryption] changes that for what is written from then on",
        ),
        EncryptionConfig::Recipients { recipients, identity_file } => {
            let count = if recipients.len() == 1 { "1 recipient".to_owned() } else { format!("{} recipients", recipients.len()) };
            findings.ok("encryption", format!("to {count}"));
            match identity_file {
                Some(path) if path.exists() => identity(recipients, path, findings),
                Some(path) => findings.ok(
                    "identity",
                    format!("{} is not on this host: it backs up, and cannot restore by itself", path.display()),
                ),
                None => findings.ok("identity", "none configured: this host backs up, and cannot restore by itself"),
            }
        }
    }
    match access::host_key(config) {
        Ok(key) => findings.ok("host key", format!("signs as {}", key.public().line())),
        Err(error) => findings.error("host key", &error),
    }
    match host_keys::metadata_recipient(config) {
        Ok(Some(_)) => findings.ok("metadata key", "this host can read its own manifests and indexes"),
        Ok(None) => findings.warn(
            "metadata key",
            "there is none: this host cannot read its own manifests",
            "`pgkeep init` makes it",
        ),
        Err(error) => findings.error("metadata key", &error),
    }
}

fn identity(recipients: &[String], path: &std::path::Path, findings: &mut Findings) {
    match Identities::load(path).map(|identities| identities.recipients()) {
        Ok(own) if recipients.iter().any(|r| own.contains(r)) => findings
            .ok("identity", format!("{} opens what is written here; keep a copy elsewhere", path.display())),
        Ok(_) => findings.fail(
            "identity",
            format!(
                "{} opens none of the recipients: nothing written now could be restored with it",
                path.display()
            ),
            "correct `recipients` or `identity_file`; `pgkeep key show` compares them",
        ),
        Err(error) => findings.error("identity", &error),
    }
}

/// The server's files are on this host, and they are this server's.
pub fn data_directory(
    config: &Config,
    cluster: &ClusterConfig,
    facts: &ServerFacts,
    findings: &mut Findings,
) {
    if cluster.data_directory.is_none() {
        findings.warn(
            "data directory",
            "the configuration does not name it: with the server gone, a restore does not know where to",
            format!("in [cluster.{}]: data_directory = \"{}\"", cluster.name, facts.data_directory.display()),
        );
    }
    if let Err(error) = config.refuse_roots_inside(&facts.data_directory) {
        findings.error("repository place", &error);
    }
    let place = facts.data_directory.display();
    match ControlFile::read(&facts.data_directory) {
        Ok(control) if control.system == facts.system_identifier => {
            findings.ok("data directory", format!("{place} is readable and this server's"));
        }
        Ok(control) => findings.fail(
            "data directory",
            format!(
                "{place} belongs to system identifier {}, the connection leads to {}",
                control.system, facts.system_identifier
            ),
            "the connection leads to another host: run pgkeep on the database host",
        ),
        Err(error) => findings.error("data directory", &error),
    }
}

/// Programs of the right major, and who stops and starts the server.
pub async fn tools(cluster: &ClusterConfig, facts: &ServerFacts, findings: &mut Findings) {
    let running = service::server_program(&facts.data_directory);
    let tools = match Tools::find(facts.major, cluster.bin_directory.as_deref(), running.as_deref()).await {
        Ok(tools) => {
            findings.ok("tools", format!("PostgreSQL {} in {}", tools.major, tools.bin_dir.display()));
            tools
        }
        Err(error) => {
            findings.error("tools", &error);
            return;
        }
    };
    let commands = Commands {
        stop: cluster.service.stop.clone(),
        start: cluster.service.start.clone(),
        status: cluster.service.status.clone(),
    };
    let detected = match Owner::of(&facts.data_directory) {
        Ok(owner) => Service::detect(commands, &facts.data_directory, owner, tools).await,
        Err(error) => Err(error),
    };
    match detected {
        Ok(service) => {
            findings.ok("service", format!("stopped and started by {}", service.describe()));
            if let Err(error) = service.refuse_other_managers() {
                findings.error_if(false, "service", &error);
            }
        }
        Err(error) => findings.error("service", &error),
    }
}
