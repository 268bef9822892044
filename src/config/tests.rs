//! Tests of the configuration as a whole.

use super::*;

const GOOD: &str = r#"
[cluster.main]
connection = "host=/tmp user=pgkeep"
[[repository]]
name = "disk"
url = "file:///srv/pgkeep"
[encryption]
recipients = ["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"]
"#;

fn parse(text: &str) -> Result<Config> {
    Config::parse(Path::new("/etc/pgkeep/pgkeep.toml"), text)
}

fn faults(text: &str) -> String {
    let error = parse(text).unwrap_err();
    assert_eq!(error.code(), Code::Config);
    error.what().to_owned()
}

#[test]
fn a_single_machine_needs_a_connection_a_directory_and_a_recipient() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.cluster(None).unwrap().name.as_str(), "main");
    assert!(config.repositories[0].required);
    assert_eq!(config.state_directory, Path::new("/var/lib/pgkeep"));
    config.require_encryption().unwrap();
    assert_eq!(config.require_identity().unwrap_err().code(), Code::Key);
}

#[test]
fn every_fault_is_reported_at_once_with_its_line() {
    let text = r#"encryption = "off"
state_directory = "lib"
[cluster.Main]
conection = "host=/tmp password=x"
[[repository]]
name = "eu"
url = "ftp://x"
regoin = "eu-central-1"
[[repository]]
name = "eu"
url = "file:///srv/x"
region = "a"
required = "yes"
[archive]
push_deadline = 60
[backup]
workers = 0
compresion = 3
"#;
    insta::assert_snapshot!(faults(text));
}

#[test]
fn what_is_no_toml_is_said_with_its_line() {
    insta::assert_snapshot!(faults("[cluster.main]\nconnection = host=/tmp\n"));
}

#[test]
fn an_empty_file_says_what_it_lacks() {
    insta::assert_snapshot!(faults(""));
}

#[test]
fn secrets_do_not_stand_in_the_file() {
    let text = r#"
[cluster.main]
connection = "postgresql://pgkeep:hunter2@db1/postgres"
[[repository]]
name = "eu"
url = "s3://b"
[repository.credentials]
access_key_id = "AKIAEXAMPLE"
secret_access_key = { env = "A", file = "/b" }
[encryption]
recipients = ["AGE-SECRET-KEY-1QQPQ", "age1x"]
"#;
    let said = faults(text);
    assert!(!said.contains("hunter2") && !said.contains("QQPQ") && !said.contains("AKIAEXAMPLE"), "{said}");
    insta::assert_snapshot!(said);
}

#[test]
fn a_password_is_found_in_every_form_of_a_connection() {
    for (connection, refused) in [
        ("host=/tmp password=x", true),
        ("host=/tmp password = x", true),
        ("postgresql://u:p@h/db", true),
        ("postgresql://u@h/db?password=x", true),
        ("postgresql://u@h:5432/db", false),
        ("host=/tmp passfile=/x", false),
    ] {
        let text = GOOD.replace("host=/tmp user=pgkeep", connection);
        assert_eq!(parse(&text).is_err(), refused, "{connection}");
    }
}

#[test]
fn a_repository_lies_neither_in_the_state_nor_in_the_data_directory_nor_the_reverse() {
    for (root, data, refused) in [
        ("/var/lib/pgkeep/repo", "/data", true),
        ("/var/lib", "/data", true),
        ("/data/repo", "/data", true),
        ("/data", "/data/main", true),
        ("/database", "/data", false),
    ] {
        let text = GOOD
            .replace("file:///srv/pgkeep", &format!("file://{root}"))
            .replace("[[repository]]", &format!("data_directory = \"{data}\"\n[[repository]]"));
        assert_eq!(parse(&text).is_err(), refused, "{root} {data}");
    }
    let config = parse(GOOD).unwrap();
    config.refuse_roots_inside(Path::new("/var/lib/postgresql")).unwrap();
    assert_eq!(config.refuse_roots_inside(Path::new("/srv")).unwrap_err().code(), Code::Config);
}

