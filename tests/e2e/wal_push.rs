//! `wal push` never lies: its status, its message and the repository agree, whatever happens.

use std::time::Duration;

use crate::support::{Build, EnvOptions, Fault, FaultProxy, Ledger, Rule, S3, Stop, TestEnv};
use pgkeep::repository::keys::wal::WalObjectName;

use crate::wal_place::{
    Tmpfs, behind_a_proxy, digest_of, opened_by_hand, place, push, put_object, segments, wal_file,
};

/// Small segments, so that a test has many of them quickly.
fn small(major: u32) -> EnvOptions {
    EnvOptions::new(major).pg(|pg| pg.segment_mib(1))
}
fn wal_keys(env: &TestEnv) -> Vec<String> {
    env.repo().list().into_iter().filter(|k| k.contains("/wal/")).collect()
}

mod under_load {
    use super::*;

    fn everything_arrives_encrypted_and_nothing_is_left_ready(build: Build) {
        let marker = "pgkeep-leak-marker";
        let env = place(EnvOptions::on(build).pg(|pg| pg.segment_mib(1).conf("wal_keep_size = '200MB'")));
        env.turn_archiving_on();
        let mut ledger = Ledger::with_marker(&env.pg, marker);
        env.pg.sql("create table filler (n int, t text)");
        for _ in 0..6 {
            ledger.write(&env.pg, 20);
            env.pg.sql("insert into filler select i, md5(i::text) from generate_series(1, 4000) i");
        }
        let last = env.pg.switch_and_archive();
        let failed = env.pg.one("select failed_count from pg_stat_archiver");
        assert_eq!(failed, "0", "{}", env.pg.log_tail());
        env.pg.stop(Stop::Fast);
        // The shutdown's own segment may still be under way when the archiver is told to end: it is not asked for.
        let keys = wal_keys(&env);
        let whole: Vec<_> = keys.iter().filter(|k| k.contains(last.as_str())).collect();
        assert_eq!(whole.len(), 1, "{keys:#?}");
        let status = env.pg.data.join("pg_wal/archive_status");
        let mut compared = 0;
        for entry in std::fs::read_dir(status).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let Some(segment) = name.strip_suffix(".done") else { continue };
            let key = env.repo().find(&["/wal/", &format!("/{segment}-")]);
            assert_eq!(opened_by_hand(&env, &key), std::fs::read(wal_file(&env, segment)).unwrap(), "{key}");
            compared += 1;
        }
        assert!(compared > 0);
        assert_eq!(env.repo().containing(marker.as_bytes()), Vec::<String>::new());
    }

    #[test]
    fn postgres_14_archives() {
        everything_arrives_encrypted_and_nothing_is_left_ready(Build::of(14));
    }
    #[test]
    fn postgres_15_archives() {
        everything_arrives_encrypted_and_nothing_is_left_ready(Build::of(15));
    }
    #[test]
    fn postgres_16_archives() {
        everything_arrives_encrypted_and_nothing_is_left_ready(Build::of(16));
    }
    #[test]
    fn postgres_17_archives() {
        everything_arrives_encrypted_and_nothing_is_left_ready(Build::of(17));
    }
    #[test]
    fn postgres_18_archives() {
        everything_arrives_encrypted_and_nothing_is_left_ready(Build::of(18));
    }
}

#[test]
fn the_same_file_twice_is_done_at_once_and_writes_nothing() {
    let env = place(small(17));
    let name = segments(&env, 1).remove(0);
    push(&env, &env.pgkeep, &name).ok();
    let before = env.repo().snapshot();
    let again = push(&env, &env.pgkeep, &name).ok();
    assert_eq!(again.stderr, "");
    assert_eq!(env.repo().snapshot(), before);
}

