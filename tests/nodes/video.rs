//! A real video by real clients, through the proxy, with every node killed once while it is on its way.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use super::{
    cluster::{Cluster, NODES},
    proxy::{Fault, Kind},
    runtime, setup,
};

const TOKEN: &str = "user-0";
/// Of the video: how much has reached the store when the first node is killed.
const MIDDLE: f64 = 0.35;

#[test]
fn a_video_comes_whole_by_every_dialect_on_moto() {
    comes_whole("moto");
}

#[test]
fn a_video_comes_whole_by_every_dialect_on_rgw() {
    comes_whole("rgw");
}

fn output(command: &mut Command) -> Option<String> {
    let Output { status, stdout, .. } = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    status
        .success()
        .then(|| String::from_utf8_lossy(&stdout).trim().to_owned())
}

/// What the clients need; the reason, if it cannot be had.
fn prepare(dir: &Path) -> Result<PathBuf, &'static str> {
    let video = dir.join("talk.mp4");
    let source = "testsrc2=size=1280x720:rate=30,noise=alls=20:allf=t";
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args([
        "-v", "error", "-f", "lavfi", "-i", source, "-f", "lavfi", "-i", "sine", "-t", "12",
    ]);
    ffmpeg.args([
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-b:v",
        "40M",
        "-minrate",
        "40M",
        "-maxrate",
        "40M",
    ]);
    ffmpeg.args([
        "-bufsize",
        "40M",
        "-x264-params",
        "nal-hrd=cbr",
        "-pix_fmt",
        "yuv420p",
        "-movflags",
        "+faststart",
    ]);
    output(ffmpeg.arg(&video)).ok_or("ffmpeg makes no video")?;
    output(Command::new("curl").arg("--version")).ok_or("there is no curl")?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "tus-js-client@4"])
        .current_dir(dir);
    std::fs::write(dir.join("package.json"), "{\"type\": \"module\"}").unwrap();
    output(&mut npm).ok_or("npm installs no tus-js-client")?;
    std::fs::write(dir.join("video.mjs"), include_str!("video.mjs")).unwrap();
    Ok(video)
}

fn comes_whole(store: &str) {
    if super::rounds(store).is_none() {
        println!("not asked for: NODES_ROUNDS says so");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let video = match prepare(dir.path()) {
        Ok(video) => video,
        Err(why) if std::env::var("CI").as_deref() == Ok("true") => panic!("nothing is skipped on CI: {why}"),
        Err(why) => return println!("skipped: {why}"),
    };
    let size = std::fs::metadata(&video).unwrap().len();
    let digest = |command: &mut Command| output(command).unwrap().split(' ').next().unwrap().to_owned();
    let sent = digest(Command::new("sha256sum").arg(&video));
    runtime().block_on(async {
        let setup = setup(store, 1);
        let Some(mut cluster) = Cluster::start(&setup, &[TOKEN.to_owned()], |_, _| Fault::None).await else { return };
        let origin = format!("http://{}{}", cluster.proxy, super::client::MOUNT);
        for dialect in ["tus", "ietf", "chunks"] {
            let work = dir.path().join(dialect);
            std::fs::create_dir(&work).unwrap();
            let mut command = match dialect {
                "tus" => {
                    let mut command = Command::new("node");
                    command.args(["video.mjs", &format!("{origin}/files/"), TOKEN]).arg(&video);
                    command
                }
                _ => {
                    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nodes/video.sh"));
                    command.args([dialect, &origin, TOKEN]).arg(&video).arg(&work);
                    command
                }
            };
            let said = work.join("said");
            let out = std::fs::File::create(&said).unwrap();
            let before = stored(&cluster);
            let mut client = command
                .current_dir(dir.path())
                .stdin(Stdio::null())
                .stdout(out.try_clone().unwrap())
                .stderr(out)
                .spawn()
                .unwrap();
            let late = Instant::now() + Duration::from_secs(120);
            while ((stored(&cluster) - before) as f64) < size as f64 * MIDDLE {
                let told = std::fs::read_to_string(&said).unwrap();
                assert!(client.try_wait().unwrap().is_none() && Instant::now() < late, "{dialect}: {told}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // One of them has the request; killed one after the other, so that whoever takes it over is killed too.
            for node in 0..NODES {
                cluster.nodes[node].kill();
                tokio::time::sleep(Duration::from_millis(300)).await;
                cluster.nodes[node].start();
                cluster.nodes[node].answers().await;
            }
            while client.try_wait().unwrap().is_none() {
                assert!(Instant::now() < late, "{dialect}: {}", std::fs::read_to_string(&said).unwrap());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let told = std::fs::read_to_string(&said).unwrap();
            let log = cluster.logs();
            assert!(client.wait().unwrap().success(), "{dialect}: {told}\n{log}");
            let again = told.lines().filter(|line| *line == "again").count();
            assert!(again > 0, "{dialect}: no kill was noticed: {told}");
            let url = told.lines().find_map(|line| line.strip_prefix("done ")).unwrap();
            let id = url.rsplit('/').next().unwrap();
            let get = format!(
                "curl -sS --fail --retry 60 --retry-all-errors --retry-delay 1 -H 'Authorization: Bearer {TOKEN}' {origin}/uploads/{id}/content \
                 | sha256sum"
            );
            let received = digest(Command::new("bash").args(["-o", "pipefail", "-c", &get]));
            assert_eq!(received, sent, "{dialect}");
            println!("{store}, {dialect}: {size} bytes, {NODES} nodes killed, {again} requests tried again, sha-256 equal");
        }
    });
}

/// Bytes that went to the store.
fn stored(cluster: &Cluster) -> u64 {
    let counts = cluster.store_faults.counts();
    let of = |kind| counts.get(&kind).map_or(0, |requests| requests.bytes);
    of(Kind::Part) + of(Kind::Put)
}
