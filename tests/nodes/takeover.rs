//! A stream that is begun on one node, gone on with on a second, and finished by a third: each dies by SIGKILL, and all that
//! they share is the bucket and the database.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    client::Ask,
    cluster::{Cluster, Node, PREFIX, Setup},
    film::CHUNK,
    inspect::S3,
    proxy::{Fault, Kind},
    runtime, setup,
    stream::{self, Files, at_work, check_whole, reached, runs, video},
};

const TOKEN: &str = "user-0";
const SECONDS: u32 = 12;
/// Renditions of a video of 640x480: 480p and 360p.
const RENDITIONS: usize = 2;
/// Each file takes this long to store: what is half-made stays so long enough to be seen.
const SLOW: Duration = Duration::from_millis(500);
/// How long a node may take until it has got as far as it is waited for.
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn a_stream_outlives_the_nodes_that_make_it() {
    if super::rounds("moto").is_none() {
        println!("not asked for: NODES_ROUNDS says so");
        return;
    }
    if !stream::has_ffmpeg() {
        println!("skipped: there is no ffmpeg");
        return;
    }
    let began = Instant::now();
    runtime().block_on(async {
        let setup = Setup {
            streams: true,
            ..setup("moto", 1)
        };
        let slow = |kind: Kind, _: u64| match kind {
            Kind::Put => Fault::Delay(SLOW),
            _ => Fault::None,
        };
        let Some(mut cluster) = Cluster::start(&setup, &[TOKEN.to_owned()], slow).await else {
            return;
        };
        let id = upload(&cluster.nodes[0], &video("640x480", SECONDS)).await;

        // One rendition is listed, and ffmpeg is at work on the next.
        until(&cluster, "one rendition, and work on the next", async |cluster| {
            folders(cluster, &id).await.len() == 1 && is_busy(&cluster.nodes[0])
        })
        .await;
        cluster.nodes[0].kill();
        let kept = folders(&cluster, &id).await;
        whole_so_far(&cluster, &id).await;

        // The second node kept it, and has stored part of the next.
        cluster.store_faults.record.harm(true);
        until(&cluster, "a second node at work", async |cluster| !half_made(cluster, &kept).is_empty()).await;
        let second = (1..3).find(|n| !runs(&cluster.nodes[*n].work()).is_empty()).unwrap();
        cluster.nodes[second].kill();
        cluster.store_faults.record.harm(false);
        let half = half_made(&cluster, &kept);
        assert_eq!(half.len(), 1, "{half:?}");
        assert_eq!(folders(&cluster, &id).await, kept, "what is half-made is not listed");
        whole_so_far(&cluster, &id).await;

        // The third one finishes it, and deletes what the second one left.
        until(&cluster, "the end", async |cluster| outcome(cluster, &id).await == "finished").await;
        let files = files(&cluster, &id).await;
        check_whole(&files, RENDITIONS, f64::from(SECONDS));
        let all = folders(&cluster, &id).await;
        assert!(all.is_superset(&kept) && all.is_disjoint(&half), "{kept:?}, {half:?}, {all:?}");
        let there: BTreeSet<String> = below(&cluster).collect();
        assert_eq!(there, files.into_keys().collect(), "nothing besides is in the bucket");
        let third = 3 - second;
        assert!(!is_busy(&cluster.nodes[third]) && runs(&cluster.nodes[third].work()).is_empty());
        println!(
            "moto: two nodes of three killed, one while ffmpeg worked and one while it stored: the third finished the stream, {:.0} s",
            began.elapsed().as_secs_f64()
        );
    });
}

