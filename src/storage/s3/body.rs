//! Bodies that are checked against what was announced and what was asked.

use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures::StreamExt;

use super::Body;
use crate::error::{Code, Error, Result};

struct Checked {
    stream: ByteStream,
    left: u64,
    between_pieces: Duration,
    place: String,
}

/// The body of an answer. Errors: `StoreLied` when its announced or real length is not what it must be,
/// `StoreUnavailable` when it breaks off or stalls.
pub(super) fn checked(
    answer: GetObjectOutput,
    range: Option<Range<u64>>,
    between_pieces: Duration,
    place: String,
) -> Result<Body> {
    let announced = answer.content_length().and_then(|n| u64::try_from(n).ok());
    let lied = |what: String| Err(Error::new(Code::StoreLied, what).at(&place));
    let Some(left) = announced else { return lied("the store announced no length".into()) };
    if let Some(range) = range {
        let asked = range.end - range.start;
        if left != asked {
            return lied(format!("asked for {asked} bytes of a range, the store announced {left}"));
        }
        let wanted = format!("bytes {}-{}/", range.start, range.end - 1);
        if answer.content_range().is_some_and(|got| !got.starts_with(&wanted)) {
            return lied("the store sends another range than was asked".into());
        }
    }
    let checked = Checked { stream: answer.body, left, between_pieces, place };
    Ok(futures::stream::try_unfold(checked, |mut checked| async move {
        Ok(checked.piece().await?.map(|piece| (piece, checked)))
    })
    .boxed())
}

impl Checked {
    async fn piece(&mut self) -> Result<Option<Bytes>> {
        let broke = |what| Error::new(Code::StoreUnavailable, what).at(&self.place);
        let piece = match tokio::time::timeout(self.between_pieces, self.stream.next()).await {
            Err(_) => return Err(broke("the body of the object stopped coming")),
            Ok(Some(Err(e))) => return Err(broke("the body of the object broke off").because(e)),
            Ok(Some(Ok(piece))) => Some(piece),
            Ok(None) => None,
        };
        let got = piece.as_ref().map_or(0, |p| p.len() as u64);
        if got > self.left || (piece.is_none() && self.left > 0) {
            let how = if got > self.left { "longer" } else { "shorter" };
            return Err(
                Error::new(Code::StoreLied, format!("the body is {how} than announced")).at(&self.place)
            );
        }
        self.left -= got;
        Ok(piece)
    }
}