#[test]
fn a_link_does_not_hide_that_a_repository_lies_in_the_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("data"), dir.path().join("link")).unwrap();
    let url = format!("file://{}/link/repo", dir.path().display());
    let config = parse(&GOOD.replace("file:///srv/pgkeep", &url)).unwrap();
    assert!(config.refuse_roots_inside(&dir.path().join("data")).is_err());
}

#[test]
fn nothing_is_written_when_nobody_said_who_can_read_it() {
    let text = GOOD.split("[encryption]").next().unwrap();
    assert_eq!(parse(text).unwrap().require_encryption().unwrap_err().code(), Code::EncryptionUnset);
    let none = parse(&format!("encryption = \"none\"\n{text}")).unwrap();
    assert_eq!(*none.require_encryption().unwrap(), EncryptionConfig::None);
}

#[test]
fn an_identity_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (file, identity) = (dir.path().join("pgkeep.toml"), dir.path().join("identity.txt"));
    std::fs::write(&identity, "").unwrap();
    std::fs::write(&file, format!("{GOOD}identity_file = \"{}\"\n", identity.display())).unwrap();
    for (mode, refused) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
        std::fs::set_permissions(&identity, std::fs::Permissions::from_mode(mode)).unwrap();
        let loaded = Config::load(&file);
        assert_eq!(loaded.is_err(), refused, "{mode:o}");
        if let Err(error) = loaded {
            assert_eq!(error.code(), Code::Key);
            assert_eq!(error.hint_text(), Some(format!("chmod 0600 {}", identity.display()).as_str()));
        }
    }
    std::fs::remove_file(&identity).unwrap();
    Config::load(&file).unwrap();
}

#[test]
fn several_clusters_need_a_name() {
    let config = parse(&format!("{GOOD}[cluster.other]\nconnection = \"host=/tmp\"\n")).unwrap();
    assert_eq!(config.cluster(None).unwrap_err().code(), Code::Usage);
    let other = ClusterName::parse("other").unwrap();
    assert_eq!(config.cluster(Some(&other)).unwrap().name, other);
    let error = config.cluster(ClusterName::parse("third").as_ref()).unwrap_err();
    assert_eq!(error.hint_text(), Some("it has: main, other"));
}

#[test]
fn the_example_is_a_valid_configuration() {
    let config = parse(&reference::example()).unwrap();
    assert_eq!(config.clusters.len(), 1);
    assert_eq!(config.repositories.len(), 1);
}

#[test]
fn every_documented_key_is_read_and_every_key_that_is_read_is_documented() {
    let text = reference::everything_set();
    let faults = reader::Faults::new(Path::new("/x"), &text);
    sections::read(Path::new("/x"), &text, &faults).unwrap();
    let mut documented: std::collections::BTreeSet<String> = reference::keys()
        .map(|doc| {
            let section = doc.section.trim_matches(['[', ']']).replace(".NAME", "");
            if section.is_empty() { doc.key.to_owned() } else { format!("{section}.{}", doc.key) }
        })
        .collect();
    let mut asked = faults.asked();
    assert!(faults.into_error().is_none());
    // Tables are keys to the reader; the forms of a secret are explained once.
    for section in reference::sections() {
        documented.insert(section.head.trim_matches(['[', ']']).replace(".NAME", ""));
    }
    documented.remove("");
    // The example's job is a dump, which refuses these.
    for key in ["where", "repository", "budget", "deep", "heal"] {
        documented.remove(&format!("job.{key}"));
    }
    asked.retain(|key| ![".env", ".file", ".command"].iter().any(|form| key.ends_with(form)));
    assert_eq!(documented, asked);
}

#[test]
fn the_committed_example_and_reference_are_fresh() {
    for (name, fresh) in
        [("pgkeep.example.toml", reference::example()), ("REFERENCE.md", reference::reference_page())]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
        if std::env::var_os("PGKEEP_WRITE_GENERATED").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &fresh).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == fresh, "{name} is stale: PGKEEP_WRITE_GENERATED=1 cargo test writes it anew");
    }
}
