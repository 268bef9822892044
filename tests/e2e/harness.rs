//! The harness itself: were it wrong, every other test would prove nothing.

use std::time::Duration;

use pgkeep::model::{Inclusion, Target};

use crate::support::wait::eventually;
use crate::support::{Build, EnvOptions, Ledger, Pg, PgOptions, Pgkeep, Root, S3, Stop};

fn a_ledger_of_ten_rows_is_known_to_the_last_detail(build: Build) {
    let root = Root::new();
    let pg = PgOptions::new(build).segment_mib(1).create(&root);
    pg.start();
    let mut ledger = Ledger::create(&pg);
    let fifth = ledger.write(&pg, 5);
    ledger.restore_point(&pg, "half");
    ledger.write(&pg, 5);
    ledger.assert_ends_at(&pg, 10);
    for (target, after, before) in [
        (Target::Xid(fifth.xid), 5, 4),
        (Target::Time(fifth.at), 5, 4),
        (Target::Lsn(fifth.end), 5, 5),
        (Target::Lsn(fifth.before_commit), 5, 4),
        (Target::Name("half".to_owned()), 5, 5),
        (Target::Latest, 10, 10),
    ] {
        assert_eq!(ledger.expect_last(&target, Inclusion::After), after, "{target} after");
        assert_eq!(ledger.expect_last(&target, Inclusion::Before), before, "{target} before");
    }
    pg.kill9();
    pg.start();
    ledger.assert_ends_at(&pg, 10);
    pg.stop(Stop::Fast);
    assert!(!pg.is_running());
}

#[test]
fn postgres_14_runs_and_the_ledger_is_known() {
    a_ledger_of_ten_rows_is_known_to_the_last_detail(Build::of(14));
}
#[test]
fn postgres_15_runs_and_the_ledger_is_known() {
    a_ledger_of_ten_rows_is_known_to_the_last_detail(Build::of(15));
}
#[test]
fn postgres_16_runs_and_the_ledger_is_known() {
    a_ledger_of_ten_rows_is_known_to_the_last_detail(Build::of(16));
}
#[test]
fn postgres_17_runs_and_the_ledger_is_known() {
    a_ledger_of_ten_rows_is_known_to_the_last_detail(Build::of(17));
}
#[test]
fn postgres_18_runs_and_the_ledger_is_known() {
    a_ledger_of_ten_rows_is_known_to_the_last_detail(Build::of(18));
}
#[test]
fn debians_postgres_15_runs_and_the_ledger_is_known() {
    a_ledger_of_ten_rows_is_known_to_the_last_detail(Build::debian());
}

#[test]
fn a_standby_follows_and_promotes() {
    let root = Root::new();
    let primary = PgOptions::new(Build::of(17)).create(&root);
    primary.start();
    let ledger = Ledger::create(&primary).write_in_background(&primary, Duration::from_millis(5));
    let standby = Pg::standby_of(&primary, "standby");
    standby.start();
    let ledger = ledger.stop();
    // A standby that answers may not stream yet; only what it has received can be promoted.
    let end = primary.one("select pg_current_wal_lsn()");
    eventually("the standby has replayed the ledger", Duration::from_secs(30), || {
        standby.one(&format!("select pg_last_wal_replay_lsn() >= '{end}'")) == "t"
    });
    primary.stop(Stop::Fast);
    assert_eq!(standby.one("select pg_is_in_recovery()"), "t");
    standby.promote();
    ledger.assert_ends_at(&standby, ledger.last_id());
}

#[test]
fn a_server_started_by_somebody_else_ends_with_its_root() {
    let root = Root::new();
    let pg = PgOptions::new(Build::of(16)).create(&root);
    let data = pg.data.clone();
    pg.build.run_tool("pg_ctl", ["-D", data.to_str().unwrap(), "-l", "/dev/null", "-w", "start"]);
    assert!(pg.is_running());
    let pid = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let proc = format!("/proc/{}", pid.lines().next().unwrap());
    drop(pg);
    drop(root);
    crate::support::eventually("the server is gone", Duration::from_secs(10), || {
        !std::path::Path::new(&proc).exists()
    });
}

#[test]
fn the_program_is_run_as_the_user_of_the_servers() {
    let ran = Pgkeep::bare().run(["--no-such-argument"]);
    assert!(ran.signal.is_none(), "{ran}");
}

#[test]
fn the_configuration_that_the_harness_writes_is_accepted() {
    for options in [
        EnvOptions::new(16).dir_repository("a", true).dir_repository("b", false),
        EnvOptions::new(16).s3_repository("bucket", true),
        EnvOptions::new(16).plain(),
    ] {
        let env = options.uninitialised().build();
        env.pgkeep.run(["config", "check"]).ok();
        env.with_config("wrong.toml", |text| text + "[unknown]\n")
            .run(["config", "check"])
            .fails_with("config", 2);
    }
}

