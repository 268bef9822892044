//! The kit's configuration: what a restore needs of the host's own, and nothing that lets anybody in. Pure.
//!
//! Sections and keys are taken by name; what is not named here is left out and told. So a secret that a later section may
//! have stays out until somebody decides otherwise.

use toml::{Table, Value};

use super::{HOME, IDENTITY_FILE};
use crate::config::{Config, StoreConfig};
use crate::error::{Code, Error, Result};
use crate::model::RepoName;

/// Sections that hold no secret, taken as they are.
const WHOLE: [&str; 10] =
    ["alerts", "archive", "assertion", "backup", "dump", "job", "proof", "state_directory", "tail", "verify"];
/// Of a cluster. Service commands and the primary are those of the lost host; where its programs were is named only where
/// they are not found by themselves.
const OF_CLUSTER: [&str; 4] = ["connection", "dump_connection", "data_directory", "bin_directory"];
/// Of a repository. Its keys, profile and certificates are written anew.
const OF_REPOSITORY: [&str; 15] = [
    "name",
    "url",
    "required",
    "region",
    "endpoint",
    "path_style",
    "storage_class",
    "checksum",
    "conditional_writes",
    "upload_bandwidth",
    "download_bandwidth",
    "concurrency",
    "part_size",
    "connect_timeout",
    "operation_deadline",
];

/// A configuration that may lie in a safe.
#[derive(Debug)]
pub struct Stripped {
    pub text: String,
    /// What was left out, and where it goes, a line each.
    pub left_out: Vec<String>,
    /// In the order of the configuration: the variables that each store's keys are read from.
    pub variables: Vec<(RepoName, Vec<String>)>,
    /// Certificates to be taken along: where they are, the name in the kit.
    pub certificates: Vec<(std::path::PathBuf, String)>,
}

