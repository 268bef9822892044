//! What stores answer that no real one will on demand: an error inside a 200, a lost answer, a short body, a
//! listing in the old way. And what a real one answers to the wrong bucket, secret, certificate and address.

mod scripted;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pgkeep::error::{Code, Error};
use pgkeep::storage::{self, Ability, StoreSettings, get_bytes, probe};

use self::scripted::{Answer, Scripted};
use crate::storage_conformance::{run, settings};
use crate::support::s3::S3;

const PART: usize = 5 << 20;
/// ETag of a part in these scripts, and of an object of two such parts (MD5 of both MD5s).
const PART_ETAG: &str = "0cc175b9c0f1b6a831c399e269772661";
const WHOLE_ETAG: &str = "7b3c799ee8b11a11c798c8b41bed8502-2";

/// A store that takes two parts, each on the second try; completing and the look afterwards are up to the test.
fn takes_parts(
    complete: impl Fn(usize) -> Answer + Send + Sync + 'static,
    head: impl Fn() -> Answer + Send + Sync + 'static,
) -> Scripted {
    let completed = std::sync::atomic::AtomicUsize::new(0);
    Scripted::new(move |request, nth| {
        let line = request.line.as_str();
        let tried = || completed.load(std::sync::atomic::Ordering::SeqCst);
        match line.split(' ').next().unwrap() {
            "POST" if line.contains("uploads") => Answer::say(
                200,
                "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>",
            ),
            "PUT" if nth == 1 => Answer::error(503, "SlowDown"),
            "PUT" => Answer::say(200, "").with(&format!("ETag: \"{PART_ETAG}\"")),
            "POST" => complete(1 + completed.fetch_add(1, std::sync::atomic::Ordering::SeqCst)),
            "HEAD" if tried() > 0 => head(),
            "HEAD" => Answer::say(404, ""),
            "DELETE" => Answer::say(204, ""),
            _ => Answer::say(200, "<ListBucketResult></ListBucketResult>"),
        }
    })
}

fn completed() -> Answer {
    Answer::say(200, "<CompleteMultipartUploadResult><ETag>\"x-2\"</ETag></CompleteMultipartUploadResult>")
}

/// The look at a finished object of `bytes`.
fn there(bytes: usize) -> Answer {
    Answer::say(200, "").announcing(bytes).with(&format!("ETag: \"{WHOLE_ETAG}\""))
}

fn upload_two_parts(server: &Scripted, deadline: Duration) -> Result<storage::Stored, Error> {
    server.with(
        |settings| settings.operation_deadline = deadline,
        |store| async move {
            let mut upload = store.upload("key").await?;
            upload.write(vec![1; PART + 1].into()).await?;
            upload.finish().await
        },
    )
}

const LONG: Duration = Duration::from_mins(1);

#[test]
fn an_error_inside_a_200_is_an_error_and_is_asked_again() {
    let error =
        "<Error><Code>InternalError</Code><Message>We encountered an internal error</Message></Error>";
    let server =
        takes_parts(move |n| if n < 3 { Answer::say(200, error) } else { completed() }, || there(PART + 1));
    assert_eq!(upload_two_parts(&server, LONG).unwrap().bytes, PART as u64 + 1);
    assert_eq!(server.count("POST /bucket/key?uploadId=u1"), 3);
    assert_eq!((server.count("partNumber=1"), server.count("partNumber=2")), (2, 2));

    let server = takes_parts(move |_| Answer::say(200, error), || Answer::say(404, ""));
    let failed = upload_two_parts(&server, Duration::from_secs(1)).unwrap_err();
    assert_eq!(failed.code(), Code::StoreUnavailable);
    assert!(failed.to_string().contains("internal error"), "{failed}");
}

#[test]
fn an_acknowledged_object_of_another_length_or_none_is_a_lie() {
    for head in [there(PART), Answer::say(404, "")] {
        let Answer::Say { status, announced, .. } = head else { unreachable!() };
        let server =
            takes_parts(|_| completed(), move || announced.map_or_else(|| Answer::say(status, ""), there));
        assert_eq!(upload_two_parts(&server, LONG).unwrap_err().code(), Code::StoreLied);
    }
}

