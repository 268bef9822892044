use super::*;

#[test]
fn values_are_read_as_postgres_reads_them() {
    let text = "# comment\nport = 5433 # here\nlisten_addresses='a''b\\'c\\n\\101'\nWork_Mem 4MB\n\
        port=5434\nbroken = 'open\nmy.setting = on\n = 3\nempty = ''\n";
    assert_eq!(value(text, "PORT").as_deref(), Some("5434"));
    assert_eq!(value(text, "listen_addresses").as_deref(), Some("a'b'c\nA"));
    assert_eq!(value(text, "work_mem").as_deref(), Some("4MB"));
    assert_eq!(value(text, "my.setting").as_deref(), Some("on"));
    assert_eq!(value(text, "empty").as_deref(), Some(""));
    assert_eq!(value(text, "broken"), None);
}

proptest::proptest! {
    #[test]
    fn every_quoted_value_reads_back(text in "[^\\x00\\r]*") {
        let line = format!("name = {}\n", quote(&text));
        proptest::prop_assert_eq!(value(&line, "name"), Some(text));
    }
}

#[test]
fn editing_takes_out_what_it_sets_and_keeps_the_rest_byte_for_byte() {
    let text = b"# caf\xe9\nRestore_Command = 'old'\nwork_mem = '4MB' # mine\nrecovery_target_xid = 7";
    let once = edit(text, &RECOVERY_SETTINGS, &[("restore_command", "it's \\ %p".to_owned())], "recovery");
    assert_eq!(
        once,
        b"# caf\xe9\nwork_mem = '4MB' # mine\n# pgkeep: recovery\nrestore_command = 'it''s \\\\ %p'\n"
    );
    let twice = edit(&once, &RECOVERY_SETTINGS, &[("restore_command", "it's \\ %p".to_owned())], "recovery");
    assert_eq!(twice, once);
    assert_eq!(edit(&once, &["restore_command"], &[], "recovery"), b"# caf\xe9\nwork_mem = '4MB' # mine\n");
}

#[test]
fn included_files_are_found_in_the_order_of_reading() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir(path("conf.d")).unwrap();
    std::fs::write(
        path("main.conf"),
        "include = 'a.conf'\ninclude_if_exists 'absent'\ninclude_dir 'conf.d'\n",
    )
    .unwrap();
    for name in ["a.conf", "conf.d/2.conf", "conf.d/1.conf", "conf.d/.hidden.conf", "conf.d/x.txt"] {
        std::fs::write(path(name), "").unwrap();
    }
    let found = files(&path("main.conf")).unwrap();
    assert_eq!(found, ["main.conf", "a.conf", "conf.d/1.conf", "conf.d/2.conf"].map(path));
    std::fs::write(path("a.conf"), "include 'absent.conf'").unwrap();
    assert_eq!(files(&path("main.conf")).unwrap_err().code(), Code::Io);
    std::fs::write(path("a.conf"), "include 'main.conf'").unwrap();
    assert_eq!(files(&path("main.conf")).unwrap_err().code(), Code::NotReady);
}

#[test]
fn what_was_added_last_is_taken_out_again_and_the_rest_stays() {
    let text = b"work_mem = '4MB'\nmax_connections = 100\n";
    let added = edit(
        text,
        &[],
        &[("max_wal_senders", "20".to_owned()), ("hot_standby", "on".to_owned())],
        "recovery",
    );
    assert_eq!(without_added(&added, "recovery"), text);
    assert_eq!(without_added(text, "recovery"), text);
}
