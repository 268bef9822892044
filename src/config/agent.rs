//! `[agent]`: where the agent is asked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Section;

/// `[agent]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// The control socket.
    pub socket: PathBuf,
    /// Where metrics and health are served; None where they are turned off. Port 0 takes a free one.
    pub http: Option<SocketAddr>,
    /// Between two looks at a server and the disk of its pg_wal.
    pub server_interval: Duration,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/pgkeep/agent.sock"),
            http: Some(SocketAddr::from(([127, 0, 0, 1], 9797))),
            server_interval: Duration::from_secs(15),
        }
    }
}

/// `sun_path` has 108 bytes with the zero at its end (unix(7)).
const LONGEST_SOCKET: usize = 107;

const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_mins(2);

pub(super) fn read(section: Option<Section<'_>>) -> AgentConfig {
    let defaults = AgentConfig::default();
    let Some(mut section) = section else { return defaults };
    let socket = section.absolute_path("socket").unwrap_or(defaults.socket);
    if socket.as_os_str().len() > LONGEST_SOCKET {
        section.fault("socket", format!("a socket's path has at most {LONGEST_SOCKET} bytes"));
    }
    let http = match section.string("http").as_deref() {
        None => defaults.http,
        Some("none") => None,
        Some(text) => {
            let address = text.parse().ok();
            if address.is_none() {
                section.fault(
                    "http",
                    format!(
                        "`{text}` is no address such as \"127.0.0.1:9797\" or \"[::1]:9797\", nor \"none\""
                    ),
                );
            }
            address
        }
    };
    let server_interval = section.duration("server_interval").unwrap_or(defaults.server_interval);
    if !(SHORTEST..=LONGEST).contains(&server_interval) {
        section.fault("server_interval", "must be from 500ms to 2m");
    }
    section.finish();
    AgentConfig { socket, http, server_interval }
}
