//! Connecting, facts, rights and the session of a base backup, on real servers of every major.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgkeep::error::Code;
use pgkeep::model::Lsn;
use pgkeep::postgres::{BackupSession, Session, connect, roles};

use crate::support::{Build, Pg, PgOptions, Root};

/// A role made as `init --create-role` makes it, without a password.
fn with_role(pg: &Pg) -> String {
    for statement in roles::create_role(pgkeep::model::PgMajor(pg.build.major), "pgkeep") {
        pg.sql(&statement);
    }
    pg.conninfo().replace("user=postgres", "user=pgkeep")
}

async fn a_role_without_superuser_does_a_whole_backup_session(build: Build) {
    let root = Root::new();
    let major = build.major;
    let pg = PgOptions::new(build).segment_mib(1).create(&root);
    pg.start();
    pg.sql("create table t as select generate_series(1, 1000) i");
    let conninfo = with_role(&pg);

    let session = connect(&conninfo).await.unwrap();
    assert!(session.missing_grants().await.unwrap().is_empty());
    let facts = session.facts().await.unwrap();
    assert!(!facts.is_superuser && !facts.in_recovery && facts.data_checksums);
    assert_eq!((facts.major.0, facts.timeline.0, facts.wal_segment_size.bytes()), (major, 1, 1 << 20));
    assert_eq!(facts.system_identifier.0, pg.system_id());
    assert_eq!(facts.data_directory, pg.data);
    assert_eq!(facts.socket_dirs, [pg.socket().0]);
    assert_eq!((facts.wal_level(), facts.archive_mode(), facts.full_page_writes()), ("replica", "off", true));
    assert_eq!(facts.standby_settings()["max_connections"], "30");
    assert!(session.create_restore_point("before").await.unwrap() > Lsn(0));
    assert!(session.switch_wal().await.unwrap() > Lsn(0));
    if major >= 15 {
        session.checkpoint().await.unwrap();
    }

    let backup = BackupSession::start(session, "a \"label\"", true).await.unwrap();
    let started = backup.started().clone();
    backup.ping().await.unwrap();
    let (stop, session) = backup.stop().await.unwrap();
    assert!(stop.stop_lsn > started.start_lsn && stop.stop_time > started.started_at);
    assert_eq!(stop.label_facts.start_lsn, started.start_lsn);
    assert_eq!(stop.label_facts.timeline, started.timeline);
    let label = String::from_utf8(stop.label).unwrap();
    assert!(label.contains("\nLABEL: a \"label\"\n") && label.ends_with("START TIMELINE: 1\n"), "{label}");
    assert!(stop.tablespace_map.is_empty());
    session.ping().await.unwrap();
}

