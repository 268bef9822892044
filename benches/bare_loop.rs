//! The limit that backup and restore are measured against: nothing but read → SHA-256 → zstd → age → write, and the
//! way back, over the files of a directory with as many threads as asked for. No pages, no manifest, no protocol.
//!
//! `cargo bench --bench bare_loop -- seal SOURCE STORE LEVEL THREADS`
//! `cargo bench --bench bare_loop -- open STORE DESTINATION THREADS`
//!
//! SEAL writes one file for each 256 MiB of input and prints `seconds=… plain=… stored=…`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use sha2::{Digest, Sha256};

const PACK_BYTES: u64 = 256 << 20;
const BUFFER_BYTES: usize = 1 << 20;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["seal", source, store, level, threads] => {
            seal(Path::new(source), Path::new(store), level.parse().unwrap(), threads.parse().unwrap());
        }
        ["open", store, destination, threads] => {
            open(Path::new(store), Path::new(destination), threads.parse().unwrap());
        }
        // `cargo bench` without arguments, as `cargo test --benches` does: nothing to measure against.
        _ => println!("usage: seal SOURCE STORE LEVEL THREADS | open STORE DESTINATION THREADS"),
    }
}

type Queue = Mutex<std::vec::IntoIter<(PathBuf, u64)>>;

/// The lock is held for the taking alone.
fn take(queue: &Queue) -> Option<(PathBuf, u64)> {
    queue.lock().unwrap().next()
}

fn files(root: &Path) -> Vec<(PathBuf, u64)> {
    let mut found: Vec<(PathBuf, u64)> = walkdir::WalkDir::new(root)
        .into_iter()
        .map(Result::unwrap)
        .filter(|e| e.file_type().is_file())
        .map(|e| (e.path().to_path_buf(), e.metadata().unwrap().len()))
        .collect();
    found.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    found
}

fn seal(source: &Path, store: &Path, level: i32, threads: usize) {
    fs::create_dir_all(store).unwrap();
    let identity = age::x25519::Identity::generate();
    let secret = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
    fs::write(store.join("identity.txt"), secret).unwrap();
    let recipient = identity.to_public();
    let queue = Mutex::new(files(source).into_iter());
    let (plain, packs) = (AtomicU64::new(0), AtomicUsize::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut buffer = vec![0; BUFFER_BYTES];
                while let Some(first) = take(&queue) {
                    let name = format!("{:05}.zst.age", packs.fetch_add(1, Ordering::Relaxed));
                    let recipients = [&recipient as &dyn age::Recipient];
                    let encryptor = age::Encryptor::with_recipients(recipients.into_iter()).unwrap();
                    let sealed = encryptor.wrap_output(File::create(store.join(name)).unwrap()).unwrap();
                    let mut encoder = zstd::Encoder::new(sealed, level).unwrap();
                    let (mut next, mut taken) = (Some(first), 0);
                    while let Some((path, bytes)) = next {
                        taken += bytes;
                        plain.fetch_add(copy_hashed(&path, &mut encoder, &mut buffer), Ordering::Relaxed);
                        next = if taken < PACK_BYTES { take(&queue) } else { None };
                    }
                    encoder.finish().unwrap().finish().unwrap().sync_all().unwrap();
                }
            });
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    let stored: u64 = files(store).iter().map(|(_, bytes)| bytes).sum();
    println!("seconds={seconds:.2} plain={} stored={stored}", plain.into_inner());
}

fn copy_hashed(path: &Path, out: &mut impl Write, buffer: &mut [u8]) -> u64 {
    let (mut file, mut digest, mut total) = (File::open(path).unwrap(), Sha256::new(), 0);
    loop {
        let got = file.read(buffer).unwrap();
        if got == 0 {
            std::hint::black_box(digest.finalize());
            return total;
        }
        digest.update(&buffer[..got]);
        out.write_all(&buffer[..got]).unwrap();
        total += got as u64;
    }
}

fn open(store: &Path, destination: &Path, threads: usize) {
    fs::create_dir_all(destination).unwrap();
    let identity: age::x25519::Identity =
        fs::read_to_string(store.join("identity.txt")).unwrap().parse().unwrap();
    let packs: Vec<_> =
        files(store).into_iter().filter(|(p, _)| p.extension().is_some_and(|e| e == "age")).collect();
    let queue = Mutex::new(packs.into_iter());
    let plain = AtomicU64::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((path, _)) = take(&queue) {
                    let decryptor = age::Decryptor::new(File::open(&path).unwrap()).unwrap();
                    let plain_side =
                        decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity)).unwrap();
                    let mut decoder = zstd::Decoder::new(plain_side).unwrap();
                    let mut out = File::create(destination.join(path.file_stem().unwrap())).unwrap();
                    plain.fetch_add(io::copy(&mut decoder, &mut out).unwrap(), Ordering::Relaxed);
                    out.sync_all().unwrap();
                }
            });
        }
    });
    println!("seconds={:.2} plain={}", began.elapsed().as_secs_f64(), plain.into_inner());
}
