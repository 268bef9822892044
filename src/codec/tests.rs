//! What goes in comes out, or an error does.

use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

fn key() -> GeneratedIdentity {
    GeneratedIdentity::new()
}
fn age_for(key: &GeneratedIdentity) -> Protection {
    Protection::Age(Recipients::parse(&[key.recipient()]).unwrap())
}
fn name(protection: &Protection) -> String {
    format!("object{}", protection.suffix())
}
fn header() -> WalObjectHeader {
    WalObjectHeader {
        host: "db1".into(),
        pgkeep_version: "0.1.0".into(),
        archived_at: "2026-11-21T02:00:00Z".parse().unwrap(),
    }
}

fn seal(parts: &[&[u8]], protection: &Protection, header: Option<&WalObjectHeader>) -> (Vec<u8>, Sealed) {
    let mut writer = SealWriter::new(Vec::new(), protection, DEFAULT_LEVEL, header).unwrap();
    for part in parts {
        writer.next_frame().unwrap();
        writer.write_all(part).unwrap();
    }
    writer.finish().unwrap()
}

fn open(stored: &[u8], name: &str, ids: Option<&Identities>) -> Result<Vec<u8>, crate::error::Error> {
    let mut plain = Vec::new();
    open_sealed(stored, name, ids)?.read_to_end(&mut plain).map_err(|e| from_io("cannot read", name, e))?;
    Ok(plain)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_was_sealed_is_what_is_opened(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..70_000), 0..4),
        encrypted: bool,
    ) {
        let key = key();
        let protection = if encrypted { age_for(&key) } else { Protection::Plain };
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let (stored, sealed) = seal(&parts, &protection, None);
        prop_assert_eq!(sealed.stored_bytes, stored.len() as u64);
        prop_assert_eq!(sealed.plain_bytes, parts.concat().len() as u64);
        let ids = key.identities().unwrap();
        prop_assert_eq!(open(&stored, &name(&protection), Some(&ids)).unwrap(), parts.concat());
    }
}

#[test]
fn a_long_stream_goes_on_in_the_next_frame() {
    let key = key();
    let ids = key.identities().unwrap();
    let noise: Vec<u8> =
        (0..2_600_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut writer = SealWriter::new(Vec::new(), &age_for(&key), DEFAULT_LEVEL, None).unwrap();
    // In odd pieces, in one piece, and as a member that is read alone.
    noise.chunks(999_983).for_each(|piece| writer.write_all(piece).unwrap());
    let offset = writer.next_frame().unwrap();
    writer.write_all(&noise).unwrap();
    let end = writer.next_frame().unwrap();
    let (stored, sealed) = writer.finish().unwrap();
    assert_eq!(sealed.plain_bytes, 2 * noise.len() as u64);
    assert!(open(&stored, "x.zst.age", Some(&ids)).unwrap() == [noise.as_slice(), &noise].concat());
    let source = Counted {
        inner: Cursor::new(stored),
        ahead: 0,
        window: 0..0,
        fetches: std::rc::Rc::new(std::cell::Cell::new(0)),
    };
    let mut alone = Vec::new();
    open_frame(source, "x.zst.age", Some(&ids), offset, end - offset)
        .unwrap()
        .read_to_end(&mut alone)
        .unwrap();
    assert!(alone == noise);
}

#[test]
fn the_digests_are_those_of_the_bytes() {
    let key = key();
    let (stored, sealed) = seal(&[b"some", b"thing"], &age_for(&key), Some(&header()));
    let digest = crate::model::Digest::of;
    assert_eq!(sealed.stored_sha256, digest(&stored));
    assert_eq!(sealed.plain_sha256, digest(b"something"));
}

#[test]
fn every_truncation_fails_encrypted_or_not() {
    let key = key();
    let ids = key.identities().unwrap();
    // Three frames, so that cuts fall between frames too; and the empty file.
    for parts in [&[&b"one"[..], &[7; 3000], b"three"][..], &[]] {
        for protection in [age_for(&key), Protection::Plain] {
            let (stored, _) = seal(parts, &protection, Some(&header()));
            for length in 0..stored.len() {
                let error = open(&stored[..length], &name(&protection), Some(&ids)).unwrap_err();
                assert_eq!(
                    error.code(),
                    crate::error::Code::Damaged,
                    "{length} of {}: {error}",
                    stored.len()
                );
            }
        }
    }
}

#[test]
fn a_cut_at_an_age_chunks_border_fails() {
    let key = key();
    let noise: Vec<u8> = (0..200_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let (stored, _) = seal(&[&noise], &age_for(&key), None);
    let ids = key.identities().unwrap();
    let header = stored.len() % (65_536 + 16);
    for chunks in 0..stored.len() / (65_536 + 16) {
        for length in [header + chunks * (65_536 + 16), (chunks + 1) * (65_536 + 16)] {
            assert!(open(&stored[..length], "x.zst.age", Some(&ids)).is_err(), "{length}");
        }
    }
}

#[test]
fn every_flipped_bit_fails_or_changes_nothing() {
    let key = key();
    let ids = key.identities().unwrap();
    let parts: &[&[u8]] = &[b"a row of values", b"another"];
    let (stored, _) = seal(parts, &age_for(&key), None);
    for bit in 0..stored.len() * 8 {
        let mut flipped = stored.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&flipped, "x.zst.age", Some(&ids)).is_err(), "bit {bit}");
    }
    // Without age, zstd's unused header bits may flip unseen, but never the content.
    let (stored, _) = seal(parts, &Protection::Plain, None);
    for bit in 0..stored.len() * 8 {
        let mut flipped = stored.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(plain) = open(&flipped, "x.zst", None) {
            assert_eq!(plain, parts.concat(), "bit {bit}");
        }
    }
}