#[test]
fn a_bucket_holds_what_was_put() {
    let bucket = S3::fresh_bucket();
    bucket.put("a/b", b"bytes");
    assert_eq!((bucket.list("a/"), bucket.get("a/b")), (vec!["a/b".to_owned()], b"bytes".to_vec()));
    bucket.delete("a/b");
    assert!(bucket.list("").is_empty());
}

/// What plain HTTP says through the proxy to an upload of `size` bytes and to reading it back.
mod through_the_proxy {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::{Duration, Instant};

    use crate::support::{Fault, FaultProxy, Rule};

    /// A server that answers every request with the body it got, and counts them.
    fn echo_server() -> (String, std::sync::Arc<std::sync::atomic::AtomicU32>) {
        let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", bound.local_addr().unwrap());
        let served = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let count = std::sync::Arc::clone(&served);
        std::thread::spawn(move || {
            for stream in bound.incoming().flatten() {
                let mut stream = stream;
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                    head.push(byte[0]);
                }
                let text = String::from_utf8_lossy(&head).to_lowercase();
                let Some((_, rest)) = text.split_once("content-length: ") else { continue };
                let mut body = vec![0; rest.lines().next().unwrap().trim().parse().unwrap()];
                if stream.read_exact(&mut body).is_err() {
                    continue;
                }
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(&body);
            }
        });
        (endpoint, served)
    }

    /// One request with a body of 1000 bytes; all bytes of the answer, or how the connection failed.
    fn ask(proxy: &FaultProxy, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(proxy.endpoint().strip_prefix("http://").unwrap())?;
        stream.set_read_timeout(Some(Duration::from_millis(700)))?;
        write!(stream, "PUT {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{}", "x".repeat(1000))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    }

    #[test]
    fn each_fault_is_what_it_says() {
        let (endpoint, served) = echo_server();
        let served = || served.swap(0, std::sync::atomic::Ordering::SeqCst);
        let proxy = FaultProxy::before(&endpoint);
        let reset = |fault| {
            proxy.all(fault);
            assert_eq!(
                ask(&proxy, "/a").unwrap_err().kind(),
                std::io::ErrorKind::ConnectionReset,
                "{fault:?}"
            );
            served()
        };
        let said = |fault| {
            proxy.all(fault);
            ask(&proxy, "/a").unwrap()
        };

        let whole = said(Fault::Pass);
        assert!(whole.starts_with("HTTP/1.1 200") && whole.ends_with(&"x".repeat(1000)), "{whole}");
        assert_eq!(served(), 1);
        assert_eq!(reset(Fault::ResetBefore), 0);
        assert_eq!(reset(Fault::ResetMidway), 0);
        assert_eq!(reset(Fault::LoseAnswer), 1, "the server did the work");
        assert!(said(Fault::Status(503)).contains("<Code>SlowDown</Code>"));
        assert_eq!(served(), 0);
        let cut = said(Fault::CutBody);
        assert!(cut.contains("content-length: 1000") && cut.matches('x').count() < 600, "{cut}");
        let short = said(Fault::ShortBody);
        assert!(short.contains("Content-Length: 500") && !short.contains("1000"), "{short}");
        for silent in [Fault::Stall, Fault::StallMidway] {
            proxy.all(silent);
            assert_eq!(ask(&proxy, "/a").unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "{silent:?}");
        }
        for (slow, least) in
            [(Fault::Latency(Duration::from_millis(300)), 300), (Fault::Bandwidth(4000), 450)]
        {
            let start = Instant::now();
            said(slow);
            assert!(start.elapsed() >= Duration::from_millis(least), "{slow:?} {:?}", start.elapsed());
        }
    }

    #[test]
    fn rules_strike_where_and_as_often_as_they_say_and_the_network_comes_back() {
        let (endpoint, _) = echo_server();
        let proxy = FaultProxy::before(&endpoint);
        let broken = |path| ask(&proxy, path).unwrap().contains("503");
        proxy.rule(Rule::always(Fault::Status(503)).path("/bad").method("PUT").skip(1).times(2));
        assert_eq!(["/bad", "/good", "/bad", "/bad", "/bad"].map(broken), [false, false, true, true, false]);
        let counts = proxy.counts();
        assert_eq!((counts.requests, counts.struck, counts.bytes_up), (5, 2, 3000));
        assert_eq!(counts.log[1], "PUT /good");

        proxy.down();
        assert_eq!(ask(&proxy, "/").unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        proxy.up();
        proxy.rule(Rule::sometimes(Fault::Status(503), 0.5));
        let struck = (0..60).filter(|_| broken("/")).count();
        assert!((10..50).contains(&struck), "{struck} of 60");
    }
}