#[test]
fn other_content_under_a_name_is_refused_on_every_try_and_both_hosts_are_named() {
    let env = place(small(17));
    let name = segments(&env, 1).remove(0);
    push(&env, &env.pgkeep, &name).ok();
    let before = env.repo().snapshot();
    // The same segment as another server would have written it: a byte after its last record differs.
    let path = wal_file(&env, &name);
    let mut other = std::fs::read(&path).unwrap();
    *other.last_mut().unwrap() ^= 1;
    std::fs::write(&path, other).unwrap();
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    for _ in 0..2 {
        let refused = push(&env, &env.pgkeep, &name).fails_with("wal-conflict", 1);
        let refused = refused.says("two servers archive into one place");
        assert!(refused.stderr.matches(&host).count() >= 2, "{refused}");
        assert_eq!(env.repo().snapshot(), before);
    }
}

#[test]
fn a_file_that_is_not_what_its_name_says_is_refused_and_nothing_is_written() {
    let env = place(small(17));
    let stranger = place(small(17));
    let (ours, theirs) = (segments(&env, 1).remove(0), segments(&stranger, 1).remove(0));
    let before = env.repo().snapshot();
    let good = std::fs::read(wal_file(&env, &ours)).unwrap();
    let put = |name: &str, bytes: &[u8]| {
        env.root.file(&format!("main/pg_wal/{name}"), 0o600, "");
        std::fs::write(wal_file(&env, name), bytes).unwrap();
    };
    put("000000010000000000000055", &std::fs::read(wal_file(&stranger, &theirs)).unwrap());
    put("000000010000000000000056", &good);
    put("000000010000000000000057", &good[..good.len() - 1]);
    put("000000010000000000000058", b"");
    put("000000010000000000001000", &good);
    put("xlogtemp.1", &good);
    for name in [
        "000000010000000000000055",
        "000000010000000000000056",
        "000000010000000000000057",
        "000000010000000000000058",
        "000000010000000000001000",
        "xlogtemp.1",
    ] {
        push(&env, &env.pgkeep, name).fails_with("wal-mismatch", 1);
    }
    push(&env, &env.pgkeep, "0000000100000000000000FF").fails_with("io", 1);
    assert_eq!(env.repo().snapshot(), before);
}

#[test]
fn a_flipped_byte_is_shipped_with_a_signed_mark_and_the_sound_file_follows() {
    let env = place(small(17));
    // The second one begins after a switch, with a record of its own.
    let name = segments(&env, 2).remove(1);
    let path = wal_file(&env, &name);
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    // In the middle of the first page's records.
    bad[4000] ^= 0x10;
    std::fs::write(&path, &bad).unwrap();
    let warned = push(&env, &env.pgkeep, &name).ok();
    assert!(warned.stderr.contains("WARNING") && warned.stderr.contains("damaged at"), "{warned}");
    let keys: Vec<_> = wal_keys(&env).into_iter().filter(|k| k.contains(&name)).collect();
    let [mark, signature, segment] = keys.as_slice() else { panic!("{keys:#?}") };
    assert!(mark.ends_with(".damaged.json") && signature.ends_with(".damaged.json.minisig"), "{keys:#?}");
    let json: serde_json::Value = serde_json::from_slice(&env.repo().read(mark)).unwrap();
    assert!(json["lsn"].is_string() && json["reason"].is_string() && json["host"].is_string(), "{json}");
    assert_eq!(opened_by_hand(&env, segment), bad);
    minisign_verifies(&env, mark, signature);
    // PostgreSQL hands it over again: it is there.
    push(&env, &env.pgkeep, &name).ok().says("WARNING");
    assert_eq!(wal_keys(&env).iter().filter(|k| k.contains(&name)).count(), 3);
    std::fs::write(&path, &good).unwrap();
    push(&env, &env.pgkeep, &name).ok();
    let sound = wal_keys(&env).into_iter().find(|k| k.contains(&name) && !keys.contains(k)).unwrap();
    assert_eq!(opened_by_hand(&env, &sound), good);
}

