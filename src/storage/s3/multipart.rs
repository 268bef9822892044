//! A multipart upload at the store: begun once, parts by number, completed or aborted. What is neither by the time
//! it is dropped is aborted from a task of its own.

use aws_sdk_s3::operation::upload_part::UploadPartOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use md5::{Digest as _, Md5};
use tokio::task::JoinSet;

use super::errors::says_missing;
use super::{S3, service_code};
use crate::error::{Code, Error, Result};
use crate::model::Timestamp;

/// One upload at the store.
pub(super) struct Multipart {
    s3: S3,
    key: String,
    /// None once it is completed or aborted.
    id: Option<String>,
    parts: i32,
    running: JoinSet<Result<CompletedPart>>,
    done: Vec<CompletedPart>,
}

impl Multipart {
    /// Runs in a task: if the caller goes away before it has the id, nobody else could abort it.
    pub(super) async fn begin(s3: &S3, key: &str) -> Result<Self> {
        let (s3, key) = (s3.clone(), key.to_owned());
        let begun = tokio::spawn(async move {
            let id = create(&s3, &key).await?;
            Ok(Self { s3, key, id: Some(id), parts: 0, running: JoinSet::new(), done: Vec::new() })
        });
        begun.await.unwrap_or_else(|e| Err(died(e)))
    }

    /// Parts that were sent or are being sent.
    pub(super) fn parts(&self) -> i32 {
        self.parts
    }

    /// Sends the next part beside the others; waits while there are as many as allowed. Fails when one has failed.
    pub(super) async fn send(&mut self, bytes: Bytes) -> Result<()> {
        while self.running.len() >= self.s3.0.parts_in_flight {
            self.join().await?;
        }
        self.parts += 1;
        let (s3, key, id, number) = (self.s3.clone(), self.key.clone(), self.id()?.to_owned(), self.parts);
        self.running.spawn(async move {
            let policy = s3.0.policy;
            policy.run(|_| part(&s3, &key, &id, number, bytes.clone())).await
        });
        Ok(())
    }

    async fn join(&mut self) -> Result<()> {
        if let Some(joined) = self.running.join_next().await {
            self.done.push(joined.unwrap_or_else(|e| Err(died(e)))?);
        }
        Ok(())
    }

    fn id(&self) -> Result<&str> {
        self.id.as_deref().ok_or_else(|| Error::internal("an upload was used after its end"))
    }

    /// Waits for all parts and makes the object of them. A lost answer is recognised by the object's ETag.
    pub(super) async fn complete(mut self) -> Result<()> {
        while !self.running.is_empty() {
            self.join().await?;
        }
        self.done.sort_by_key(CompletedPart::part_number);
        // Also with conditional writes: stores that obey the condition of a `PUT` ignore that of a completion.
        if self.s3.0.policy.run(|_| self.s3.look(&self.key)).await?.is_some() {
            return Err(self.s3.exists(&self.key));
        }
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.done.clone())).build();
        let (this, parts) = (&self, &parts);
        this.s3.0.policy.run(|tries| this.try_complete(tries, parts.clone())).await?;
        self.id = None;
        Ok(())
    }

    async fn try_complete(&self, tries: u32, parts: CompletedMultipartUpload) -> Result<()> {
        let (s3, bucket) = (&self.s3, &self.s3.0);
        let request = bucket.client.complete_multipart_upload();
        let request = request.bucket(&bucket.name).key(s3.full(&self.key)?).upload_id(self.id()?);
        let request = request.multipart_upload(parts).set_if_none_match(s3.if_none_match());
        // Joining many parts takes some stores minutes.
        let patience = s3.patience(64 << 20);
        let Err(error) = request.customize().config_override(patience).send().await else { return Ok(()) };
        let gone = service_code(&error) == Some("NoSuchUpload");
        let error = s3.asked("cannot complete the upload", &self.key).error(error);
        if tries > 1 && (gone || error.code() == Code::ObjectExists) && self.is_there().await? {
            return Ok(());
        }
        Err(error)
    }

    /// True when the object at the key is the one that these parts make: the ETag of a multipart object is the MD5
    /// of its parts' MD5s.
    async fn is_there(&self) -> Result<bool> {
        let Some(found) = self.s3.look(&self.key).await? else { return Ok(false) };
        Ok(found.e_tag().is_some_and(|tag| Some(tag.trim_matches('"').to_owned()) == joined_etag(&self.done)))
    }

    /// Ends it at the store. Parts still on their way are given up first, so that none arrives afterwards.
    pub(super) async fn abort(mut self) -> Result<()> {
        let Some(id) = self.id.take() else { return Ok(()) };
        self.running.shutdown().await;
        abort(&self.s3, &self.key, &id).await
    }
}

