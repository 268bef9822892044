//! Listings: all pages, in key order, of nothing but what was asked. A page that cannot be true is an error, never
//! a shorter list.

use aws_sdk_s3::types::{CommonPrefix, Object};

use super::{Key, ObjectInfo, S3, moment};
use crate::error::{Code, Error, Result};

/// One page, of either version of the request.
struct Page {
    objects: Vec<Object>,
    prefixes: Vec<CommonPrefix>,
    truncated: bool,
    next: Option<Next>,
}

/// Where the next page begins.
#[derive(Debug, Clone, PartialEq)]
enum Next {
    Token(String),
    /// For stores that know only the first version of the request.
    Marker(String),
}

impl S3 {
    pub(super) async fn list_all(&self, prefix: &str, start_after: Option<&Key>) -> Result<Vec<ObjectInfo>> {
        let after = start_after.map(|key| format!("{}{key}", self.0.prefix));
        let mut found = Vec::new();
        self.pages(prefix, after.as_deref(), None, |page| {
            for object in &page.objects {
                let info = self.object(object, prefix)?;
                // Version 1 of the request has no `start-after`.
                if start_after.is_none_or(|after| info.key.as_str() > after) {
                    found.push(info);
                }
            }
            Ok(())
        })
        .await?;
        found.sort_unstable_by(|a: &ObjectInfo, b| a.key.cmp(&b.key));
        found.dedup_by(|a, b| a.key == b.key);
        Ok(found)
    }

    pub(super) async fn list_common(&self, prefix: &str) -> Result<Vec<String>> {
        let full = format!("{}{prefix}", self.0.prefix);
        let mut names = Vec::new();
        self.pages(prefix, None, Some("/"), |page| {
            for common in &page.prefixes {
                let name = common.prefix().and_then(|p| p.strip_prefix(&full)?.strip_suffix('/'));
                names.push(
                    name.ok_or_else(|| self.lied("a common prefix outside of what was asked"))?.to_owned(),
                );
            }
            Ok(())
        })
        .await?;
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    async fn pages(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        delimiter: Option<&str>,
        mut take: impl FnMut(&Page) -> Result<()> + Send,
    ) -> Result<()> {
        let full = format!("{}{prefix}", self.0.prefix);
        let mut next = None;
        loop {
            let page = match &next {
                Some(Next::Marker(marker)) => self.page_v1(&full, marker, delimiter).await?,
                token => self.page_v2(&full, token.as_ref(), start_after, delimiter).await?,
            };
            take(&page)?;
            if !page.truncated {
                self.bucket_was_seen();
                return Ok(());
            }
            // The same place again would never end.
            if page.next.is_none() || page.next == next {
                return Err(self.lied("a listing says that it goes on, but not where"));
            }
            next = page.next;
        }
    }

    async fn page_v2(
        &self,
        full: &str,
        next: Option<&Next>,
        start_after: Option<&str>,
        delimiter: Option<&str>,
    ) -> Result<Page> {
        let mut request = self.0.client.list_objects_v2().bucket(&self.0.name).prefix(full);
        request = request.set_delimiter(delimiter.map(Into::into));
        request = match next {
            Some(Next::Token(token)) => request.continuation_token(token),
            _ => request.set_start_after(start_after.map(Into::into)),
        };
        let answer = request.send().await.map_err(|e| self.asked("cannot list the bucket", "").error(e))?;
        // A store that knows only version 1 ignores the rest of the request: go on in its way.
        let next = answer
            .next_continuation_token()
            .map(|token| Next::Token(token.to_owned()))
            .or_else(|| last_of(answer.contents(), answer.common_prefixes()).map(Next::Marker));
        Ok(Page {
            truncated: answer.is_truncated().unwrap_or(false),
            next,
            objects: answer.contents.unwrap_or_default(),
            prefixes: answer.common_prefixes.unwrap_or_default(),
        })
    }

    async fn page_v1(&self, full: &str, marker: &str, delimiter: Option<&str>) -> Result<Page> {
        let request = self.0.client.list_objects().bucket(&self.0.name).prefix(full).marker(marker);
        let request = request.set_delimiter(delimiter.map(Into::into));
        let answer = request.send().await.map_err(|e| self.asked("cannot list the bucket", "").error(e))?;
        let next = answer.next_marker().map(str::to_owned);
        let next = next.or_else(|| last_of(answer.contents(), answer.common_prefixes()));
        Ok(Page {
            truncated: answer.is_truncated().unwrap_or(false),
            next: next.map(Next::Marker),
            objects: answer.contents.unwrap_or_default(),
            prefixes: answer.common_prefixes.unwrap_or_default(),
        })
    }

    fn object(&self, object: &Object, prefix: &str) -> Result<ObjectInfo> {
        let key = object.key().and_then(|key| key.strip_prefix(self.0.prefix.as_str()));
        let bytes = object.size().and_then(|n| u64::try_from(n).ok());
        match (key, bytes) {
            (Some(key), Some(bytes)) if key.starts_with(prefix) => {
                Ok(ObjectInfo { key: key.to_owned(), bytes, modified: moment(object.last_modified()) })
            }
            _ => Err(self.lied("a listing holds what was not asked, or no length")),
        }
    }

    fn lied(&self, what: &str) -> Error {
        Error::new(Code::StoreLied, what).at(&self.0.location)
    }
}

/// The greatest name of a page, which is a marker for the next one.
fn last_of(objects: &[Object], prefixes: &[CommonPrefix]) -> Option<String> {
    let keys = objects.iter().filter_map(Object::key);
    keys.chain(prefixes.iter().filter_map(CommonPrefix::prefix)).max().map(str::to_owned)
}
