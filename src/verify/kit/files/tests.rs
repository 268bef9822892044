use super::*;
use std::os::unix::fs::MetadataExt;

fn kit() -> Kit {
    let contents = Contents {
        format: 1,
        made_at: "2026-11-22T02:00:00Z".parse().unwrap(),
        host: "db1".to_owned(),
        pgkeep_version: "0".to_owned(),
        clusters: Vec::new(),
        repositories: Vec::new(),
        recipients: Vec::new(),
        fingerprint: String::new(),
        opens: Vec::new(),
        trusted_hosts: Vec::new(),
        proved: Vec::new(),
        certificates: Vec::new(),
    };
    let files = [("a.txt", "some text"), ("runbooks/b.md", "a page")];
    Kit::new(contents, files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())).into()).unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_kit_reads_back_from_a_directory_and_from_a_tar_file_and_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["kit", "kit.tar"] {
        let target = dir.path().join(name);
        kit().write(&target).unwrap();
        let read = Kit::read(&target).unwrap();
        assert_eq!(read.text("runbooks/b.md").unwrap(), "a page");
        assert_eq!(read.files, kit().files);
        assert_eq!(kit().write(&target).unwrap_err().code(), Code::NotEmpty);
        assert_eq!(mode(&target), if name == "kit" { 0o700 } else { 0o600 });
    }
    assert_eq!(mode(&dir.path().join("kit/a.txt")), 0o600);
    let left = dir.path().read_dir().unwrap().count();
    assert_eq!(left, 2, "temporaries are gone");
}

#[test]
fn a_file_that_is_changed_missing_or_new_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("kit");
    kit().write(&target).unwrap();
    let says = |word: &str, name: &str| {
        let error = Kit::read(&target).unwrap_err();
        assert_eq!(error.code(), Code::Damaged);
        let said = error.to_string();
        assert!(said.contains(word) && said.contains(name), "{said}");
    };
    let a = target.join("a.txt");
    std::fs::write(&a, "Some text").unwrap();
    says("changed", "a.txt");
    std::fs::remove_file(&a).unwrap();
    says("missing", "a.txt");
    std::fs::write(&a, "some text").unwrap();
    std::fs::write(target.join("extra"), "x").unwrap();
    says("does not belong", "extra");
    std::fs::remove_file(target.join("extra")).unwrap();
    assert!(Kit::read(&target).is_ok());
    std::fs::remove_file(target.join(CHECKSUMS)).unwrap();
    says("missing", CHECKSUMS);
}

#[test]
fn a_tar_file_that_is_cut_at_any_length_is_no_kit() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("kit.tar");
    kit().write(&target).unwrap();
    let whole = std::fs::read(&target).unwrap();
    // The last kibibyte is tar's end.
    for length in (0..whole.len() - 1024).step_by(97) {
        std::fs::write(&target, &whole[..length]).unwrap();
        let error = Kit::read(&target).unwrap_err();
        assert!(matches!(error.code(), Code::Damaged | Code::Io), "{length}: {error}");
    }
}

#[test]
fn a_secret_key_in_the_clear_makes_no_kit() {
    let made = |text: &str| Kit::new(kit().contents, [("x".to_owned(), text.as_bytes().to_vec())].into());
    let identity = crate::codec::GeneratedIdentity::new();
    assert_eq!(made(&identity.file_text()).unwrap_err().code(), Code::Internal);
    assert!(made("a line AGE-SECRET-KEY-1…").is_ok());
}