impl Drop for Multipart {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) else { return };
        let (s3, key, mut running) =
            (self.s3.clone(), std::mem::take(&mut self.key), std::mem::take(&mut self.running));
        runtime.spawn(async move {
            running.shutdown().await;
            if let Err(error) = abort(&s3, &key, &id).await {
                tracing::warn!(%error, "a given-up upload stays at the store until it is swept");
            }
        });
    }
}

fn died(e: tokio::task::JoinError) -> Error {
    Error::internal("a task of an upload died").because(e)
}

async fn create(s3: &S3, key: &str) -> Result<String> {
    let full = s3.full(key)?;
    s3.0.policy
        .run(|_| async {
            let request = s3.0.client.create_multipart_upload().bucket(&s3.0.name).key(&full);
            let request = request.set_storage_class(s3.0.storage_class.clone());
            let answer =
                request.send().await.map_err(|e| s3.asked("cannot begin the upload", key).error(e))?;
            let id = answer.upload_id.filter(|id| !id.is_empty());
            id.ok_or_else(|| Error::new(Code::StoreLied, "an upload without an id").at(&s3.0.location))
        })
        .await
}

async fn part(s3: &S3, key: &str, id: &str, number: i32, bytes: Bytes) -> Result<CompletedPart> {
    let patience = s3.patience(bytes.len() as u64);
    let request = s3.0.client.upload_part().bucket(&s3.0.name).key(s3.full(key)?).upload_id(id);
    let request = request.part_number(number).body(ByteStream::from(bytes));
    let answer = request.customize().config_override(patience).send().await;
    let answer: UploadPartOutput = answer.map_err(|e| s3.asked("cannot write a part", key).error(e))?;
    // Where checksums are on, the store wants them back.
    Ok(CompletedPart::builder()
        .part_number(number)
        .set_e_tag(answer.e_tag)
        .set_checksum_crc32(answer.checksum_crc32)
        .set_checksum_crc32_c(answer.checksum_crc32_c)
        .set_checksum_crc64_nvme(answer.checksum_crc64_nvme)
        .build())
}

async fn abort(s3: &S3, key: &str, id: &str) -> Result<()> {
    let full = s3.full(key)?;
    s3.0.policy.run(|_| abort_once(s3, &full, id)).await
}

async fn abort_once(s3: &S3, full: &str, id: &str) -> Result<()> {
    let request = s3.0.client.abort_multipart_upload().bucket(&s3.0.name).key(full).upload_id(id);
    match request.send().await {
        Ok(_) => Ok(()),
        Err(e) if service_code(&e) == Some("NoSuchUpload") || says_missing(&e) => Ok(()),
        Err(e) => Err(s3.asked("cannot abort the upload", full).error(e)),
    }
}

/// None when a part's ETag is no MD5 (some stores, some encryptions).
fn joined_etag(parts: &[CompletedPart]) -> Option<String> {
    let mut all = Md5::new();
    for part in parts {
        let tag = part.e_tag()?.trim_matches('"');
        if tag.len() != 32 || !tag.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        for pair in tag.as_bytes().chunks_exact(2) {
            all.update([u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?]);
        }
    }
    Some(format!("{:x}-{}", all.finalize(), parts.len()))
}

/// Aborts uploads below the prefix that were begun before `before`; says how many.
pub(super) async fn sweep(s3: &S3, before: Timestamp) -> Result<u64> {
    let (mut markers, mut aborted) = ((None, None), 0);
    loop {
        let request = s3.0.client.list_multipart_uploads().bucket(&s3.0.name).prefix(&s3.0.prefix);
        let request = request.set_key_marker(markers.0.clone()).set_upload_id_marker(markers.1.clone());
        let page =
            request.send().await.map_err(|e| s3.asked("cannot list unfinished uploads", "").error(e))?;
        for upload in page.uploads() {
            let (Some(key), Some(id)) = (upload.key(), upload.upload_id()) else { continue };
            let old = super::moment(upload.initiated()).is_some_and(|begun| begun <= before);
            if old && key.starts_with(&s3.0.prefix) {
                abort_once(s3, key, id).await?;
                aborted += 1;
            }
        }
        let next = (page.next_key_marker, page.next_upload_id_marker);
        if page.is_truncated != Some(true) {
            return Ok(aborted);
        }
        if next == markers {
            return Err(Error::new(Code::StoreLied, "a listing says that it goes on, but not where")
                .at(&s3.0.location));
        }
        markers = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_etag_of_a_multipart_object_follows_from_its_parts() {
        let part = |tag: &str| CompletedPart::builder().e_tag(tag).build();
        // MD5 of the two MD5s of "a" and "b", as S3 builds it.
        let parts = [part("\"0cc175b9c0f1b6a831c399e269772661\""), part("92eb5ffee6ae2fec3ad71c777531578f")];
        assert_eq!(joined_etag(&parts).as_deref(), Some("96e024ba2074fe77e8e965ba43a704be-2"));
        assert_eq!(joined_etag(&[part("not an md5")]), None);
    }
}