/// `text` is the file that `config` was read from; `trusted` are all signers that are believed, this host's included.
pub fn strip(config: &Config, text: &str, trusted: &[String], head: &str) -> Result<Stripped> {
    let mut given: Table = text.parse().map_err(|e| {
        Error::new(Code::Config, "cannot read the configuration again").at(config.path.display()).because(e)
    })?;
    let mut out = Stripped {
        text: String::new(),
        left_out: Vec::new(),
        variables: Vec::new(),
        certificates: Vec::new(),
    };
    let mut kept = Table::new();
    for name in WHOLE {
        if let Some(value) = given.remove(name) {
            kept.insert(name.to_owned(), value);
        }
    }
    if let Some(Value::Table(clusters)) = given.remove("cluster") {
        let stripped = clusters.into_iter().map(|(name, cluster)| {
            let place = format!("[cluster.{name}]");
            let why = "of the lost host; it is found by itself where pgkeep runs";
            (name, pick(cluster, &OF_CLUSTER, &place, why, &mut out.left_out))
        });
        let stripped: Table = stripped.collect();
        kept.insert("cluster".to_owned(), Value::Table(stripped));
    }
    if let Some(Value::Array(repositories)) = given.remove("repository") {
        let pairs = repositories.into_iter().zip(&config.repositories);
        let stripped = pairs.map(|(value, repository)| {
            let name = &repository.name;
            strip_repository(value, name, &repository.store, &mut out)
        });
        let stripped: Vec<Value> = stripped.collect();
        kept.insert("repository".to_owned(), Value::Array(stripped));
    }
    if let Some(encryption) = given.remove("encryption") {
        kept.insert("encryption".to_owned(), strip_encryption(encryption));
    }
    given.remove("trust");
    let hosts = trusted.iter().cloned().map(Value::String).collect();
    kept.insert("trust".to_owned(), table([("hosts", Value::Array(hosts))]));
    if let Some(restore) = given.remove("restore") {
        let why = "name a directory with --scratch-dir";
        kept.insert(
            "restore".to_owned(),
            pick(restore, &["workers", "look_ahead"], "[restore]", why, &mut out.left_out),
        );
    }
    for (name, value) in &given {
        out.left_out.push(left_out(name, value));
    }
    let body = toml::to_string_pretty(&kept)
        .map_err(|e| Error::internal("a configuration that is no TOML").because(e))?;
    let mut notes = String::new();
    for (number, line) in out.left_out.iter().enumerate() {
        let head = if number == 0 { "# Left out:\n" } else { "" };
        notes.push_str(&format!("{head}#   {line}\n"));
    }
    out.text = format!("{head}{notes}\n{body}");
    Config::parse(&config.path, &out.text)
        .map_err(|e| Error::internal("the kit's configuration has a fault").because(e))?;
    Ok(out)
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Table(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// These keys of a table; the others are told.
fn pick(value: Value, keys: &[&str], place: &str, why: &str, left_out: &mut Vec<String>) -> Value {
    let Value::Table(all) = value else { return value };
    let (kept, rest): (Table, Table) = all.into_iter().partition(|(key, _)| keys.contains(&key.as_str()));
    left_out.extend(rest.keys().map(|key| format!("{place} {key}: {why}")));
    Value::Table(kept)
}

fn strip_repository(value: Value, name: &RepoName, store: &StoreConfig, out: &mut Stripped) -> Value {
    let Value::Table(mut all) = value else { return value };
    for key in ["credentials", "profile", "ca_file", "capacity"] {
        all.remove(key);
    }
    let place = format!("[[repository]] {name}:");
    let mut kept =
        pick(Value::Table(all), &OF_REPOSITORY, &place, "not needed for a restore", &mut out.left_out);
    let Value::Table(table_of_it) = &mut kept else { return kept };
    if let Some(from) = &store.ca_file {
        let file = format!("ca-{name}.pem");
        table_of_it.insert("ca_file".to_owned(), Value::String(format!("{HOME}/{file}")));
        out.certificates.push((from.clone(), file));
    }
    if store.directory().is_some() {
        out.variables.push((name.clone(), Vec::new()));
        return kept;
    }
    let number = out.variables.len();
    let word = variable_word(name, number, &out.variables);
    let token = store.credentials.as_ref().is_some_and(|given| given.session_token.is_some());
    let mut names = vec!["access_key_id", "secret_access_key"];
    names.extend(token.then_some("session_token"));
    let mut credentials = Table::new();
    let mut variables = Vec::new();
    for key in names {
        let variable = format!("KIT_{word}_{}", key.to_ascii_uppercase());
        credentials.insert(key.to_owned(), table([("env", Value::String(variable.clone()))]));
        variables.push(variable);
    }
    out.left_out
        .push(format!("[[repository]] {name}: its keys: {} in the environment", variables.join(", ")));
    out.variables.push((name.clone(), variables));
    table_of_it.insert("credentials".to_owned(), Value::Table(credentials));
    kept
}

/// A repository's name in a variable; `a-b` and `a_b` are two.
fn variable_word(name: &RepoName, number: usize, taken: &[(RepoName, Vec<String>)]) -> String {
    let word = name.as_str().to_ascii_uppercase().replace('-', "_");
    let prefix = format!("KIT_{word}_ACCESS");
    let is_taken = taken.iter().any(|(_, names)| names.iter().any(|name| name.starts_with(&prefix)));
    if is_taken { format!("{word}_{number}") } else { word }
}

fn strip_encryption(value: Value) -> Value {
    let Value::Table(mut all) = value else { return value };
    all.retain(|key, _| key == "recipients");
    all.insert("identity_file".to_owned(), Value::String(IDENTITY_FILE.to_owned()));
    Value::Table(all)
}

fn left_out(name: &str, value: &Value) -> String {
    let names = |list: &[Value]| {
        let names = list.iter().filter_map(|item| item.get("name")?.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    match (name, value) {
        ("alert_sink", Value::Array(list)) => {
            format!(
                "[[alert_sink]] {}: receivers and their secrets; set them up again afterwards",
                names(list)
            )
        }
        ("heartbeat", _) => "[heartbeat]: its URL is a secret; set it up again afterwards".to_owned(),
        _ => format!("[{name}]: a restore does not need it; set it up again afterwards"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    const HOST: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    fn full() -> String {
        format!(
            r#"
state_directory = "/srv/state"
[cluster.main]
connection = "host=/run/postgresql user=pgkeep passfile=/root/PLANTED-passfile"
data_directory = "/srv/data"
bin_directory = "/opt/postgresql/bin"
primary = "host=PLANTED-primary"
[cluster.main.service]
stop = "PLANTED-stop"
start = "PLANTED-start"
[[repository]]
name = "eu-1"
url = "s3://backups/prod"
ca_file = "/etc/PLANTED/ca.pem"
[repository.credentials]
access_key_id = {{ command = "echo PLANTED-id" }}
secret_access_key = {{ file = "/etc/PLANTED/secret" }}
session_token = {{ env = "PLANTED_TOKEN" }}
[[repository]]
name = "eu_1"
url = "s3://other/prod"
profile = "PLANTED-profile"
[[repository]]
name = "disk"
url = "file:///srv/pgkeep"
[encryption]
recipients = ["{RECIPIENT}"]
identity_file = "/root/PLANTED-identity"
[restore]
workers = 3
scratch_directory = "/PLANTED/scratch"
[[job]]
name = "nightly"
kind = "full"
schedule = "0 2 * * *"
[agent]
http = "127.0.0.1:9797"
[[alert_sink]]
name = "pager"
kind = "webhook"
url = {{ command = "echo PLANTED-url" }}
[heartbeat]
url = {{ env = "PLANTED_BEAT" }}
"#
        )
    }

    fn stripped() -> Stripped {
        let text = full();
        let config = Config::parse(Path::new("/etc/pgkeep/pgkeep.toml"), &text).unwrap();
        strip(&config, &text, &[HOST.to_owned()], "# head\n").unwrap()
    }

    #[test]
    fn nothing_that_lets_anybody_in_is_left_and_all_of_it_is_named() {
        let out = stripped();
        let without_passfile = out.text.replace("PLANTED-passfile", "");
        assert!(!without_passfile.contains("PLANTED"), "{}", out.text);
        let told = out.left_out.join("\n");
        for name in ["service", "primary", "agent", "pager", "heartbeat", "scratch_directory"] {
            assert!(told.contains(name), "{name}: {told}");
        }
        assert!(out.text.contains("# Left out:\n#   "));
    }

    #[test]
    fn what_a_restore_needs_is_there_and_keys_come_from_variables_of_each_repository() {
        let out = stripped();
        let config = Config::parse(Path::new("/etc/pgkeep/pgkeep.toml"), &out.text).unwrap();
        assert_eq!(config.clusters[0].data_directory.as_deref(), Some(Path::new("/srv/data")));
        assert_eq!(config.trust_hosts, [HOST]);
        assert_eq!(super::super::recipients(&config), [RECIPIENT]);
        assert_eq!((config.restore.workers, config.jobs.len()), (3, 1));
        assert_eq!(config.require_identity().unwrap(), Path::new(IDENTITY_FILE));
        assert_eq!(
            config.repositories[0].store.ca_file.as_deref(),
            Some(Path::new("/etc/pgkeep/ca-eu-1.pem"))
        );
        assert_eq!(out.variables[0].1.len(), 3);
        assert_eq!(out.variables[1].1, ["KIT_EU_1_1_ACCESS_KEY_ID", "KIT_EU_1_1_SECRET_ACCESS_KEY"]);
        assert!(out.variables[2].1.is_empty());
        assert_eq!(
            out.certificates,
            [(Path::new("/etc/PLANTED/ca.pem").to_owned(), "ca-eu-1.pem".to_owned())]
        );
    }
}
