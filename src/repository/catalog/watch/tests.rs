use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::repository::keys;
use crate::repository::signature::HostKey;
use crate::repository::tests::{at, directory, main_cluster, record};
use crate::storage::faults::{Fault, Faulty, Op};

struct Place {
    _dir: tempfile::TempDir,
    repository: Repository,
    faulty: Faulty,
    host: HostKey,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let plain = directory(dir.path(), "a", true).await;
        let faulty = Faulty::new(plain.storage.clone());
        let repository = Repository { storage: Arc::new(faulty.clone()), ..plain };
        Self { _dir: dir, repository, faulty, host: HostKey::generate().unwrap() }
    }
    fn trust(&self) -> Trust {
        Trust::new([self.host.public().clone()])
    }
    async fn put(&self, key: &str, bytes: Vec<u8>) {
        self.repository.storage.put(key, Bytes::from(bytes)).await.unwrap();
    }
    /// A backup of this second of 02:00, whole and signed.
    async fn publish(&self, second: u32, damaged: bool) -> BackupId {
        let mut record = record();
        record.id = BackupId::parse(&format!("20261121T0200{second:02}Z-full-3f9a")).unwrap();
        let base = record.base.as_mut().unwrap();
        base.stop_time = at(&format!("2026-11-21T02:05:{second:02}Z"));
        if !damaged {
            base.page_errors.clear();
        }
        let bytes = record.to_bytes().unwrap();
        let signature = self.host.sign(&bytes, "backup.json", at("2026-11-21T02:00:00Z")).unwrap();
        self.put(&backup::signature(&main_cluster(), &record.id), signature.into_bytes()).await;
        self.put(&backup::record(&main_cluster(), &record.id), bytes).await;
        record.id
    }
    async fn look(&self, watch: &mut Watch) -> Vec<String> {
        let found = watch.look(&self.repository, &main_cluster(), &self.trust()).await.unwrap();
        found.iter().map(|brief| brief.id.to_string()).collect()
    }
    /// Listings, heads and reads so far.
    fn asked(&self) -> (u32, u32, u32) {
        let calls = |op| self.faulty.calls(op);
        (calls(Op::List) + calls(Op::ListDirs), calls(Op::Head), calls(Op::Get))
    }
}

#[tokio::test]
async fn a_look_at_what_is_known_costs_one_listing_and_one_head() {
    let place = Place::new().await;
    let mut watch = Watch::default();
    assert_eq!(place.look(&mut watch).await, Vec::<String>::new());
    assert_eq!(place.asked(), (1, 0, 0));
    for second in 0..20 {
        place.publish(second, false).await;
    }
    assert_eq!(place.look(&mut watch).await.len(), 20);
    let before = place.asked();
    assert_eq!(place.look(&mut watch).await.len(), 20);
    assert_eq!(place.asked(), (before.0 + 1, before.1 + 1, before.2));
    // One more: its head, its record and its signature besides.
    place.publish(40, false).await;
    assert_eq!(place.look(&mut watch).await.last().unwrap(), "20261121T020040Z-full-3f9a");
    assert_eq!(place.asked(), (before.0 + 2, before.1 + 3, before.2 + 2));
}

#[tokio::test]
async fn only_what_is_published_trusted_and_still_there_counts() {
    let place = Place::new().await;
    let mut watch = Watch::default();
    let first = place.publish(1, false).await;
    let second = place.publish(2, false).await;
    let damaged = place.publish(3, true).await;
    place.put("main/backups/20261121T020004Z-full-3f9a/data/00001.tar.zst", vec![1]).await;
    place.put("main/backups/20261121T020005Z-full-3f9a/backup.json", b"{}".to_vec()).await;
    place.put("main/backups/stray", vec![1]).await;
    let unsigned = BackupId::parse("20261121T020006Z-full-3f9a").unwrap();
    let bytes = BackupRecord { id: unsigned.clone(), ..record() }.to_bytes().unwrap();
    place.put(&backup::record(&main_cluster(), &unsigned), bytes.clone()).await;
    let stranger =
        HostKey::generate().unwrap().sign(&bytes, "backup.json", at("2026-11-21T02:00:00Z")).unwrap();
    assert_eq!(place.look(&mut watch).await, [&first, &second, &damaged].map(ToString::to_string));
    // Signed by somebody else, it is no better.
    place.put(&keys::signature_of(&backup::record(&main_cluster(), &unsigned)), stranger.into_bytes()).await;
    assert_eq!(place.look(&mut watch).await.len(), 3);
    // Its record is gone, the rest of it is not.
    place.put("main/backups/20261121T020002Z-full-3f9a/data/00001.tar.zst", vec![1]).await;
    place.repository.storage.delete(&backup::record(&main_cluster(), &second)).await.unwrap();
    assert_eq!(place.look(&mut watch).await, [&first, &damaged].map(ToString::to_string));
}

#[tokio::test]
async fn a_store_that_fails_is_an_error_and_what_was_known_stays() {
    let place = Place::new().await;
    let mut watch = Watch::default();
    place.publish(1, false).await;
    place.look(&mut watch).await;
    place.publish(2, false).await;
    for op in [Op::ListDirs, Op::Head, Op::Get] {
        place.faulty.always(op, Some(Fault::Before(Code::StoreUnavailable)));
        let error = watch.look(&place.repository, &main_cluster(), &place.trust()).await.unwrap_err();
        assert_eq!(error.code(), Code::StoreUnavailable);
        place.faulty.always(op, None);
    }
    assert_eq!(place.look(&mut watch).await.len(), 2);
}
