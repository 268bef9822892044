//! A network that misbehaves on demand, between pgkeep and a real S3 server: faults that no real server produces
//! when asked. Plain HTTP/1.1; one request to a connection, so that every fault hits exactly the request it is for.
//!
//! The rules can be changed at any time; a request is judged when its head has arrived, by the first rule that
//! matches and strikes.

mod http;
mod relay;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

pub use http::Request;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Nothing: it passes.
    Pass,
    /// It passes this much later.
    Latency(Duration),
    /// Bodies in both directions go no faster than this many bytes a second.
    Bandwidth(u64),
    /// The connection is reset before the server has seen anything.
    ResetBefore,
    /// The connection is reset when half of the request's body has been passed on.
    ResetMidway,
    /// The server does the work; the connection is reset before its answer: nobody knows that it took effect.
    LoseAnswer,
    /// This status, with S3's error document, without the server seeing the request.
    Status(u16),
    /// The answer's body ends after half of its bytes, though its length was announced.
    CutBody,
    /// As `CutBody`, but the answer announces the shorter length: only the caller's own knowledge can tell.
    ShortBody,
    /// Accepted and never answered, until the caller gives up.
    Stall,
    /// Headers and half of the body, then silence.
    StallMidway,
}

type Filter = Arc<dyn Fn(&Request) -> bool + Send + Sync>;

/// A fault, and when it strikes.
#[derive(Clone)]
pub struct Rule {
    fault: Fault,
    probability: f64,
    filter: Filter,
    /// Requests that match but pass first.
    skip: u64,
    /// How often it strikes at most.
    times: u64,
}

impl Rule {
    pub fn always(fault: Fault) -> Self {
        Self { fault, probability: 1.0, filter: Arc::new(|_| true), skip: 0, times: u64::MAX }
    }
    pub fn sometimes(fault: Fault, probability: f64) -> Self {
        Self { probability, ..Self::always(fault) }
    }
    /// Only for requests of this method.
    pub fn method(self, method: &'static str) -> Self {
        self.only(move |r| r.method == method)
    }
    /// Only for requests whose path and query contain `part`.
    pub fn path(self, part: &str) -> Self {
        let part = part.to_owned();
        self.only(move |r| r.target.contains(&part))
    }
    pub fn only(mut self, filter: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        let before = self.filter;
        self.filter = Arc::new(move |r| before(r) && filter(r));
        self
    }
    /// Not for the first `n` matching requests.
    pub fn skip(mut self, n: u64) -> Self {
        self.skip = n;
        self
    }
    pub fn times(mut self, n: u64) -> Self {
        self.times = n;
        self
    }
}

/// What has passed so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub requests: u64,
    /// Requests that a rule other than `Pass` struck.
    pub struck: u64,
    /// Body bytes of requests and of answers.
    pub bytes_up: u64,
    pub bytes_down: u64,
    /// `METHOD target` of every request.
    pub log: Vec<String>,
}

struct State {
    rules: Vec<Rule>,
    counts: Counts,
    random: StdRng,
}

type Shared = Arc<Mutex<State>>;

/// The proxy; dropped, it is gone. Its runtime lives in threads of its own.
pub struct FaultProxy {
    address: SocketAddr,
    upstream: String,
    state: Shared,
    listener: Mutex<Option<JoinHandle<()>>>,
    // Last: everything above is shut down by its end.
    runtime: Runtime,
}

impl FaultProxy {
    /// In front of `endpoint` (`http://host:port`), on a free port.
    pub fn before(endpoint: &str) -> Self {
        let upstream = endpoint.strip_prefix("http://").expect("plain http").trim_end_matches('/').to_owned();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let bound = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = bound.local_addr().unwrap();
        let random = StdRng::seed_from_u64(20_261_121);
        let state = State { rules: Vec::new(), counts: Counts::default(), random };
        let state = Arc::new(Mutex::new(state));
        let proxy = Self { address, upstream, state, listener: Mutex::new(None), runtime };
        proxy.listen(bound);
        proxy
    }
    fn listen(&self, bound: TcpListener) {
        let task = accept(bound, self.upstream.clone(), Arc::clone(&self.state));
        *self.listener.lock().unwrap() = Some(self.runtime.spawn(task));
    }
    /// What to configure instead of the server's own endpoint.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
    pub fn rules(&self, rules: impl IntoIterator<Item = Rule>) {
        self.state.lock().unwrap().rules = rules.into_iter().collect();
    }
    /// One rule instead of all.
    pub fn rule(&self, rule: Rule) {
        self.rules([rule]);
    }
    /// Every request from now on.
    pub fn all(&self, fault: Fault) {
        self.rule(Rule::always(fault));
    }
    pub fn calm(&self) {
        self.rules([]);
    }
    /// New connections are refused, running ones end: the host is there, the service is not.
    pub fn down(&self) {
        if let Some(task) = self.listener.lock().unwrap().take() {
            task.abort();
            // The socket is closed only when the task is really gone.
            let _ = self.runtime.block_on(task);
        }
    }
    pub fn up(&self) {
        if self.listener.lock().unwrap().is_none() {
            self.listen(self.runtime.block_on(TcpListener::bind(self.address)).unwrap());
        }
    }
    pub fn counts(&self) -> Counts {
        self.state.lock().unwrap().counts.clone()
    }
    pub fn reset_counts(&self) {
        self.state.lock().unwrap().counts = Counts::default();
    }
}

async fn accept(bound: TcpListener, upstream: String, state: Shared) {
    // The connections end with this task.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = bound.accept() => {
                connections.spawn(relay::serve(client, upstream.clone(), Arc::clone(&state)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Counts the request and says what happens to it.
fn judge(state: &Shared, request: &Request) -> Fault {
    let mut state = state.lock().unwrap();
    let State { rules, counts, random } = &mut *state;
    counts.requests += 1;
    counts.log.push(format!("{} {}", request.method, request.target));
    for rule in rules {
        if !(rule.filter)(request) || rule.times == 0 {
            continue;
        }
        if rule.skip > 0 {
            rule.skip -= 1;
            continue;
        }
        if rule.probability >= 1.0 || random.random_bool(rule.probability) {
            rule.times -= 1;
            counts.struck += u64::from(rule.fault != Fault::Pass);
            return rule.fault;
        }
    }
    Fault::Pass
}