macro_rules! on_every_major {
    ($($name:ident: $build:expr => $test:ident;)*) => {
        $(#[tokio::test] async fn $name() { $test($build).await; })*
    };
}
on_every_major! {
    a_plain_role_backs_up_postgres_14: Build::of(14) => a_role_without_superuser_does_a_whole_backup_session;
    a_plain_role_backs_up_postgres_15: Build::of(15) => a_role_without_superuser_does_a_whole_backup_session;
    a_plain_role_backs_up_postgres_16: Build::of(16) => a_role_without_superuser_does_a_whole_backup_session;
    a_plain_role_backs_up_postgres_17: Build::of(17) => a_role_without_superuser_does_a_whole_backup_session;
    a_plain_role_backs_up_postgres_18: Build::of(18) => a_role_without_superuser_does_a_whole_backup_session;
    a_plain_role_backs_up_debians_postgres: Build::debian() => a_role_without_superuser_does_a_whole_backup_session;
}

#[tokio::test]
async fn a_missing_right_is_answered_with_the_grant_that_gives_it() {
    for major in [14, 18] {
        let root = Root::new();
        let pg = PgOptions::new(Build::of(major)).create(&root);
        pg.start();
        pg.sql("create role bare login");
        let conninfo = pg.conninfo().replace("user=postgres", "user=bare");
        let session = connect(&conninfo).await.unwrap();
        let error = session.facts().await.unwrap_err();
        assert_eq!(error.code(), Code::NotReady);
        assert!(error.hint_text().unwrap().contains("GRANT pg_read_all_settings TO \"bare\""), "{error:?}");
        // One of PostgreSQL's own roles is enough for looking.
        pg.sql("grant pg_read_all_settings to bare");
        connect(&conninfo).await.unwrap().facts().await.unwrap();
        let missing = session.missing_grants().await.unwrap();
        let error = BackupSession::start(session, "x", true).await.unwrap_err();
        assert_eq!(error.code(), Code::NotReady);
        assert!(error.hint_text().unwrap().contains("GRANT EXECUTE ON FUNCTION pg_catalog.pg_"), "{error:?}");
        // What it said is enough.
        for statement in missing {
            pg.sql(&statement);
        }
        let session = connect(&conninfo).await.unwrap();
        assert!(session.missing_grants().await.unwrap().is_empty());
        session.facts().await.unwrap();
        BackupSession::start(session, "x", true).await.unwrap().stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_whose_session_was_ended_by_the_server_fails_and_leaves_no_backup_in_progress() {
    let root = Root::new();
    let pg = PgOptions::new(Build::of(16)).create(&root);
    pg.start();
    let backup = BackupSession::start(connect(&pg.conninfo()).await.unwrap(), "x", true).await.unwrap();
    pg.sql(&format!("select pg_terminate_backend({}, 5000)", backup.session().backend_pid()));
    let error = backup.ping().await.unwrap_err();
    assert_eq!(error.code(), Code::Connect);
    assert!(error.to_string().contains("cannot become whole"), "{error}");
    assert!(backup.stop().await.is_err());
    // And one that is merely dropped is aborted by PostgreSQL.
    let backup = BackupSession::start(connect(&pg.conninfo()).await.unwrap(), "x", true).await.unwrap();
    let pid = backup.session().backend_pid();
    drop(backup);
    crate::support::eventually("the session has ended", Duration::from_secs(10), || {
        pg.one(&format!("select count(*) from pg_stat_activity where pid = {pid}")) == "0"
    });
}

#[tokio::test]
async fn a_session_works_under_its_own_settings_whatever_the_role_and_database_say() {
    let root = Root::new();
    let pg = PgOptions::new(Build::of(17)).create(&root);
    pg.start();
    for setting in [
        "statement_timeout = 100",
        "idle_session_timeout = 50",
        "search_path = evil",
        "transaction_timeout = 100",
        "idle_in_transaction_session_timeout = 50",
        "lock_timeout = 1",
    ] {
        // From another database, for the traps would catch the harness as well.
        pg.session_in("template1").sql(&format!("alter database postgres set {setting}"));
    }
    let session = connect(&pg.conninfo()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    session.rows("sleep", Duration::from_secs(5), "select pg_catalog.pg_sleep(0.3)", &[]).await.unwrap();
    for (name, value) in [
        ("statement_timeout", "0"),
        ("idle_session_timeout", "0"),
        ("search_path", ""),
        ("transaction_timeout", "0"),
        ("lock_timeout", "0"),
        ("application_name", "pgkeep"),
    ] {
        assert_eq!(session.setting(name).await.unwrap().as_deref(), Some(value), "{name}");
    }
}

#[tokio::test]
async fn locks_are_held_by_one_session_at_a_time() {
    let root = Root::new();
    let pg = PgOptions::new(Build::of(15)).create(&root);
    pg.start();
    let (one, two) = (connect(&pg.conninfo()).await.unwrap(), connect(&pg.conninfo()).await.unwrap());
    assert!(one.try_advisory_lock(1_885_825_904, 1).await.unwrap());
    assert!(!two.try_advisory_lock(1_885_825_904, 1).await.unwrap());
    assert!(two.try_advisory_lock(1_885_825_904, 2).await.unwrap());
    assert!(one.advisory_unlock(1_885_825_904, 1).await.unwrap());
    assert!(two.try_advisory_lock(1_885_825_904, 1).await.unwrap());
}

#[tokio::test]
async fn a_statement_past_its_deadline_is_cancelled_and_the_session_given_up() {
    let root = Root::new();
    let pg = PgOptions::new(Build::of(16)).create(&root);
    pg.start();
    let session = connect(&pg.conninfo()).await.unwrap();
    let slept =
        session.rows("sleep", Duration::from_millis(200), "select pg_catalog.pg_sleep(60)", &[]).await;
    let error = slept.unwrap_err();
    assert!(error.to_string().contains("cannot sleep: no answer"), "{error}");
    assert_eq!(session.ping().await.unwrap_err().code(), Code::Connect);
    crate::support::eventually("the server has stopped sleeping", Duration::from_secs(10), || {
        pg.one("select count(*) from pg_stat_activity where query like '%pg_sleep(60)%' and state = 'active' and pid <> pg_backend_pid()") == "0"
    });
}

/// What a pooler in transaction mode does to its clients: another server process, or one that was reset.
#[tokio::test]
async fn a_backup_does_not_begin_in_a_session_that_is_not_its_own() {
    let root = Root::new();
    let pg = PgOptions::new(Build::of(15)).create(&root);
    pg.start();
    let session = connect(&pg.conninfo()).await.unwrap();
    session.batch("reset the session", Duration::from_secs(5), "DISCARD ALL").await.unwrap();
    let error = BackupSession::start(session, "x", true).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("pooler"), "{error:?}");
}

/// A path need not be text in the database's encoding; `tablespace_map` must say its bytes.
#[tokio::test]
async fn tablespace_map_is_byte_for_byte_what_the_server_wrote() {
    for encoding in ["UTF8", "LATIN1", "SQL_ASCII"] {
        let root = Root::new();
        let pg = PgOptions::new(Build::of(18)).create(&root);
        pg.start();
        pg.sql(&format!("create database enc encoding '{encoding}' template template0"));
        let name = std::ffi::OsString::from_vec(b"sp\xc3\xa4ce \\ \xe2\x82\xac".to_vec());
        let location = root.join(PathBuf::from(name));
        std::fs::create_dir(&location).unwrap();
        crate::support::root::Ids::server().own(&location);
        pg.sql(&format!("create tablespace sp location '{}'", location.to_str().unwrap()));
        let conninfo = pg.conninfo().replace("dbname=postgres", "dbname=enc");
        let session = connect(&conninfo).await.unwrap();
        let facts = session.facts().await.unwrap();
        assert_eq!(facts.tablespaces[0].location, location, "{encoding}");
        let (stop, _) = BackupSession::start(session, "x", true).await.unwrap().stop().await.unwrap();
        let mut expected = format!("{} ", facts.tablespaces[0].oid).into_bytes();
        for byte in location.as_os_str().as_bytes() {
            // PostgreSQL escapes a backslash with a backslash.
            expected.extend(if *byte == b'\\' { vec![b'\\', b'\\'] } else { vec![*byte] });
        }
        expected.push(b'\n');
        assert_eq!(stop.tablespace_map, expected, "{encoding}");
    }
}

#[tokio::test]
async fn a_standby_is_backed_up_and_knows_its_timeline() {
    for major in [14, 18] {
        let root = Root::new();
        let primary = PgOptions::new(Build::of(major)).create(&root);
        primary.start();
        let conninfo = with_role(&primary);
        let standby = Pg::standby_of(&primary, "standby");
        standby.start();
        let at = primary.socket().0.display().to_string();
        let conninfo = conninfo.replace(&at, &standby.socket().0.display().to_string());
        let session = connect(&conninfo).await.unwrap();
        assert!(session.is_in_recovery().await.unwrap());
        let facts = session.facts().await.unwrap();
        assert!(facts.in_recovery && facts.timeline.0 == 1);
        let backup = BackupSession::start(session, "x", true).await.unwrap();
        assert!(backup.started().from_standby);
        let (stop, session) = backup.stop().await.unwrap();
        assert!(stop.label_facts.from_standby && stop.stop_lsn >= stop.label_facts.start_lsn);
        // A promotion in the middle ruins it.
        let backup = BackupSession::start(session, "x", true).await.unwrap();
        standby.promote();
        let error = backup.ping().await.unwrap_err();
        assert_eq!(error.code(), Code::BackupFailed, "{error:?}");
        drop(backup);
        let session = connect(&conninfo).await.unwrap();
        assert_eq!(
            session.timeline().await.unwrap().0,
            2,
            "right after the promotion, before any checkpoint"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_with_its_place() {
    let error = connect("host=/nonexistent port=5999 user=alice dbname=x").await.unwrap_err();
    assert_eq!(error.code(), Code::Connect);
    assert!(error.to_string().contains("/nonexistent") && error.to_string().contains("5999"), "{error}");
    assert!(error.hint_text().is_some());
}

/// Files for TLS: a CA, the server's certificate for `localhost`, one client.
fn make_certificates(dir: &Path) {
    let script = "set -e; cd \"$1\"
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.crt
        for who in localhost alice; do
            openssl req -newkey rsa:2048 -nodes -subj /CN=$who -keyout $who.key -out $who.csr
            printf 'basicConstraints=CA:FALSE\\nsubjectAltName=DNS:%s\\n' $who > ext
            openssl x509 -req -in $who.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $who.crt
        done
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other-ca -keyout other.key -out other.crt
        chmod 600 *.key";
    let made = std::process::Command::new("sh").args(["-c", script, "sh"]).arg(dir).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test]
async fn a_copys_rows_are_the_same_over_a_socket_and_over_tcp() {
    let root = Root::new();
    let port = free_port();
    let pg = PgOptions::new(Build::of(18))
        .conf("listen_addresses = 'localhost'")
        .conf(format!("port = {port}"))
        .create(&root);
    pg.start();
    pg.sql("create table t as select i, repeat('x', i % 3000) as t from generate_series(1, 2000) i");
    let copied = async |conninfo: &str, sql: &str| {
        let session = connect(conninfo).await.unwrap();
        let mut out = session.copy_out("copy", sql, 10_000, Duration::from_secs(10)).await.unwrap();
        let (mut bytes, mut rows) = (Vec::new(), 0);
        while let Some(piece) = out.next().await.unwrap() {
            assert!(piece.bytes.len() <= 10_000);
            bytes.extend_from_slice(&piece.bytes);
            rows += piece.rows;
        }
        let said = out.said();
        drop(out);
        // The session is as good as before.
        session.ping().await.unwrap();
        (bytes, rows, said)
    };
    let tcp = format!("host=localhost port={port} user=postgres dbname=postgres sslmode=disable");
    let local = pg.conninfo();
    let host = local.split(' ').next().unwrap();
    let socket = format!("{host} port={port} user=postgres dbname=postgres");
    for (sql, rows) in [
        ("copy public.t to stdout (format csv, header)", 2001),
        ("copy (select from public.t limit 3) to stdout", 3),
        ("copy (select 1 where false) to stdout", 0),
    ] {
        let over_socket = copied(&socket, sql).await;
        let over_tcp = copied(&tcp, sql).await;
        assert_eq!((&over_socket.0, over_socket.1), (&over_tcp.0, rows), "{sql}");
        assert_eq!(over_tcp.1, rows, "{sql}");
        assert_eq!(over_socket.2, Some(rows - u64::from(sql.contains("header"))), "{sql}");
    }
    // One that fails in the middle ends in its error, and the session goes on.
    for conninfo in [&socket, &tcp] {
        let session = connect(conninfo).await.unwrap();
        let sql = "copy (select 1 / (1000 - i) from generate_series(1, 5000) i) to stdout";
        let mut out = session.copy_out("copy", sql, 100, Duration::from_secs(10)).await.unwrap();
        let failed = loop {
            match out.next().await {
                Ok(piece) => assert!(piece.is_some(), "{conninfo}"),
                Err(e) => break e,
            }
        };
        assert!(failed.to_string().contains("division by zero"), "{failed}");
        drop(out);
        session.ping().await.unwrap();
    }
}

#[tokio::test]
async fn tls_is_verified_as_libpq_verifies_it() {
    let root = Root::new();
    let certs = root.dir("certs", 0o755);
    make_certificates(&certs);
    for name in ["localhost.key", "localhost.crt", "ca.crt"] {
        crate::support::root::Ids::server().own(&certs.join(name));
    }
    let file = |name: &str| certs.join(name).display().to_string();
    let port = free_port();
    let pg = PgOptions::new(Build::of(17))
        .conf("listen_addresses = 'localhost'")
        .conf(format!("port = {port}"))
        .conf("ssl = on")
        .conf(format!("ssl_cert_file = '{}'", file("localhost.crt")))
        .conf(format!("ssl_key_file = '{}'", file("localhost.key")))
        .conf(format!("ssl_ca_file = '{}'", file("ca.crt")))
        .create(&root);
    let hba = "local all postgres trust\nhostssl all alice all cert\nhostssl all scram all scram-sha-256\n\
        hostssl all postgres all trust\n";
    std::fs::write(pg.data.join("pg_hba.conf"), hba).unwrap();
    pg.start();
    pg.sql("create role alice login");
    pg.sql("create role scram login password 'S3cret'");
    let tcp =
        |user: &str, more: &str| format!("host=localhost port={port} user={user} dbname=postgres {more}");
    let tls_of = async |conninfo: String| -> Result<bool, pgkeep::error::Error> {
        let session = connect(&conninfo).await?;
        let pid = session.backend_pid();
        Ok(pg.one(&format!("select ssl from pg_stat_ssl where pid = {pid}")) == "t")
    };
    let (ca, other) =
        (format!("sslrootcert={}", file("ca.crt")), format!("sslrootcert={}", file("other.crt")));
    // Encrypted, whoever answers.
    assert!(tls_of(tcp("postgres", "sslmode=require")).await.unwrap());
    assert!(tls_of(tcp("postgres", "sslmode=prefer")).await.unwrap());
    assert!(tls_of(tcp("postgres", "sslmode=allow")).await.unwrap(), "the server refuses it in the clear");
    assert!(tls_of(tcp("postgres", "sslmode=disable")).await.is_err());
    // The chain counts, then the name.
    for mode in ["require", "verify-ca", "verify-full"] {
        assert!(tls_of(tcp("postgres", &format!("sslmode={mode} {ca}"))).await.unwrap(), "{mode}");
        let error = tls_of(tcp("postgres", &format!("sslmode={mode} {other}"))).await.unwrap_err();
        assert_eq!(error.code(), Code::Connect, "{mode}");
    }
    let by_address = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres {ca}");
    assert!(tls_of(format!("{by_address} sslmode=verify-ca")).await.unwrap());
    let error = tls_of(format!("{by_address} sslmode=verify-full")).await.unwrap_err();
    assert!(
        error.to_string().contains("not valid for name") || error.to_string().contains("NotValidForName"),
        "{error}"
    );
    let named = by_address.replace("host=127.0.0.1", "host=localhost hostaddr=127.0.0.1");
    assert!(tls_of(format!("{named} sslmode=verify-full")).await.unwrap());
    // Client certificates, and a password bound to the channel.
    let mine = format!("sslmode=verify-full {ca} sslcert={} sslkey={}", file("alice.crt"), file("alice.key"));
    assert!(tls_of(tcp("alice", &mine)).await.unwrap());
    assert!(tls_of(tcp("alice", &format!("sslmode=verify-full {ca}"))).await.is_err());
    let scram = format!("sslmode=verify-full {ca} channel_binding=require password=S3cret");
    assert!(tls_of(tcp("scram", &scram)).await.unwrap());
    let error = tls_of(tcp("scram", &scram.replace("S3cret", "wr0ng-w0rd"))).await.unwrap_err();
    assert!(
        !format!("{error:?}").contains("wr0ng-w0rd") && error.hint_text().unwrap().contains("pgpass"),
        "{error:?}"
    );
    // A key that others can read is refused before anything is sent.
    std::fs::set_permissions(certs.join("alice.key"), std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    assert_eq!(tls_of(tcp("alice", &mine)).await.unwrap_err().code(), Code::Key);
}

fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_service_and_a_password_file_are_enough_to_connect() {
    let root = Root::new();
    let pg = PgOptions::new(Build::of(15)).create(&root);
    std::fs::write(pg.data.join("pg_hba.conf"), "local all postgres trust\nlocal all all scram-sha-256\n")
        .unwrap();
    pg.start();
    pg.sql("create role carol login password 'pa:ss\\word'");
    let (dir, port) = pg.socket();
    let dir = dir.display();
    let passfile = root.file("pass", 0o600, &format!("{dir}:{port}:postgres:carol:pa\\:ss\\\\word\n"));
    let services = format!(
        "[shop]\nhost={dir}\nport={port}\nuser=carol\ndbname=postgres\npassfile={}\n",
        passfile.display()
    );
    let services = root.file("services", 0o644, &services);
    let conninfo = format!("service=shop servicefile={}", services.display());
    let session: Session = connect(&conninfo).await.unwrap();
    assert_eq!(session.missing_grants().await.unwrap().first().unwrap(), "GRANT pg_monitor TO \"carol\"");
    std::fs::set_permissions(&passfile, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let error = connect(&conninfo).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("chmod 600"), "{error:?}");
}
