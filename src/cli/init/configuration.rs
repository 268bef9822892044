//! The text of a new configuration: the few keys that are not at their defaults, with a word about each.

use std::path::{Path, PathBuf};

/// What a new configuration says.
#[derive(Debug)]
pub struct NewConfiguration {
    pub cluster: String,
    pub connection: String,
    pub data_directory: Option<PathBuf>,
    pub bin_directory: Option<PathBuf>,
    pub state_directory: Option<PathBuf>,
    pub repository: String,
    pub url: String,
    /// Further keys of the repository, with their values as TOML.
    pub store: Vec<(&'static str, String)>,
    /// None: `encryption = "none"`.
    pub recipients: Option<Vec<String>>,
    pub identity_file: Option<PathBuf>,
}

impl NewConfiguration {
    pub fn text(&self) -> String {
        let mut text = String::from("# pgkeep's configuration; `pgkeep config example` prints every key.\n");
        if let Some(path) = &self.state_directory {
            text += &format!("state_directory = {}\n", quoted_path(path));
        }
        if self.recipients.is_none() {
            text += "# Everything is stored in the clear.\nencryption = \"none\"\n";
        }
        text += &format!("\n[cluster.{}]\nconnection = {}\n", self.cluster, quoted(&self.connection));
        for (key, path) in [("data_directory", &self.data_directory), ("bin_directory", &self.bin_directory)]
        {
            if let Some(path) = path {
                text += &format!("{key} = {}\n", quoted_path(path));
            }
        }
        text +=
            &format!("\n[[repository]]\nname = {}\nurl = {}\n", quoted(&self.repository), quoted(&self.url));
        for (key, value) in &self.store {
            text += &format!("{key} = {value}\n");
        }
        if let Some(recipients) = &self.recipients {
            let list: Vec<String> = recipients.iter().map(|r| quoted(r)).collect();
            text += &format!("\n[encryption]\nrecipients = [{}]\n", list.join(", "));
            if let Some(path) = &self.identity_file {
                text += "# Only where restores run: move the file away, and keep it in two places.\n";
                text += &format!("identity_file = {}\n", quoted_path(path));
            }
        }
        text += CANARY;
        text
    }
}

/// What is off by default and worth knowing of.
const CANARY: &str = "\n# A row a minute in a schema of its own (`pgkeep`), by which drills prove that the last row of a restored\n\
     # moment is the one that it must be. It keeps an idle cluster writing, so it is off until you say so.\n\
     # [canary]\n# enabled = true\n";

/// A TOML string.
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, EncryptionConfig};

    fn new() -> NewConfiguration {
        NewConfiguration {
            cluster: "main".into(),
            connection: r#"host=/tmp user="odd\user""#.into(),
            data_directory: None,
            bin_directory: None,
            state_directory: Some("/var/lib/x".into()),
            repository: "main".into(),
            url: "s3://b/p".into(),
            store: vec![("region", quoted("eu")), ("path_style", "true".into())],
            recipients: Some(vec!["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p".into()]),
            identity_file: Some("/etc/pgkeep/identity.txt".into()),
        }
    }

    #[test]
    fn what_is_written_reads_back_as_it_was_meant() {
        let meant = new();
        let config = Config::parse(Path::new("/x"), &meant.text()).unwrap();
        assert_eq!(config.clusters[0].connection, meant.connection);
        assert_eq!(config.state_directory, Path::new("/var/lib/x"));
        assert_eq!(config.repositories[0].store.path_style, Some(true));
        assert!(matches!(config.encryption, EncryptionConfig::Recipients { identity_file: Some(_), .. }));
    }

    #[test]
    fn storing_in_the_clear_is_written_out() {
        let config =
            Config::parse(Path::new("/x"), &NewConfiguration { recipients: None, ..new() }.text()).unwrap();
        assert_eq!(config.encryption, EncryptionConfig::None);
    }
}
