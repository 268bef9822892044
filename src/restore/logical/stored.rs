//! A stream of a logical backup: its objects in one repository, joined, decrypted and decompressed as they are read.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::codec::{Identities, from_io, open_sealed};
use crate::error::{Code, Error, Result};
use crate::model::ClusterName;
use crate::repository::Repository;
use crate::repository::body_reader::BodyReader;
use crate::repository::keys::backup;
use crate::repository::record::{BackupRecord, ObjectEntry};
use crate::repository::replaced;

const BUFFER: usize = 256 << 10;
/// Pieces on their way.
const WAITING: usize = 4;

/// Where it lies. Read it as often as needed, on blocking threads.
#[derive(Clone)]
pub struct StoredStream {
    repository: Repository,
    /// Its own, whose suffix says how it was sealed.
    key: String,
    /// All its objects, in their order, with whole keys.
    parts: Vec<ObjectEntry>,
    identities: Option<Identities>,
    runtime: Handle,
}

impl StoredStream {
    /// Finds the stream stored under a relative key. Must be called inside a runtime.
    pub fn new(
        repository: &Repository,
        cluster: &ClusterName,
        record: &BackupRecord,
        relative: &str,
        identities: Option<&Identities>,
    ) -> Result<Self> {
        let whole = |key: &str| backup::object(cluster, &record.id, key);
        let parts: Vec<ObjectEntry> = record
            .parts(relative)
            .into_iter()
            .map(|o| ObjectEntry { key: whole(&o.key), ..o.clone() })
            .collect();
        let key = whole(relative);
        if parts.is_empty() {
            return Err(Error::new(Code::Damaged, "the backup's record does not have this object").at(key));
        }
        Ok(Self {
            repository: repository.clone(),
            key,
            parts,
            identities: identities.cloned(),
            runtime: Handle::current(),
        })
    }

    pub fn stored_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
    /// For messages.
    pub fn place(&self) -> String {
        self.repository.place(&self.key)
    }

    /// Says that the repository has every object, as long as it was stored.
    pub async fn check_length(&self) -> Result<()> {
        for part in &self.parts {
            let place = self.repository.place(&part.key);
            let key = replaced::place(&self.repository, &part.key, part.sha256).await;
            match self.repository.storage.head(&key).await? {
                Some(info) if info.bytes == part.bytes => {}
                Some(info) => {
                    let what = format!("the object has {} bytes, and {} were stored", info.bytes, part.bytes);
                    return Err(Error::new(Code::Damaged, what).at(place));
                }
                None => {
                    return Err(Error::new(Code::ObjectMissing, "an object of the backup is gone").at(place));
                }
            }
        }
        Ok(())
    }

    /// From the beginning. Dropping the reader ends the transfer.
    pub fn open(&self) -> Result<impl BufRead + Send + use<>> {
        let joined = Joined {
            repository: self.repository.clone(),
            runtime: self.runtime.clone(),
            current: None,
            left: self.parts.iter().cloned().collect(),
        };
        let opened = open_sealed(joined, &self.key, self.identities.as_ref())?;
        Ok(BufReader::with_capacity(BUFFER, opened))
    }
}

impl StoredStream {
    /// From the beginning, read on a blocking thread, which ends with the stream, with an error (the last piece) or when
    /// nobody takes any more. A thread that died is an error too.
    pub fn pieces(&self) -> mpsc::Receiver<Result<Bytes>> {
        let (pieces, mailbox) = mpsc::channel(WAITING);
        let from = self.clone();
        let failed = pieces.clone();
        let reader = tokio::task::spawn_blocking(move || from.send(&pieces));
        tokio::spawn(async move {
            if let Err(e) = reader.await {
                let _ = failed.send(Err(Error::internal("a reader died").because(e))).await;
            }
        });
        mailbox
    }

    fn send(&self, pieces: &mpsc::Sender<Result<Bytes>>) {
        let read = |open: &mut dyn BufRead| -> Result<Option<Bytes>> {
            let mut piece = vec![0; BUFFER];
            let n = open
                .read(&mut piece)
                .map_err(|e| from_io("the export cannot be read to its end", &self.place(), e))?;
            piece.truncate(n);
            Ok((n > 0).then(|| piece.into()))
        };
        let mut open = match self.open() {
            Ok(open) => open,
            Err(error) => {
                let _ = pieces.blocking_send(Err(error));
                return;
            }
        };
        while let Some(piece) = read(&mut open).transpose() {
            let ends = piece.is_err();
            if pieces.blocking_send(piece).is_err() || ends {
                return;
            }
        }
    }
}

/// One object after the other, each opened when it is needed.
struct Joined {
    repository: Repository,
    runtime: Handle,
    current: Option<BodyReader>,
    left: VecDeque<ObjectEntry>,
}

impl Read for Joined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(body) = &mut self.current {
                let n = body.read(buffer)?;
                if n > 0 || buffer.is_empty() {
                    return Ok(n);
                }
                self.current = None;
            }
            let Some(part) = self.left.pop_front() else { return Ok(0) };
            let key = replaced::place_on(&self.runtime, &self.repository, &part.key, part.sha256);
            self.current = Some(BodyReader::open_on(&self.runtime, &self.repository, &key, None));
        }
    }
}