/// A store without conditions, where another writer's object of the same name, of `other` bytes, comes after each of the
/// first `times` that are put.
fn overtaken(other: usize, times: usize) -> Scripted {
    let put = Mutex::new((0, 0));
    Scripted::new(move |request, _| {
        let mut put = put.lock().unwrap();
        let (count, bytes) = &mut *put;
        match request.line.split(' ').next().unwrap() {
            "PUT" => {
                (*count, *bytes) = (*count + 1, request.body.len());
                Answer::say(200, "")
            }
            "HEAD" if *count == 0 => Answer::say(404, ""),
            "HEAD" => Answer::say(200, "").announcing(if *count > times { *bytes } else { other }),
            _ => Answer::say(200, "<ListBucketResult></ListBucketResult>"),
        }
    })
}

#[test]
fn a_slower_writer_of_the_same_name_is_written_over_once_and_a_store_that_always_differs_lies() {
    let upload = |server: &Scripted| {
        server.with(
            |_| {},
            |store| async move {
                let mut upload = store.upload("key").await?;
                upload.write(vec![1; 100].into()).await?;
                upload.finish().await
            },
        )
    };
    let server = overtaken(101, 1);
    assert_eq!(upload(&server).unwrap().bytes, 100);
    assert_eq!(server.count("PUT /bucket/key"), 2);
    let server = overtaken(101, 2);
    assert_eq!(upload(&server).unwrap_err().code(), Code::StoreLied);
    assert_eq!(server.count("PUT /bucket/key"), 2);
}

#[test]
fn a_completion_whose_answer_was_lost_is_recognised_by_its_etag() {
    let lost = |n| if n == 1 { Answer::Hang } else { Answer::error(404, "NoSuchUpload") };
    let server = takes_parts(lost, || there(PART + 1));
    upload_two_parts(&server, LONG).unwrap();
    // Somebody else's object under the same key is not ours.
    let others =
        || Answer::say(200, "").announcing(PART + 1).with("ETag: \"ffffffffffffffffffffffffffffffff-2\"");
    let server = takes_parts(lost, others);
    assert_eq!(upload_two_parts(&server, LONG).unwrap_err().code(), Code::StoreDenied);
}

#[test]
fn a_busy_store_is_waited_for() {
    let server = Scripted::new(|_, nth| {
        if nth < 3 {
            Answer::error(503, "SlowDown")
        } else {
            Answer::say(200, "<ListBucketResult></ListBucketResult>")
        }
    });
    server.with(|_| {}, |store| async move { assert_eq!(store.list("", None).await.unwrap(), []) });
    assert_eq!(server.count("list-type"), 3);
}

#[test]
fn a_skewed_clock_is_named_and_not_asked_again() {
    let server = Scripted::new(|_, _| Answer::error(403, "RequestTimeTooSkewed"));
    let error = server.with(|_| {}, |store| async move { store.list("", None).await.unwrap_err() });
    assert_eq!(error.code(), Code::StoreDenied);
    assert!(error.hint_text().unwrap().contains("clock"), "{error:?}");
    assert_eq!(server.count("GET"), 1);
}

