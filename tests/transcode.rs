//! The axum example is killed (SIGKILL) at random while it makes HLS streams: afterwards every event was told, and there is
//! exactly one whole stream of each video, and nothing else.
//!
//! `TRANSCODE_ROUNDS` kills (3 unless said otherwise); `TRANSCODE_SEED` repeats the moments of a run.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "examples/client.rs"]
#[allow(dead_code)]
mod client;
mod stream;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use client::{Connection, JSON, Reply, head};
use serde_json::json;
use stream::{at_work, check_whole, files_below, reached, runs, video, zombies};
use tower_upload::{Caller, Uploads, access::OwnerOnly, metadata::Page, upload::Key};

const TOKEN: &str = "canary-alice-7b1f";
const SECONDS: u32 = 8;
/// How long one may wait for a stream, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(180);

/// The server as a process; its data outlives it.
struct Server {
    child: Option<Child>,
    address: String,
    data: tempfile::TempDir,
}

impl Server {
    fn new() -> Self {
        let mut server = Self {
            child: None,
            address: "127.0.0.1:0".to_owned(),
            data: tempfile::tempdir().unwrap(),
        };
        server.start();
        server
    }

    fn log(&self) -> PathBuf {
        self.data.path().join("log")
    }

    fn work(&self) -> PathBuf {
        self.data.path().join("transcode")
    }

    /// The same port each time; what it says is in a file, which the kernel keeps when it dies.
    fn start(&mut self) {
        let log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.log())
            .unwrap();
        let test = std::env::current_exe().unwrap();
        let program = test.parent().unwrap().parent().unwrap().join("examples/axum");
        assert!(program.exists(), "cargo build --example axum --features ffmpeg");
        let said = self.said().len();
        let child = Command::new(program)
            .args(["--listen", &self.address, "--hls", "--lease=2", "--data"])
            .arg(self.data.path())
            .arg(format!("--token={TOKEN}=alice"))
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
        let late = Instant::now() + Duration::from_secs(30);
        loop {
            let text = self.said();
            let line = text[said..]
                .lines()
                .find_map(|line| line.strip_prefix("listening on http://"));
            if let Some(address) = line {
                self.address = address.to_owned();
                return;
            }
            assert!(Instant::now() < late, "it does not listen: {}", &text[said..]);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// By SIGTERM, as one does.
    fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -TERM {}", child.id())])
            .status();
        assert!(sent.unwrap().success());
        assert!(child.wait().unwrap().success());
    }