fn minisign_verifies(env: &TestEnv, mark: &str, signature: &str) {
    let file = env.root.file("mark.json", 0o644, "");
    std::fs::write(&file, env.repo().read(mark)).unwrap();
    std::fs::write(env.root.join("mark.json.minisig"), env.repo().read(signature)).unwrap();
    let mut minisign = std::process::Command::new("minisign");
    minisign.args(["-V", "-p"]).arg(env.state.join("keys/host.pub")).arg("-m").arg(&file);
    let done = minisign.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_damaged_file_is_shipped_even_where_a_sound_one_is_or_the_host_key_is_lost() {
    let env = place(small(17));
    // The second one begins after a switch, with a record of its own.
    let name = segments(&env, 2).remove(1);
    push(&env, &env.pgkeep, &name).ok();
    let path = wal_file(&env, &name);
    let mut bad = std::fs::read(&path).unwrap();
    bad[4000] ^= 0x10;
    std::fs::write(&path, &bad).unwrap();
    std::fs::remove_file(env.state.join("keys/host.key")).unwrap();
    push(&env, &env.pgkeep, &name).ok().says("damaged at").says("not signed");
    assert_eq!(wal_keys(&env).iter().filter(|k| k.contains(&name)).count(), 3);
}

#[test]
fn history_backup_and_partial_files_are_archived_as_they_are() {
    let env = place(small(17));
    let name = segments(&env, 1).remove(0);
    let segment = std::fs::read(wal_file(&env, &name)).unwrap();
    // Recycled bytes after the switch are normal in a partial file.
    let mut partial = segment.clone();
    partial[512 << 10..].fill(0x5a);
    let backup = format!("{name}.00000028.backup");
    for (name, bytes) in [
        ("00000002.history".to_owned(), b"1\t0/3000000\tno recovery target specified\n".to_vec()),
        (backup, b"START WAL LOCATION: 0/2000028\n".to_vec()),
        (format!("{name}.partial"), partial),
    ] {
        env.root.file(&format!("main/pg_wal/{name}"), 0o600, "");
        std::fs::write(wal_file(&env, &name), &bytes).unwrap();
        push(&env, &env.pgkeep, &name).ok();
        let key = env.repo().find(&[&format!("/{name}-")]);
        assert_eq!(opened_by_hand(&env, &key), bytes);
        assert!(!key.contains("damaged"));
    }
    // None of them has taken the segment's name.
    push(&env, &env.pgkeep, &name).ok();
    env.repo().find(&[&format!("/{name}-")]);
}

#[test]
fn without_a_decision_about_encryption_or_with_a_wrong_recipient_nothing_is_written() {
    let env = place(small(17));
    let name = segments(&env, 1).remove(0);
    let before = env.repo().snapshot();
    let recipients = format!("recipients = [\"{}\"]", env.recipient);
    let cut = env.config_text();
    let encryption = cut.find("[encryption]").unwrap();
    let unset = env.with_config("unset.toml", |text| {
        let rest =
            text[encryption..].split_once("\n[").map(|(_, rest)| format!("[{rest}")).unwrap_or_default();
        text[..encryption].to_owned() + &rest
    });
    push(&env, &unset, &name).fails_with("encryption-unset", 2);
    let wrong =
        env.with_config("wrong.toml", |text| text.replace(&recipients, "recipients = [\"age1wrong\"]"));
    push(&env, &wrong, &name).exits(2).says("age1wrong");
    let unknown = env.with_config("unknown.toml", |text| text + "\n[archive]\npush_deadlin = \"3s\"\n");
    push(&env, &unknown, &name).fails_with("config", 2).says("push_deadlin");
    assert_eq!(env.repo().snapshot(), before);
}

#[test]
fn wal_of_a_system_that_the_repository_does_not_list_is_refused_with_the_way_out() {
    let env = place(small(17));
    let name = segments(&env, 1).remove(0);
    let listed = env.repo().find(&["/systems/"]);
    let entry = env.repo().read(&listed);
    env.repo().delete(&listed);
    push(&env, &env.pgkeep, &name).fails_with("unknown-system", 1).says("pgkeep init");
    assert!(wal_keys(&env).is_empty());
    env.repo().write(&listed, &entry);
    push(&env, &env.pgkeep, &name).ok();
}

#[test]
fn an_unmounted_repository_is_not_an_empty_one() {
    let env = place(small(17));
    let name = segments(&env, 1).remove(0);
    env.repo().delete("pgkeep.json");
    push(&env, &env.pgkeep, &name).fails_with("not-a-repository", 1);
    assert!(wal_keys(&env).is_empty());
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing_that_looks_archived() {
    let env = place(small(17));
    let name = segments(&env, 1).remove(0);
    let wal = format!("main/wal/{}", env.pg.system_id());
    let mount = env.repo().path().join(&wal);
    std::fs::create_dir_all(&mount).unwrap();
    let tmpfs = Tmpfs::mount(&mount, "64k");
    let full = push(&env, &env.pgkeep, &name).fails_with("io", 1);
    assert!(full.stderr.contains("disk is full"), "{full}");
    assert!(wal_keys(&env).is_empty(), "{:#?}", wal_keys(&env));
    tmpfs.resize("16m");
    push(&env, &env.pgkeep, &name).ok();
    let key = env.repo().find(&["/wal/", &name]);
    assert_eq!(opened_by_hand(&env, &key), std::fs::read(wal_file(&env, &name)).unwrap());
}

#[test]
fn killed_at_any_step_it_is_carried_on_by_the_next_try() {
    for step in ["push-before-upload", "push-after-upload", "push-before-answer"] {
        let env = place(small(17));
        let name = segments(&env, 1).remove(0);
        let killed = env.pgkeep.clone().failpoint(step, "return(kill)");
        push(&env, &killed, &name).was_killed();
        let failing = env.pgkeep.clone().failpoint(step, "return(error)");
        // What was uploaded before is found, and that step is not reached again.
        push(&env, &failing, &name).exits(i32::from(step != "push-after-upload"));
        push(&env, &env.pgkeep, &name).ok();
        let key = env.repo().find(&["/wal/", &name]);
        assert_eq!(opened_by_hand(&env, &key), std::fs::read(wal_file(&env, &name)).unwrap());
    }
}

#[test]
fn killed_at_random_the_repository_is_whole_and_the_next_try_succeeds() {
    let env = place(small(17));
    let names = segments(&env, 6);
    for (n, name) in names.iter().enumerate() {
        for tries in 0..4u64 {
            let running =
                env.pgkeep.clone().dir(&env.pg.data).spawn(["wal", "push", &format!("pg_wal/{name}")]);
            std::thread::sleep(Duration::from_millis(2 + 7 * (n as u64) + 11 * tries));
            if running.is_running() {
                // It may have ended by itself meanwhile.
                let _ = nix::sys::signal::kill(running.pid(), nix::sys::signal::Signal::SIGKILL);
            }
            let _ = running.wait();
        }
        env.fsck_deep().assert_whole();
        push(&env, &env.pgkeep, name).ok();
        let key = env.repo().find(&["/wal/", name]);
        assert_eq!(opened_by_hand(&env, &key), std::fs::read(wal_file(&env, name)).unwrap());
    }
    env.fsck_deep().assert_whole();
}

#[test]
fn two_servers_that_push_at_once_leave_both_objects_and_the_later_one_says_so() {
    let env = place(small(17));
    let name = segments(&env, 1).remove(0);
    let bytes = std::fs::read(wal_file(&env, &name)).unwrap();
    let slow = env.pgkeep.clone().failpoint("push-before-upload", "sleep(3000)");
    let running = slow.dir(&env.pg.data).spawn(["wal", "push", &format!("pg_wal/{name}")]);
    std::thread::sleep(Duration::from_millis(1500));
    let mut twin = bytes.clone();
    *twin.last_mut().unwrap() ^= 1;
    let segment = pgkeep::model::SegmentName::parse(&name).unwrap();
    put_object(&env, WalObjectName::Segment { segment, digest: digest_of(&twin) }, &twin);
    running.wait().ok().says("two servers archive into one place");
    assert_eq!(wal_keys(&env).iter().filter(|k| k.contains(&name)).count(), 2);
    push(&env, &env.pgkeep, &name).ok().says("two servers archive into one place");
}

#[test]
fn a_panic_is_a_failure_that_postgres_counts_and_tries_again() {
    let env = place(small(17));
    let name = segments(&env, 1).remove(0);
    let panicking = env.pgkeep.clone().failpoint("push-before-answer", "panic");
    push(&env, &panicking, &name).fails_with("internal", 1);
}

mod optional_repositories {
    use super::*;

    #[test]
    fn they_get_the_file_too_and_never_hold_up_the_answer() {
        let env = place(small(17).dir_repository("near", true).dir_repository("far", false));
        let names = segments(&env, 2);
        push(&env, &env.pgkeep, &names[0]).ok();
        env.store("far").find(&["/wal/", &names[0]]);
        env.store("far").delete("pgkeep.json");
        push(&env, &env.pgkeep, &names[1]).ok().says("far was left behind");
        env.store("near").find(&["/wal/", &names[1]]);
    }

    #[test]
    fn a_required_one_that_fails_is_a_failure_whatever_the_others_have() {
        let env = place(small(17).dir_repository("near", true).dir_repository("far", true));
        let name = segments(&env, 1).remove(0);
        let root = env.store("far").read("pgkeep.json");
        env.store("far").delete("pgkeep.json");
        push(&env, &env.pgkeep, &name).fails_with("not-a-repository", 1).says("far");
        env.store("far").write("pgkeep.json", &root);
        push(&env, &env.pgkeep, &name).ok();
        env.store("near").find(&["/wal/", &name]);
        env.store("far").find(&["/wal/", &name]);
    }

    #[test]
    fn a_silent_region_costs_the_grace_and_no_more() {
        let store = S3::fresh_bucket();
        let proxy = FaultProxy::before(store.endpoint());
        let endpoint = proxy.endpoint();
        let env =
            place(small(17).dir_repository("near", true).s3_repository_at("far", false, store, &endpoint));
        let name = segments(&env, 1).remove(0);
        proxy.all(Fault::Stall);
        let done = push(&env, &env.pgkeep, &name).ok().says("far was left behind");
        assert!(done.took < Duration::from_secs(5), "{done}");
    }
}

mod over_s3 {
    use super::*;

    #[test]
    fn a_store_that_is_down_silent_or_refusing_is_a_failure_within_the_deadline() {
        let (env, proxy) = behind_a_proxy(small(17).config("[archive]\npush_deadline = \"4s\""));
        let name = segments(&env, 1).remove(0);
        let fails = |code: &str| {
            let ran = push(&env, &env.pgkeep, &name).fails_with(code, 1);
            assert!(ran.took < Duration::from_secs(9), "{ran}");
        };
        proxy.down();
        fails("store-unavailable");
        proxy.up();
        for fault in [Fault::Stall, Fault::Status(500), Fault::Status(503)] {
            proxy.all(fault);
            fails("store-unavailable");
        }
        proxy.all(Fault::Status(403));
        fails("store-denied");
        proxy.calm();
        assert!(wal_keys(&env).is_empty());
        push(&env, &env.pgkeep, &name).ok();
        let key = env.repo().find(&["/wal/", &name]);
        assert_eq!(opened_by_hand(&env, &key), std::fs::read(wal_file(&env, &name)).unwrap());
    }

    #[test]
    fn a_lost_answer_is_found_out_to_be_our_own_write() {
        let (env, proxy) = behind_a_proxy(small(17).config("[archive]\npush_deadline = \"4s\""));
        let name = segments(&env, 1).remove(0);
        proxy.rule(Rule::always(Fault::LoseAnswer).method("PUT").path("/wal/").times(1));
        push(&env, &env.pgkeep, &name).ok();
        env.repo().find(&["/wal/", &name]);
    }
}

#[test]
fn a_segment_too_long_for_memory_is_streamed() {
    let env = place(
        EnvOptions::new(17).pg(|pg| pg.segment_mib(128)).dir_repository("a", true).dir_repository("b", true),
    );
    let name = segments(&env, 1).remove(0);
    push(&env, &env.pgkeep, &name).ok();
    let key = env.store("b").find(&["/wal/", &name]);
    assert_eq!(env.store("a").read(&key), env.store("b").read(&key));
    assert_eq!(opened_by_hand(&env, &key), std::fs::read(wal_file(&env, &name)).unwrap());
    push(&env, &env.pgkeep, &name).ok();
}
