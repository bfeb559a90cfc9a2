//! A client with one file: it sends it by its dialect, tries again as a real one does, and compares all it is told.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    client::{Ask, End, Reply},
    history::{self, View},
    wire::{self, Numbers},
};

/// How large a chunk is: what S3 takes.
pub(crate) const CHUNK: usize = 5 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Chunks,
    Tus,
    /// Interop version 6.
    Ietf,
}

pub(crate) const DIALECTS: [Dialect; 3] = [Dialect::Chunks, Dialect::Tus, Dialect::Ietf];

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Of the proxy in front of the nodes.
    pub(crate) proxy: SocketAddr,
    /// Requests that were under way with a body, or are.
    pub(crate) under_way: AtomicUsize,
    /// Requests that ended without an answer of a node.
    pub(crate) cut: AtomicUsize,
    pub(crate) requests: AtomicUsize,
    /// Answers that asked for patience.
    pub(crate) troubles: AtomicUsize,
    pub(crate) acknowledged: AtomicU64,
    /// Everything that contradicts.
    pub(crate) violations: Mutex<Vec<String>>,
}

impl Shared {
    pub(crate) fn new(proxy: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            proxy,
            under_way: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            troubles: AtomicUsize::new(0),
            acknowledged: AtomicU64::new(0),
            violations: Mutex::default(),
        })
    }

    pub(crate) fn violation(&self, what: impl Into<String>) {
        self.violations.lock().unwrap().push(what.into());
    }

    async fn send(&self, ask: Ask<'_>) -> End {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let has_body = !ask.body.is_empty();
        if has_body {
            self.under_way.fetch_add(1, Ordering::SeqCst);
        }
        let end = ask.send(self.proxy).await;
        if has_body {
            self.under_way.fetch_sub(1, Ordering::SeqCst);
        }
        match &end.reply {
            // What the proxy says in place of a node.
            None if ask.leaves_at.is_none() => drop(self.cut.fetch_add(1, Ordering::SeqCst)),
            Some(reply) if reply.status == 502 || reply.status == 504 => drop(self.cut.fetch_add(1, Ordering::SeqCst)),
            Some(reply) if reply.is_trouble() => drop(self.troubles.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
        end
    }
}

/// The file, and what its client was told.
#[derive(Debug)]
pub(crate) struct Film {
    pub(crate) dialect: Dialect,
    pub(crate) token: String,
    pub(crate) known: history::Film,
    content: Vec<u8>,
    /// Where tus and the IETF's protocol have it: a path.
    url: Option<String>,
    /// The end of what was ever given to a socket.
    sent: u64,
    /// The furthest end that was told.
    told: u64,
    /// The client leaves for ever when so many bytes were sent.
    pub(crate) leaves_at: Option<u64>,
    pub(crate) is_done: bool,
    /// It came to an end that nobody wanted.
    pub(crate) is_over: bool,
    numbers: Numbers,
    shared: Arc<Shared>,
}

/// Why a step is not done.
enum Trouble {
    /// It may be tried again.
    Later,
    Wrong(String),
}

type Step<T = ()> = Result<T, Trouble>;

impl Film {
    pub(crate) fn new(dialect: Dialect, n: usize, token: &str, len: usize, seed: u64, shared: &Arc<Shared>) -> Self {
        let known = history::Film::new(token, n, len, CHUNK, false, seed);
        Self {
            dialect,
            token: token.to_owned(),
            content: known.content(),
            known,
            url: None,
            sent: 0,
            told: 0,
            leaves_at: None,
            is_done: false,
            is_over: false,
            numbers: Numbers::new(seed ^ 0xF11A),
            shared: Arc::clone(shared),
        }
    }

    pub(crate) fn id(&self) -> Option<&str> {
        match self.dialect {
            Dialect::Chunks => self.known.id.as_deref(),
            _ => self.url.as_deref()?.rsplit('/').next(),
        }
    }

    fn ask(&self, line: impl Into<String>) -> Ask<'_> {
        let ask = Ask::new(line, &self.token);
        match self.dialect {
            Dialect::Chunks => ask,
            Dialect::Tus => ask.header("Tus-Resumable", "1.0.0"),
            Dialect::Ietf => ask.header("Upload-Draft-Interop-Version", "6"),
        }
    }

    fn wrong<T>(&self, what: &str, reply: &Reply) -> Step<T> {
        Err(Trouble::Wrong(format!(
            "{what}: {}; client: {:?}, {:?}, sent {}, told {}, {:?}",
            reply.brief(),
            self.dialect,
            self.url,
            self.sent,
            self.told,
            self.known
        )))
    }

    /// Sends until it is done, the client leaves, or `deadline` has passed.
    pub(crate) async fn run(mut self, deadline: Instant) -> Self {
        while !self.is_done && !self.is_over && Instant::now() < deadline {
            if self.leaves_at.is_some_and(|at| self.sent >= at) {
                break;
            }
            let step = match self.dialect {
                Dialect::Chunks => self.by_chunks().await,
                _ => self.by_appends().await,
            };
            match step {
                Ok(()) => {}
                Err(Trouble::Later) => {
                    let wait = Duration::from_millis(self.numbers.between(50..=400) as u64);
                    tokio::time::sleep(wait).await;
                }
                Err(Trouble::Wrong(what)) => {
                    self.shared.violation(what);
                    self.is_over = true;
                }
            }
        }
        self
    }

    /// A success, or what it is instead.
    fn settled(&self, reply: Option<Reply>) -> Step<Reply> {
        match reply {
            None => Err(Trouble::Later),
            Some(reply) if reply.is_trouble() => Err(Trouble::Later),
            Some(reply) if reply.is_success() => Ok(reply),
            Some(reply) => self.wrong("a refusal that nobody expected", &reply),
        }
    }

    // ---- the chunk API

    async fn by_chunks(&mut self) -> Step {
        if self.known.id.is_none() {
            let body = json!({"fileName": self.known.name, "fileSize": self.known.len, "chunkSize": CHUNK}).to_string();
            let ask = self.ask("POST uploads/").header("Content-Type", "application/json");
            let end = self.shared.send(ask.body(body.as_bytes())).await;
            let reply = self.settled(end.reply)?;
            self.known.id = Some(reply.json()["data"]["upload_id"].as_str().unwrap().to_owned());
        }
        let mut missing = match self.survey().await? {
            View::Unfinished { missing, .. } => missing,
            View::Published => {
                self.is_done = true;
                return Ok(());
            }
            view => return Err(Trouble::Wrong(format!("it ended as {view:?}: {:?}", self.known))),
        };
        for at in (1..missing.len()).rev() {
            missing.swap(at, self.numbers.below(at + 1));
        }
        // Also what is stored already is sent again now and then.
        if let Some(again) = self.known.acknowledged.first().filter(|_| self.numbers.one_in(4)) {
            missing.push(*again);
        }
        if missing.is_empty() {
            return self.assemble().await;
        }
        for three in missing.chunks(3) {
            let mut asks = Vec::new();
            for index in three {
                asks.push((*index, self.pace(), self.leaves(CHUNK)));
            }
            let (film, id) = (&*self, self.known.id.as_ref().unwrap());
            let sending = asks.into_iter().map(async |(index, pace, leaves_at): (u32, _, _)| {
                let begin = index as usize * CHUNK;
                let bytes = &film.content[begin..begin + film.known.chunk_len(index)];
                let ask = Ask {
                    pace,
                    leaves_at,
                    ..film.ask(format!("PUT uploads/{id}/chunks/{index}")).body(bytes)
                };
                (index, bytes.len(), film.shared.send(ask).await)
            });
            let ends = futures_util::future::join_all(sending).await;
            let mut later = false;
            for (index, len, end) in ends {
                self.sent += end.sent as u64;
                if end.sent == len {
                    self.known.sent.insert(index);
                }
                match self.settled(end.reply) {
                    Ok(_) => {
                        self.known.acknowledged.insert(index);
                        self.shared.acknowledged.fetch_add(len as u64, Ordering::Relaxed);
                    }
                    Err(Trouble::Later) => later = true,
                    Err(wrong) => return Err(wrong),
                }
            }
            if later {
                return Err(Trouble::Later);
            }
        }
        Ok(())
    }

    async fn survey(&mut self) -> Step<View> {
        let line = format!("GET uploads/{}/", self.known.id.as_ref().unwrap());
        let end = self.shared.send(self.ask(line)).await;
        let reply = self.settled(end.reply)?;
        let status = wire::Reply {
            status: reply.status,
            json: reply.json(),
        };
        self.known.check_status(&status).map_err(Trouble::Wrong)
    }

    async fn assemble(&mut self) -> Step {
        let line = format!("POST uploads/{}/assemble/", self.known.id.as_ref().unwrap());
        let end = self.shared.send(self.ask(line)).await;
        let reply = self.settled(end.reply)?;
        let path = reply.json()["data"]["video_path"].as_str().unwrap().to_owned();
        self.known.published = Some(path);
        self.is_done = true;
        Ok(())
    }

    /// Some requests are slow.
    fn pace(&mut self) -> Option<(usize, Duration)> {
        let slow = self.numbers.one_in(3);
        let pause = Duration::from_micros(self.numbers.next() % 40_000);
        slow.then_some((256 << 10, pause))
    }

    /// And now and then the connection of a client breaks.
    fn leaves(&mut self, len: usize) -> Option<usize> {
        self.numbers.one_in(12).then(|| self.numbers.below(len))
    }

    // ---- tus and the IETF's protocol

    async fn by_appends(&mut self) -> Step {
        let size = self.content.len() as u64;
        if self.url.is_none() {
            let ask = self.ask("POST files/").header("Upload-Length", size.to_string());
            let ask = match self.dialect {
                Dialect::Tus => ask.header("Upload-Metadata", "filename dGFsay5tcDQ="),
                _ => ask.header("Upload-Complete", "?0"),
            };
            let end = self.shared.send(ask).await;
            let reply = self.settled(end.reply)?;
            let Some(url) = reply.header("location") else {
                return self.wrong("a creation without a place", &reply);
            };
            // Path only: the proxy is where it was.
            let path = url
                .split_once("://")
                .map_or(url, |(_, rest)| &rest[rest.find('/').unwrap_or(0)..]);
            self.url = Some(path.to_owned());
        }
        let offset = self.offset().await?;
        if self.is_done {
            return Ok(());
        }
        let rest = size - offset;
        let len = match self.numbers.below(3) {
            0 => rest,
            _ => rest.min(self.numbers.between(1..=6 << 20) as u64),
        };
        if rest > 0 && self.numbers.one_in(8) {
            return self.race(offset, rest).await;
        }
        let (pace, leaves_at) = (self.pace(), self.leaves(len.max(1) as usize));
        let ask = self.append(offset, len, pace, leaves_at);
        let end = self.shared.send(ask).await;
        self.appended(offset, len, end)
    }

    fn append(&self, offset: u64, len: u64, pace: Option<(usize, Duration)>, leaves_at: Option<usize>) -> Ask<'_> {
        let (from, to) = (offset as usize, (offset + len) as usize);
        let ask = self.ask(format!("PATCH {}", self.url.as_ref().unwrap()));
        let ask = ask
            .header("Upload-Offset", offset.to_string())
            .body(&self.content[from..to]);
        let ask = match self.dialect {
            Dialect::Tus => ask.header("Content-Type", "application/offset+octet-stream"),
            _ => ask
                .header("Content-Type", "application/partial-upload")
                .header("Upload-Complete", if to == self.content.len() { "?1" } else { "?0" }),
        };
        Ask { pace, leaves_at, ..ask }
    }

    /// Two requests want the same place, perhaps at two nodes.
    async fn race(&mut self, offset: u64, rest: u64) -> Step {
        let lens = [rest, rest.min(self.numbers.between(1..=4 << 20) as u64)];
        let pace = Some((128 << 10, Duration::from_millis(self.numbers.below(20) as u64)));
        let (one, two) = (
            self.append(offset, lens[0], pace, None),
            self.append(offset, lens[1], None, None),
        );
        let (one, two) = tokio::join!(self.shared.send(one), self.shared.send(two));
        let first = self.appended(offset, lens[0], one);
        let second = self.appended(offset, lens[1], two);
        first.and(second)
    }

    fn appended(&mut self, offset: u64, len: u64, end: End) -> Step {
        self.sent = self.sent.max(offset + end.sent as u64);
        let reply = end.reply.ok_or(Trouble::Later)?;
        match reply.status {
            // Somebody else was first: HEAD tells.
            409 => return Err(Trouble::Later),
            // Done by another request, and remembered or not.
            _ if reply.is_trouble() => return Err(Trouble::Later),
            _ if !reply.is_success() => return self.wrong("an append is refused", &reply),
            _ => {}
        }
        if end.sent as u64 != len {
            return self.wrong("a body that did not end was acknowledged", &reply);
        }
        if reply.offset().is_some_and(|told| told < offset + len) {
            return self.wrong("less is told than was acknowledged", &reply);
        }
        self.shared.acknowledged.fetch_add(len, Ordering::Relaxed);
        self.told = self.told.max(offset + len);
        Ok(())
    }

    async fn offset(&mut self) -> Step<u64> {
        let end = self
            .shared
            .send(self.ask(format!("HEAD {}", self.url.as_ref().unwrap())))
            .await;
        let reply = self.settled(end.reply)?;
        let Some(offset) = reply.offset() else {
            return self.wrong("no offset", &reply);
        };
        if offset < self.told {
            return self.wrong("an acknowledged byte is lost", &reply);
        }
        if offset > self.sent {
            return self.wrong("a byte is there that was not sent", &reply);
        }
        self.told = offset;
        let size = self.content.len() as u64;
        self.is_done = match self.dialect {
            Dialect::Tus => offset == size,
            _ => reply.header("upload-complete") == Some("?1"),
        };
        Ok(offset)
    }

    // ---- at the end

    /// Reads it back, from whichever node: it is what was sent. False: not yet.
    pub(crate) async fn check(&mut self) -> bool {
        let line = format!("GET uploads/{}/content", self.id().unwrap());
        let Some(reply) = self.shared.send(Ask::new(line, &self.token)).await.reply else {
            return false;
        };
        match reply.status {
            200 => {}
            // The driver assembles what tus and the IETF's protocol have sealed.
            409 => return false,
            _ if reply.is_trouble() => return false,
            _ => {
                let Err(Trouble::Wrong(what)) = self.wrong::<()>("it cannot be read", &reply) else {
                    unreachable!()
                };
                self.shared.violation(what);
                return true;
            }
        }
        if reply.body != self.content {
            let at = reply.body.iter().zip(&self.content).position(|(is, was)| is != was);
            self.shared.violation(format!(
                "{} bytes are published, {} were sent, the first difference is at {at:?}: {:?} {:?} {:?}",
                reply.body.len(),
                self.content.len(),
                self.dialect,
                self.id(),
                self.known
            ));
        }
        true
    }

    /// Tells whether the answer is that it is gone.
    pub(crate) async fn delete(&mut self) -> bool {
        let line = format!("DELETE uploads/{}/", self.id().unwrap());
        let reply = self.shared.send(Ask::new(line, &self.token)).await.reply;
        reply.is_some_and(|reply| reply.status == 204)
    }
}