#[test]
fn a_body_that_breaks_off_is_fetched_from_there() {
    let content: Vec<u8> = (0..100_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let whole = Bytes::from(content.clone());
    let server = Scripted::new(move |request, _| {
        if request.line.starts_with("HEAD") {
            return Answer::say(200, "").announcing(content.len());
        }
        let Some(range) = request.headers.get("range") else {
            return Answer::say(200, &content[..30_000]).announcing(content.len());
        };
        let (from, to) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
        let sent = if from == 30_000 { &content[from..60_000] } else { &content[from..=to] };
        let answer = Answer::say(206, sent).announcing(to + 1 - from);
        answer.with(&format!("Content-Range: bytes {from}-{to}/{}", content.len()))
    });
    let got = server.with(|_| {}, |store| async move { get_bytes(&*store, "key", u64::MAX).await.unwrap() });
    assert!(got == whole);
    assert_eq!(server.count("GET"), 3);
}

#[test]
fn a_store_that_ignores_ranges_is_caught() {
    let server = Scripted::new(|_, _| Answer::say(200, vec![7; 1000]));
    let error =
        server.with(|_| {}, |store| async move { store.get("key", Some(10..20)).await.err().unwrap() });
    assert_eq!(error.code(), Code::StoreLied);
}

#[test]
fn a_store_that_knows_only_the_old_listing_is_read_to_its_end() {
    let server = Scripted::new(|request, _| {
        let page = |keys: &[&str], more: bool| {
            let contents = keys.iter().map(|k| format!("<Contents><Key>{k}</Key><Size>1</Size></Contents>"));
            let all: String = contents.collect();
            Answer::say(
                200,
                format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>{all}</ListBucketResult>"),
            )
        };
        match request
            .line
            .split_once("marker=")
            .map(|(_, marker)| marker.split('&').next().unwrap().to_owned())
        {
            None => page(&["a", "b"], true),
            Some(marker) if marker == "b" => page(&["c", "d"], true),
            Some(_) => page(&["e"], false),
        }
    });
    let listed = server.with(|_| {}, |store| async move { store.list("", None).await.unwrap() });
    assert_eq!(listed.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d", "e"]);
}

#[test]
fn a_listing_that_never_gets_on_is_an_error_and_not_a_short_list() {
    let server = Scripted::new(|_, _| {
        let page = "<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>a</Key><Size>1</Size></Contents></ListBucketResult>";
        Answer::say(200, page)
    });
    let error = server.with(|_| {}, |store| async move { store.list("", None).await.unwrap_err() });
    assert_eq!(error.code(), Code::StoreLied);
}

#[test]
fn a_silent_store_is_given_up_in_time_and_a_404_without_a_bucket_is_not_missing() {
    let server = Scripted::new(|_, _| Answer::Silence);
    let start = Instant::now();
    let quick = |settings: &mut StoreSettings| {
        settings.attempt_timeout = Duration::from_millis(200);
        settings.operation_deadline = Duration::from_secs(1);
    };
    let error = server.with(quick, |store| async move { store.head("key").await.unwrap_err() });
    assert_eq!(error.code(), Code::StoreUnavailable);
    assert!(start.elapsed() < Duration::from_secs(5));
    let server = Scripted::new(|request, _| {
        let head = request.line.starts_with("HEAD");
        if head { Answer::say(404, "") } else { Answer::error(404, "NoSuchBucket") }
    });
    let error = server.with(|_| {}, |store| async move { store.head("key").await.unwrap_err() });
    assert_eq!(error.code(), Code::StoreDenied);
}

/// A real store, with one thing wrong.
fn wrong(change: impl FnOnce(&S3, &mut StoreSettings)) -> Vec<Error> {
    let (bucket, scratch) = (S3::fresh_bucket(), tempfile::tempdir().unwrap());
    let mut settings = settings(&bucket, &scratch);
    settings.operation_deadline = Duration::from_secs(2);
    settings.connect_timeout = Duration::from_millis(500);
    change(&bucket, &mut settings);
    run(async {
        let store = storage::open(&settings).await.unwrap();
        vec![
            store.get("key", None).await.err().unwrap(),
            store.head("key").await.unwrap_err(),
            store.list("", None).await.unwrap_err(),
            store.list_dirs("").await.unwrap_err(),
            store.put("key", Bytes::new()).await.unwrap_err(),
            store.upload("key").await.err().unwrap(),
        ]
    })
}

#[test]
fn a_missing_bucket_is_never_a_missing_object() {
    for error in wrong(|_, settings| settings.url = "s3://no-such-bucket-here/x".into()) {
        assert_eq!(error.code(), Code::StoreDenied, "{error:?}");
        assert!(error.hint_text().unwrap().contains("bucket"), "{error:?}");
    }
}

#[test]
fn a_wrong_secret_is_denied_with_a_hint() {
    let change = |bucket: &S3, settings: &mut StoreSettings| {
        let lines = format!(
            "[default]\naws_access_key_id={}\naws_secret_access_key=wrong\n",
            bucket.server().access_key
        );
        std::fs::write(settings.credentials_file.as_ref().unwrap(), lines).unwrap();
    };
    for error in wrong(change) {
        assert_eq!(error.code(), Code::StoreDenied, "{error:?}");
        assert!(error.hint_text().is_some());
    }
}

#[test]
fn absent_credentials_are_named() {
    for error in wrong(|_, settings| settings.profile = Some("nobody".into())) {
        assert_eq!(error.code(), Code::StoreDenied, "{error:?}");
        assert!(error.hint_text().unwrap().contains("credentials"), "{error:?}");
    }
}

#[test]
fn an_untrusted_certificate_is_denied_and_names_ca_file() {
    for error in wrong(|bucket, settings| settings.endpoint = Some(bucket.server().https_endpoint.clone())) {
        assert_eq!(error.code(), Code::StoreDenied, "{error:?}");
        assert!(error.hint_text().unwrap().contains("ca_file"), "{error:?}");
    }
}

#[test]
fn nobody_at_the_address_is_unavailable() {
    for error in wrong(|_, settings| settings.endpoint = Some("http://127.0.0.1:1".into())) {
        assert_eq!(error.code(), Code::StoreUnavailable, "{error:?}");
    }
}

#[test]
fn a_ca_file_that_holds_no_certificate_is_refused_before_anything_is_asked() {
    let (bucket, scratch) = (S3::fresh_bucket(), tempfile::tempdir().unwrap());
    let file = scratch.path().join("ca.pem");
    for content in ["", "no pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&file, content).unwrap();
        let settings = StoreSettings { ca_file: Some(file.clone()), ..settings(&bucket, &scratch) };
        let error = run(storage::open(&settings)).err().unwrap();
        assert_eq!(error.code(), Code::Config, "{content}");
    }
}

#[test]
fn what_a_store_can_do_is_seen_and_nothing_stays() {
    let (bucket, scratch) = (S3::fresh_bucket(), tempfile::tempdir().unwrap());
    let seen = run(probe(&settings(&bucket, &scratch), "probe/1")).unwrap();
    // What is true of Ceph 16, which is what the tests' server is.
    assert_eq!(seen.list_after_write, Ability::Yes);
    assert_eq!(seen.ranged_get, Ability::Yes);
    assert_eq!(seen.multipart, Ability::Yes);
    assert_eq!(seen.conditional_put, Ability::Yes);
    assert_eq!(seen.delete, Ability::Yes);
    assert_eq!(seen.list_unfinished, Ability::Yes);
    assert_eq!(bucket.list(""), Vec::<String>::new());
}

/// A store that keeps what is put, whatever the conditions: what Garage does with `If-None-Match`.
fn ignores_conditions() -> Scripted {
    let kept: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::default();
    Scripted::new(move |request, _| {
        let (method, path) = request.line.split_once(' ').unwrap();
        let (key, query) = path.split_once('?').unwrap_or((path, ""));
        let mut kept = kept.lock().unwrap();
        match (method, kept.get(key)) {
            ("PUT", _) => {
                kept.insert(key.to_owned(), request.body.clone());
                Answer::say(200, "")
            }
            ("HEAD", Some(bytes)) => Answer::say(200, "").announcing(bytes.len()),
            ("HEAD", None) => Answer::say(404, ""),
            ("DELETE", _) => {
                kept.remove(key);
                Answer::say(204, "")
            }
            ("GET", _) if query.contains("list-type") => {
                let row = |(key, bytes): (&String, &Vec<u8>)| {
                    let key = key.strip_prefix("/bucket/").unwrap();
                    format!("<Contents><Key>{key}</Key><Size>{}</Size></Contents>", bytes.len())
                };
                let rows: String = kept.iter().map(row).collect();
                Answer::say(200, format!("<ListBucketResult>{rows}</ListBucketResult>"))
            }
            ("GET", Some(bytes)) => Answer::say(200, bytes),
            ("GET", None) => Answer::error(404, "NoSuchKey"),
            _ => Answer::error(501, "NotImplemented"),
        }
    })
}

#[test]
fn what_a_store_cannot_do_is_seen_too() {
    let (server, scratch) = (ignores_conditions(), tempfile::tempdir().unwrap());
    let seen = run(probe(&server.settings(&scratch), "probe")).unwrap();
    for (ability, why) in
        [(&seen.conditional_put, "ignored"), (&seen.ranged_get, "range"), (&seen.multipart, "does not know")]
    {
        let Ability::No(reason) = ability else { panic!("{why}: {seen:?}") };
        assert!(reason.contains(why), "{reason}");
    }
    assert_eq!(seen.list_after_write, Ability::Yes);
    assert_eq!(seen.delete, Ability::Yes);
}

#[test]
fn what_a_killed_writer_left_is_swept_once_it_is_old() {
    let (bucket, scratch) = (S3::fresh_bucket(), tempfile::tempdir().unwrap());
    let settings = settings(&bucket, &scratch);
    run(async {
        let store = storage::open(&settings).await.unwrap();
        let mut upload = store.upload("left").await.unwrap();
        upload.write(vec![1; PART + 1].into()).await.unwrap();
        // As if the process had been killed: nobody aborts.
        std::mem::forget(upload);
    });
    assert_eq!(bucket.unfinished_uploads().len(), 1);
    let sweep =
        |age| run(async { storage::open(&settings).await.unwrap().sweep_unfinished(age).await.unwrap() });
    assert_eq!(sweep(Duration::from_hours(24)), 0);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(sweep(Duration::ZERO), 1);
    assert_eq!(bucket.unfinished_uploads(), Vec::<String>::new());
}