async fn until(cluster: &Cluster, what: &str, is_so: impl AsyncFn(&Cluster) -> bool) {
    let late = Instant::now() + PATIENCE;
    while !is_so(cluster).await {
        assert!(Instant::now() < late, "not in time: {what}\n{}", cluster.logs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_busy(node: &Node) -> bool {
    !at_work(&node.work()).is_empty()
}

async fn ask(node: &Node, ask: Ask<'_>) -> Vec<u8> {
    let line = ask.line.clone();
    let reply = ask.send(SocketAddr::from(([127, 0, 0, 1], node.port))).await.reply;
    let reply = reply.unwrap_or_else(|| panic!("no answer to {line}"));
    assert!(reply.is_success(), "{line}: {}", reply.brief());
    reply.body
}

/// By this node, which makes the stream then; answers the upload's id.
async fn upload(node: &Node, bytes: &[u8]) -> String {
    assert!(bytes.len() <= CHUNK);
    let new = json!({"fileName": "film.mkv", "fileSize": bytes.len(), "chunkSize": CHUNK}).to_string();
    let create = Ask::new("POST uploads/", TOKEN).header("Content-Type", "application/json");
    let made: serde_json::Value = serde_json::from_slice(&ask(node, create.body(new.as_bytes())).await).unwrap();
    let id = made["data"]["upload_id"].as_str().unwrap().to_owned();
    ask(node, Ask::new(format!("PUT uploads/{id}/chunks/0"), TOKEN).body(bytes)).await;
    ask(node, Ask::new(format!("POST uploads/{id}/assemble/"), TOKEN)).await;
    id
}

/// What became of the hook, as a node that lives tells it.
async fn outcome(cluster: &Cluster, id: &str) -> String {
    let node = cluster.nodes.iter().find(|node| node.is_started()).unwrap();
    let body = ask(node, Ask::new(format!("GET uploads/{id}/"), TOKEN)).await;
    let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let hooks = status["data"]["hooks"].as_array().unwrap().iter();
    let state = hooks
        .filter(|hook| hook["name"] == "hls")
        .find_map(|hook| hook["state"].as_str());
    state.unwrap_or_default().to_owned()
}

/// A file of the stream, as a player has it from a node that lives.
async fn read(cluster: &Cluster, id: &str, name: &str) -> Option<Vec<u8>> {
    let node = cluster.nodes.iter().find(|node| node.is_started()).unwrap();
    let ask = Ask::new(format!("GET media/{id}/hls/{name}"), TOKEN);
    let reply = ask
        .send(SocketAddr::from(([127, 0, 0, 1], node.port)))
        .await
        .reply
        .unwrap();
    match reply.status {
        404 => None,
        _ => {
            assert!(reply.is_success(), "{name}: {}", reply.brief());
            Some(reply.body)
        }
    }
}

/// All that the master playlist leads to, and the poster; each of them is there.
async fn files(cluster: &Cluster, id: &str) -> Files {
    let mut files = Files::new();
    for name in ["master.m3u8", "poster.jpg"] {
        files.extend(read(cluster, id, name).await.map(|bytes| (name.to_owned(), bytes)));
    }
    // Each look finds the names that the files read so far lead to.
    loop {
        let missing = std::cell::RefCell::new(None);
        let found = reached(|name| {
            let file = files.get(name).cloned();
            if file.is_none() {
                missing.borrow_mut().get_or_insert(name.to_owned());
            }
            file
        });
        let Some(name) = missing.into_inner() else { return files };
        let bytes = read(cluster, id, &name).await;
        files.insert(name, bytes.unwrap_or_else(|| panic!("{found:?}")));
    }
}

async fn whole_so_far(cluster: &Cluster, id: &str) {
    let files = files(cluster, id).await;
    reached(|name| files.get(name).cloned()).unwrap();
}

/// The folders of the renditions that are listed.
async fn folders(cluster: &Cluster, id: &str) -> BTreeSet<String> {
    let master = read(cluster, id, "master.m3u8").await.unwrap_or_default();
    let lines = String::from_utf8(master).unwrap();
    let lines = lines.lines().filter_map(|line| line.strip_suffix("/index.m3u8"));
    lines.map(str::to_owned).collect()
}

/// The names of all derived files in the bucket.
fn below(cluster: &Cluster) -> impl Iterator<Item = String> {
    let folder = format!("{PREFIX}/");
    let keys = S3::of(cluster).objects().into_iter();
    keys.filter_map(move |key| {
        let (_, name) = key
            .strip_prefix(&folder)?
            .strip_prefix("videos/hls/")?
            .split_once('/')?;
        Some(name.to_owned())
    })
}

/// Folders in the bucket that hold segments and, so far, no playlist; without those that are listed.
fn half_made(cluster: &Cluster, listed: &BTreeSet<String>) -> BTreeSet<String> {
    let names: BTreeSet<String> = below(cluster).collect();
    let folders = names.iter().filter_map(|name| Some(name.split_once('/')?.0.to_owned()));
    folders
        .filter(|folder| !listed.contains(folder) && !names.contains(&format!("{folder}/index.m3u8")))
        .collect()
}
