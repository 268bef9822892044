//! The S3 server that `scripts/test-s3` runs, seen from outside: with the SDK, without pgkeep's own code.

use std::sync::OnceLock;

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Region, RequestChecksumCalculation};
use aws_sdk_s3::primitives::ByteStream;
use tokio::runtime::Runtime;

/// A bucket of its own.
pub struct S3 {
    client: Client,
    runtime: Runtime,
    bucket: String,
    server: Server,
}

/// Where the server is, from the variables that `scripts/test-s3` prints.
#[derive(Debug, Clone)]
pub struct Server {
    /// `http://127.0.0.1:PORT`
    pub endpoint: String,
    /// `https://127.0.0.1:PORT`, with a certificate signed by the CA in `ca_file`.
    pub https_endpoint: String,
    pub ca_file: std::path::PathBuf,
    pub access_key: String,
    pub secret_key: String,
}

impl Server {
    pub fn from_env() -> Self {
        let var = |name: &str| {
            let name = format!("PGKEEP_TEST_S3_{name}");
            std::env::var(&name).unwrap_or_else(|_| {
                panic!("{name} is not set: run scripts/test, or `eval \"$(scripts/test-s3 start)\"` before")
            })
        };
        Self {
            endpoint: var("ENDPOINT"),
            https_endpoint: var("HTTPS_ENDPOINT"),
            ca_file: var("CA_FILE").into(),
            access_key: var("ACCESS_KEY"),
            secret_key: var("SECRET_KEY"),
        }
    }
}

impl S3 {
    pub fn fresh_bucket() -> Self {
        let server = Server::from_env();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(&server.endpoint)
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .credentials_provider(Credentials::new(
                &server.access_key,
                &server.secret_key,
                None,
                None,
                "test",
            ))
            .build();
        let client = Client::from_conf(config);
        let bucket = unique_name();
        let made = runtime.block_on(client.create_bucket().bucket(&bucket).send());
        made.unwrap_or_else(|e| panic!("the S3 server at {} does not make a bucket: {e:?}", server.endpoint));
        Self { client, runtime, bucket, server }
    }
    pub fn bucket(&self) -> &str {
        &self.bucket
    }
    pub fn server(&self) -> &Server {
        &self.server
    }
    pub fn endpoint(&self) -> &str {
        &self.server.endpoint
    }
    /// Keys below `prefix`, in order, all pages.
    pub fn list(&self, prefix: &str) -> Vec<String> {
        self.runtime.block_on(async {
            let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix);
            let mut pages = request.into_paginator().send();
            let mut keys = Vec::new();
            while let Some(page) = pages.next().await {
                keys.extend(page.unwrap().contents().iter().filter_map(|o| o.key().map(str::to_owned)));
            }
            keys
        })
    }
    pub fn get(&self, key: &str) -> Vec<u8> {
        self.runtime.block_on(async {
            let object = self.client.get_object().bucket(&self.bucket).key(key).send().await;
            object.unwrap().body.collect().await.unwrap().to_vec()
        })
    }
    pub fn put(&self, key: &str, bytes: &[u8]) {
        let request = self.client.put_object().bucket(&self.bucket).key(key);
        self.runtime.block_on(request.body(ByteStream::from(bytes.to_vec())).send()).unwrap();
    }
    pub fn delete(&self, key: &str) {
        let request = self.client.delete_object().bucket(&self.bucket).key(key);
        self.runtime.block_on(request.send()).unwrap();
    }
    /// Multipart uploads that were begun and neither completed nor aborted: they cost money.
    pub fn unfinished_uploads(&self) -> Vec<String> {
        let request = self.client.list_multipart_uploads().bucket(&self.bucket);
        let listed = self.runtime.block_on(request.send()).unwrap();
        listed.uploads().iter().filter_map(|u| u.key().map(str::to_owned)).collect()
    }
}

impl Drop for S3 {
    /// The server may be down by intention; the bucket is thrown away with it at the latest.
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("PGKEEP_TEST_KEEP").is_some() {
            return;
        }
        let _ = self.runtime.block_on(async {
            let mut pages = self.client.list_objects_v2().bucket(&self.bucket).into_paginator().send();
            while let Some(Ok(page)) = pages.next().await {
                for key in page.contents().iter().filter_map(|o| o.key()) {
                    let _ = self.client.delete_object().bucket(&self.bucket).key(key).send().await;
                }
            }
            self.client.delete_bucket().bucket(&self.bucket).send().await
        });
    }
}

fn unique_name() -> String {
    static COUNT: OnceLock<std::sync::atomic::AtomicU32> = OnceLock::new();
    let n = COUNT.get_or_init(Default::default).fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let random: u64 = rand::random();
    format!("t-{}-{n}-{random:012x}", std::process::id())
}
