use std::os::unix::fs::PermissionsExt;

use super::*;

/// A world without environment and home, but for what the test puts there.
fn resolve(text: &str, env: &[(&str, &str)], home: Option<&Path>) -> Result<ConnInfo> {
    let look = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
    let around =
        Surroundings { env: &look, home: home.map(Path::to_path_buf), os_user: Some("alice".to_owned()) };
    ConnInfo::resolve_in(text, &around)
}

fn plain(text: &str) -> ConnInfo {
    resolve(text, &[], None).unwrap()
}

fn write(dir: &Path, name: &str, mode: u32, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn pairs_are_read_with_quotes_and_escapes() {
    let info =
        plain(r"host = db1  port=5433 user='o\'brien' password='a b\\' dbname=my\ db connect_timeout=3");
    assert_eq!(info.hosts, [HostSpec { host: "db1".into(), hostaddr: None, port: 5433 }]);
    assert_eq!((info.user.as_str(), info.dbname.as_str()), ("o'brien", "my db"));
    assert_eq!(info.password(), Some(r"a b\"));
    assert_eq!(info.number("connect_timeout").unwrap(), Some(3));
}

#[test]
fn a_uri_means_the_same_as_its_pairs() {
    let info =
        plain("postgresql://bob:p%40ss@db1:5433,[::1]:5434/shop?sslmode=require&application_name=x%20y");
    assert_eq!(
        info.hosts.iter().map(|h| (h.host.as_str(), h.port)).collect::<Vec<_>>(),
        [("db1", 5433), ("::1", 5434)]
    );
    assert_eq!((info.user.as_str(), info.dbname.as_str(), info.password()), ("bob", "shop", Some("p@ss")));
    assert_eq!((info.sslmode, info.value("application_name")), (SslMode::Require, Some("x y")));
    let socket = plain("postgres://%2Fvar%2Flib%2Fsock/app");
    assert!(socket.hosts[0].is_socket());
    assert_eq!(socket.hosts[0].host, "/var/lib/sock");
}

#[test]
fn defaults_are_the_effective_user_and_a_local_socket() {
    let info = plain("");
    assert_eq!((info.user.as_str(), info.dbname.as_str()), ("alice", "alice"));
    assert!(info.hosts[0].is_socket() && info.hosts[0].port == 5432);
    assert_eq!(info.sslmode, SslMode::Prefer);
}

#[test]
fn the_string_wins_over_the_service_and_the_service_over_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(
        dir.path(),
        "services",
        0o644,
        "# all\n[other]\nhost=wrong\n\n[shop]\nhost=db1\nport=6000\nuser = carol\n[shop]\nhost=second\n",
    );
    let env = [
        ("PGSERVICEFILE", file.to_str().unwrap()),
        ("PGHOST", "fromenv"),
        ("PGDATABASE", "envdb"),
        ("PGPORT", "7"),
    ];
    let info = resolve("service=shop port=6001", &env, None).unwrap();
    assert_eq!(info.hosts, [HostSpec { host: "db1".into(), hostaddr: None, port: 6001 }]);
    assert_eq!((info.user.as_str(), info.dbname.as_str()), ("carol", "envdb"));
    let error = resolve("service=absent", &env, None).unwrap_err();
    assert_eq!(error.code(), Code::Config);
    assert!(
        error.to_string().contains("absent") && error.to_string().contains(file.to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn a_service_may_come_from_the_home_directory_or_the_hosts_own_file() {
    let (home, system) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(home.path(), ".pg_service.conf", 0o600, "[mine]\nhost=h1\n");
    write(system.path(), "pg_service.conf", 0o644, "[mine]\nhost=no\n[theirs]\nhost=h2\n");
    let env = [("PGSYSCONFDIR", system.path().to_str().unwrap())];
    let host = |text: &str| resolve(text, &env, Some(home.path())).unwrap().hosts[0].host.clone();
    assert_eq!((host("service=mine").as_str(), host("service=theirs").as_str()), ("h1", "h2"));
}

#[test]
fn the_password_file_is_matched_by_host_port_database_and_user() {
    let dir = tempfile::tempdir().unwrap();
    let text = "# comment\nlocalhost:*:*:alice:local\ndb\\:1:5433:shop:*:with\\:colon\\\\\ndb2:*:shop:alice:second:rest\n*:*:*:bob:any\n";
    write(dir.path(), ".pgpass", 0o600, text);
    let password = |conn: &str| resolve(conn, &[], Some(dir.path())).unwrap().password().map(str::to_owned);
    assert_eq!(password("host=/tmp").as_deref(), Some("local"));
    assert_eq!(password("host=/elsewhere"), None);
    assert_eq!(password("host=db:1 port=5433 dbname=shop").as_deref(), Some(r"with:colon\"));
    assert_eq!(password("host=db:1 port=5432 dbname=shop"), None);
    assert_eq!(password("host=db2 dbname=shop").as_deref(), Some("second"));
    assert_eq!(password("host=anywhere user=bob").as_deref(), Some("any"));
    assert_eq!(password("host=anywhere user=bob password=own").as_deref(), Some("own"));
}

#[test]
fn a_password_file_that_others_can_read_is_passed_over_and_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "pass", 0o640, "*:*:*:*:secret\n");
    let info = resolve(&format!("passfile={}", file.display()), &[], None).unwrap();
    assert_eq!(info.password(), None);
    assert!(info.pass_file_note.unwrap().contains("chmod 600"));
}

#[test]
fn the_password_is_never_printed() {
    let info = plain("host=db1 password=hunter2");
    assert!(!format!("{info:?} {}", info.place()).contains("hunter2"));
    for text in ["host=db1 password hunter2", "password='hunter2", "postgres://a:hunter2@h:x/"] {
        let error = resolve(text, &[], None).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn an_unknown_option_and_a_bad_value_are_refused() {
    for text in [
        "hots=db1",
        "sslcrl=/x",
        "port=0",
        "port=x",
        "port=1,2 host=a,b,c",
        "sslmode=verify",
        "host",
        "=x",
        "host=a,b hostaddr=1.2.3.4",
        "sslmode=verify-full",
        "sslrootcert=system sslmode=require",
        "connect_timeout",
    ] {
        assert_eq!(resolve(text, &[], None).unwrap_err().code(), Code::Config, "{text}");
    }
}

#[test]
fn certificates_are_found_in_the_home_directory_and_system_roots_mean_verify_full() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".postgresql")).unwrap();
    let root = write(home.path(), ".postgresql/root.crt", 0o644, "");
    let info = resolve("host=db1 sslmode=verify-ca", &[], Some(home.path())).unwrap();
    assert_eq!(info.sslrootcert, Some(RootCert::File(root)));
    assert_eq!(plain("host=db1 sslrootcert=system").sslmode, SslMode::VerifyFull);
    assert_eq!(resolve("host=x", &[("PGSSLMODE", "disable")], None).unwrap().sslmode, SslMode::Disable);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text: String) {
        let _ = resolve(&text, &[], None);
        let _ = resolve(&format!("postgres://{text}"), &[], None);
        let _ = service_file::section(&text, "x");
        let _ = pass_file::password(&text, &HostSpec { host: "h".into(), hostaddr: None, port: 1 }, "d", "u");
    }

    #[test]
    fn every_quoted_value_reads_back(value in "[^\\x00]+") {
        let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
        let info = plain(&format!("host=h dbname='{quoted}'"));
        proptest::prop_assert_eq!(info.dbname, value);
    }
}
