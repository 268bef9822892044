//! A fresh cluster for dumps and exports: the server's own `initdb`, a socket that only we reach, in a locked place.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::model::PgMajor;
use crate::postgres::connect_to;
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::databases::NewDatabase;
use crate::postgres::instance::Scratch;
use crate::postgres::service::PidFile;
use crate::postgres::session::Session;
use crate::postgres::tools::Tools;
use crate::restore::scratch::{self, Place};
use crate::verify::drill::Drill;

const SUPERUSER: &str = "postgres";
/// Where exports are loaded.
const EXPORTS: &str = "pgkeep_exports";

/// It runs until it is removed.
pub(super) struct Cluster {
    place: Place,
    server: Scratch,
    socket: PathBuf,
    port: u16,
}

pub(super) async fn make(test: &Drill<'_>, major: PgMajor) -> Result<Cluster> {
    test.progress.phase("making a fresh cluster");
    let tools = Tools::find(major, test.cluster.bin_directory.as_deref(), None).await?;
    let tools = tools.at(test.priority());
    let directory = scratch::choose(&test.scratch, test.purpose(), test.clock.now());
    let place = Place::make(&directory, &test.owner).await?;
    // What goes away with the place, also after a kill; its own path is shorter than the cluster's.
    let short = scratch::socket_directory(&directory).unwrap_or_else(|| directory.clone());
    let server = Scratch::create(&tools, &test.owner, &place.directory, Some(&short), &[]).await?;
    let data = server.data_directory();
    let gone = || Error::internal("a server that was just opened has no socket");
    let file = PidFile::read(&data)?.ok_or_else(gone)?;
    let socket = data.join(file.socket_dir.ok_or_else(gone)?);
    Ok(Cluster { place, server, socket, port: file.port })
}

impl Cluster {
    /// As a connection string, whatever the directory is called.
    pub(super) fn conninfo(&self) -> String {
        let quoted = self.socket.display().to_string().replace('\\', "\\\\").replace('\'', "\\'");
        format!("host='{quoted}' port={} user={SUPERUSER} dbname=postgres", self.port)
    }
    pub(super) async fn connect(&self, database: &str) -> Result<Session> {
        connect_to(&ConnInfo::socket(&self.socket, self.port, SUPERUSER, database)).await
    }
    /// In a database of the encoding of the one that was exported: text has its length in characters there, and JSON its
    /// escapes.
    pub(super) async fn for_exports(&self, encoding: &str) -> Result<Session> {
        let control = self.connect("template1").await?;
        control.drop_database(EXPORTS).await?;
        let plain = NewDatabase {
            name: EXPORTS,
            encoding,
            collate: "C",
            ctype: "C",
            locale_provider: "c",
            locale: None,
            icu_rules: None,
            tablespace: None,
        };
        control.create_database(&plain).await?;
        self.connect(EXPORTS).await
    }
    pub(super) async fn remove(self) -> Result<()> {
        let Self { place, server, .. } = self;
        let directory = place.directory.clone();
        let stopped = server.remove().await;
        let removed = place.remove().await.map_err(|e| scratch::left_behind(&directory, &e));
        stopped.and(removed)
    }
}