#[test]
fn garbage_after_the_end_fails() {
    let key = key();
    let ids = key.identities().unwrap();
    for protection in [age_for(&key), Protection::Plain] {
        let (mut stored, _) = seal(&[b"x"], &protection, None);
        stored.extend_from_slice(b"more");
        assert!(open(&stored, &name(&protection), Some(&ids)).is_err());
    }
}

#[test]
fn a_foreign_identity_is_told_from_damage() {
    let (stored, _) = seal(&[b"x"], &age_for(&key()), None);
    let ids = key().identities().unwrap();
    for ids in [Some(&ids), None] {
        let error = open(&stored, "x.zst.age", ids).unwrap_err();
        assert_eq!(error.code(), crate::error::Code::WrongKey);
        assert!(error.hint_text().is_some());
    }
}

#[test]
fn any_of_several_recipients_opens() {
    let (a, b) = (key(), key());
    let both = age_for(&a).with(b.recipient()).unwrap();
    let (stored, _) = seal(&[b"x"], &both, None);
    for key in [a, b] {
        assert_eq!(open(&stored, "x.zst.age", Some(&key.identities().unwrap())).unwrap(), b"x");
    }
}

#[test]
fn an_unfinished_object_cannot_be_read() {
    for protection in [age_for(&key()), Protection::Plain] {
        let mut stored = Vec::new();
        let mut writer = SealWriter::new(&mut stored, &protection, DEFAULT_LEVEL, None).unwrap();
        writer.write_all(b"all of it").unwrap();
        writer.next_frame().unwrap();
        drop(writer);
        assert!(open(&stored, &name(&protection), None).is_err());
    }
}

#[test]
fn a_wal_object_tells_who_archived_it() {
    let key = key();
    let ids = key.identities().unwrap();
    for protection in [age_for(&key), Protection::Plain] {
        for wanted in [Some(header()), None] {
            let (stored, _) = seal(&[b"segment"], &protection, wanted.as_ref());
            let (found, mut opened) = open_wal_object(&stored[..], &name(&protection), Some(&ids)).unwrap();
            let mut plain = Vec::new();
            opened.read_to_end(&mut plain).unwrap();
            assert_eq!((found, plain.as_slice()), (wanted, &b"segment"[..]));
        }
    }
}

/// Counts the ranged reads that a store would see.
struct Counted {
    inner: Cursor<Vec<u8>>,
    ahead: u64,
    window: std::ops::Range<u64>,
    fetches: std::rc::Rc<std::cell::Cell<u32>>,
}
impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let at = self.inner.position();
        if !self.window.contains(&at) {
            self.window = at..at + if at == 0 { 4096 } else { self.ahead };
            self.fetches.set(self.fetches.get() + 1);
        }
        let most = usize::try_from(self.window.end - at).unwrap().min(buffer.len());
        self.inner.read(&mut buffer[..most])
    }
}
impl Seek for Counted {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.inner.seek(to)
    }
}
impl SeekableSource for Counted {
    fn expect(&mut self, stored_bytes: u64) {
        self.ahead = stored_bytes;
    }
}

#[test]
fn one_frame_is_read_alone_in_two_ranged_reads() {
    let key = key();
    let ids = key.identities().unwrap();
    for protection in [age_for(&key), Protection::Plain] {
        let mut writer = SealWriter::new(Vec::new(), &protection, DEFAULT_LEVEL, None).unwrap();
        let mut frames = Vec::new();
        for number in 0..60u32 {
            let noise: Vec<u8> =
                (0..7000u32).flat_map(|n| (n ^ number).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
            let offset = writer.next_frame().unwrap();
            writer.write_all(&noise).unwrap();
            frames.push((offset, writer.next_frame().unwrap() - offset, noise));
        }
        let (stored, _) = writer.finish().unwrap();
        for (offset, length, wanted) in frames {
            let fetches = std::rc::Rc::new(std::cell::Cell::new(0));
            let source = Counted {
                inner: Cursor::new(stored.clone()),
                ahead: 0,
                window: 0..0,
                fetches: fetches.clone(),
            };
            let mut plain = Vec::new();
            open_frame(source, &name(&protection), Some(&ids), offset, length)
                .unwrap()
                .read_to_end(&mut plain)
                .unwrap();
            assert!(plain == wanted, "frame at {offset}");
            assert!(fetches.get() <= 2, "{} reads for the frame at {offset}", fetches.get());
        }
    }
}

#[test]
fn the_tools_of_age_and_zstd_open_what_we_sealed() {
    let key = key();
    let dir = tempfile::tempdir().unwrap();
    let identity = dir.path().join("id.txt");
    std::fs::write(&identity, key.file_text().as_bytes()).unwrap();
    let (stored, _) = seal(&[b"first ", b"second"], &age_for(&key), Some(&header()));
    let object = dir.path().join("o.zst.age");
    std::fs::write(&object, stored).unwrap();
    let mut age = Command::new("age")
        .arg("-d")
        .arg("-i")
        .arg(&identity)
        .arg(&object)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let zstd = Command::new("zstd").args(["-d", "-q"]).stdin(age.stdout.take().unwrap()).output().unwrap();
    assert!(age.wait().unwrap().success() && zstd.status.success());
    assert_eq!(zstd.stdout, b"first second");

    let (stored, _) = seal(&[b"first ", b"second"], &Protection::Plain, None);
    let object = dir.path().join("o.zst");
    std::fs::write(&object, stored).unwrap();
    let zstd = Command::new("zstd").args(["-d", "-q", "-c"]).arg(&object).output().unwrap();
    assert!(zstd.status.success());
    assert_eq!(zstd.stdout, b"first second");
}