    async fn ask(&self, ask: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Reply {
        let len = body.as_ref().len().to_string();
        let mut all = headers.to_vec();
        all.push(("Content-Length", &len));
        let mut connection = Connection::open(&self.address).await;
        connection.write(head(ask, TOKEN, &all)).await;
        connection.write(body).await;
        connection.reply().await.unwrap_or_else(|| panic!("no answer to {ask}"))
    }

    /// Uploads a video and answers its id and that of the upload.
    async fn upload(&self, bytes: &[u8]) -> (u64, String) {
        let made = self
            .ask("POST create-video/", &[JSON], json!({"title": "Film"}).to_string())
            .await;
        let video = made.data()["id"].as_u64().unwrap();
        let body = json!({"fileName": "film.mkv", "fileSize": bytes.len(), "chunkSize": 1 << 20, "videoId": video});
        let made = self.ask("POST uploads/", &[JSON], body.to_string()).await;
        let id = made.data()["upload_id"].as_str().unwrap().to_owned();
        for (index, chunk) in bytes.chunks(1 << 20).enumerate() {
            let put = self.ask(&format!("PUT uploads/{id}/chunks/{index}"), &[], chunk).await;
            assert_eq!(put.status, 200, "{}", put.text());
        }
        let assembled = self.ask(&format!("POST uploads/{id}/assemble/"), &[], "").await.data();
        assert_eq!(
            assembled["message"],
            "Video assembled successfully. HLS conversion in progress."
        );
        (video, id)
    }

    /// The kinds of events that were told of an upload, each once, in the order of the first time.
    fn told(&self, upload: &str) -> Vec<String> {
        let mut kinds = Vec::new();
        for line in self
            .said()
            .lines()
            .filter(|line| line.contains(&format!("event={upload}-")))
        {
            // Spans come before it, and may name the kind too.
            let Some((_, told)) = line.rsplit_once("told event=") else {
                continue;
            };
            let kind = told.split("kind=").nth(1).unwrap().trim().to_owned();
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds
    }

    fn has_finished(&self, upload: &str) -> bool {
        self.told(upload).iter().any(|kind| kind == "hook-finished")
    }

    fn folder(&self, video: u64, upload: &str) -> PathBuf {
        let path = format!("blobs/videos/hls/{video}/{}", Key::segment(upload));
        self.data.path().join(path)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- it said:\n{}", self.said());
        }
    }
}

/// Below `bound`, by xorshift.
fn random(state: &mut u64, bound: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % bound
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// What is listed is there at any moment, also between a kill and the next start.
fn nothing_half_made(folder: &Path) {
    if folder.join("master.m3u8").exists() {
        reached(|name| std::fs::read(folder.join(name)).ok()).unwrap();
    }
}

async fn nothing_runs(work: &Path) {
    let late = Instant::now() + Duration::from_secs(10);
    while !at_work(work).is_empty() {
        assert!(Instant::now() < late, "still at work: {:?}", at_work(work));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn killed_at_any_moment_it_makes_exactly_one_whole_stream() {
    if !stream::has_ffmpeg() {
        return;
    }
    let rounds = variable("TRANSCODE_ROUNDS").unwrap_or(3);
    let clock = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let seed = variable("TRANSCODE_SEED").unwrap_or(u64::from(clock.subsec_nanos())) | 1;
    println!("TRANSCODE_SEED={seed} TRANSCODE_ROUNDS={rounds}");
    let mut state = seed;
    for _ in 0..8 {
        random(&mut state, 2);
    }
    let film = video("640x480", SECONDS);
    let mut server = Server::new();
    // How long an undisturbed one takes says when there is something to kill.
    let began = Instant::now();
    let (video, upload) = server.upload(&film).await;
    finished(&server, &upload).await;
    let usual = u64::try_from(began.elapsed().as_millis()).unwrap();
    check(&server, video, &upload).await;

    let (mut kills, mut at_work_then, mut made) = (0, 0, 1);
    while kills < rounds {
        let (video, upload) = server.upload(&film).await;
        made += 1;
        loop {
            let moment = Instant::now() + Duration::from_millis(random(&mut state, usual));
            while Instant::now() < moment && !server.has_finished(&upload) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // Most of them meet ffmpeg at its work, the others whatever there is between.
            if random(&mut state, 3) > 0 {
                while at_work(&server.work()).is_empty() && !server.has_finished(&upload) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            if server.has_finished(&upload) {
                break;
            }
            at_work_then += u64::from(!at_work(&server.work()).is_empty());
            server.kill();
            kills += 1;
            nothing_runs(&server.work()).await;
            nothing_half_made(&server.folder(video, &upload));
            server.start();
            if kills >= rounds || random(&mut state, 3) > 0 {
                break;
            }
        }
        finished(&server, &upload).await;
        check(&server, video, &upload).await;
    }
    println!("{kills} kills, {at_work_then} with ffmpeg at work; {made} videos, {usual} ms each undisturbed");
    assert!(at_work_then * 2 >= kills, "too few kills met a run");

    server.stop();
    nothing_runs(&server.work()).await;
    assert_eq!(runs(&server.work()), Vec::<PathBuf>::new());
    let left = std::fs::read_dir(server.work()).unwrap().count();
    assert_eq!(left, 0, "directories of processes that are gone");
    assert!(files_below(&server.data.path().join("partial")).is_empty());
    all_told(server.data.path(), made).await;
}

/// Waits until the stream is said to be finished.
async fn finished(server: &Server, upload: &str) {
    let late = Instant::now() + PATIENCE;
    while !server.has_finished(upload) {
        assert!(Instant::now() < late, "no stream in time: {:?}", server.told(upload));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn check(server: &Server, video: u64, upload: &str) {
    assert_eq!(server.told(upload), ["created", "assembled", "hook-finished"]);
    check_whole(&files_below(&server.folder(video, upload)), 2, f64::from(SECONDS));
    nothing_runs(&server.work()).await;
    assert_eq!(zombies(server.pid()), Vec::<String>::new());
    assert_eq!(runs(&server.work()), Vec::<PathBuf>::new());
    // Of all processes before only the directory of the one that lives is there.
    assert_eq!(std::fs::read_dir(server.work()).unwrap().count(), 1);
    let status = server.ask(&format!("GET uploads/{upload}/"), &[], "").await.data();
    assert_eq!(status["state"], "assembled");
}

/// The records owe nobody anything.
async fn all_told(data: &Path, uploads: usize) {
    let engine = Uploads::open(data)
        .authorizer(OwnerOnly)
        .without_driver()
        .build()
        .await
        .unwrap();
    let found = engine.list(&Caller::new("alice"), Page::new(0, 1000)).await.unwrap();
    assert_eq!(found.len(), uploads);
    for upload in found {
        let record = upload.record();
        assert!(
            record.outbox.is_empty() && record.dead_letters.is_empty(),
            "{record:#?}"
        );
    }
    engine.shutdown(Duration::from_secs(5)).await;
}
