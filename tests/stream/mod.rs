//! What an HLS stream must be: whole, playable, and nothing besides.
#![allow(dead_code, clippy::unwrap_used, reason = "each suite uses some of it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// The files of a stream by their names.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// Whether ffmpeg is there; where all tests must run it has to be.
pub(crate) fn has_ffmpeg() -> bool {
    let there = Command::new("ffmpeg").arg("-version").output().is_ok();
    assert!(
        there || std::env::var_os("CI").is_none(),
        "ffmpeg is missing: apt install ffmpeg"
    );
    if !there {
        eprintln!("skipped: there is no ffmpeg");
    }
    there
}

/// A video with sound that must be encoded anew: MPEG-4 and MP3 in Matroska.
pub(crate) fn video(size: &str, seconds: u32) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("film.mkv");
    let made = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i"])
        .arg(format!("testsrc2=size={size}:rate=25:duration={seconds}"))
        .args(["-f", "lavfi", "-i"])
        .arg(format!("sine=frequency=440:sample_rate=48000:duration={seconds}"))
        .args(["-c:v", "mpeg4", "-b:v", "1M", "-c:a", "aac"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::read(path).unwrap()
}

/// The lines of a playlist that name files, those of `#EXT-X-MAP` too.
fn listed(playlist: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(playlist).unwrap();
    assert!(text.starts_with("#EXTM3U\n"), "{text}");
    let map = |line: &str| Some(line.strip_prefix("#EXT-X-MAP:URI=\"")?.strip_suffix('"')?.to_owned());
    let named = |line: &str| (!line.starts_with('#') && !line.is_empty()).then(|| line.to_owned());
    text.lines()
        .filter_map(|line| map(line).or_else(|| named(line)))
        .collect()
}

/// Names of all files that the master playlist leads to, itself too.
///
/// # Errors
/// What is listed and not there, or not whole.
pub(crate) fn reached(read: impl Fn(&str) -> Option<Vec<u8>>) -> Result<BTreeSet<String>, String> {
    let mut names = BTreeSet::from(["master.m3u8".to_owned()]);
    let master = read("master.m3u8").ok_or("there is no master playlist")?;
    for playlist in listed(&master) {
        let text = read(&playlist).ok_or_else(|| format!("{playlist} is listed, and not there"))?;
        if !text.ends_with(b"#EXT-X-ENDLIST\n") {
            return Err(format!("{playlist} has no end"));
        }
        let folder = playlist.rsplit_once('/').ok_or("a playlist lies beside the master")?.0;
        for segment in listed(&text) {
            let segment = format!("{folder}/{segment}");
            match read(&segment) {
                None => return Err(format!("{segment} is listed, and not there")),
                Some(bytes) if bytes.is_empty() => return Err(format!("{segment} is empty")),
                Some(_) => names.insert(segment),
            };
        }
        names.insert(playlist);
    }
    Ok(names)
}

/// Exactly one whole stream, with a poster, of so many renditions; a player reads every one of them.
pub(crate) fn check_whole(files: &Files, renditions: usize, seconds: f64) {
    let mut names = reached(|name| files.get(name).cloned()).unwrap();
    names.insert("poster.jpg".to_owned());
    let there: BTreeSet<String> = files.keys().cloned().collect();
    assert_eq!(names, there, "there must be what is listed and a poster, nothing else");
    let master = &files["master.m3u8"];
    assert_eq!(listed(master).len(), renditions, "{}", String::from_utf8_lossy(master));

    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    for playlist in listed(master) {
        let read = Command::new("ffprobe")
            .args(["-v", "error", "-count_packets", "-show_entries"])
            .args(["stream=codec_name,nb_read_packets:format=duration", "-of", "csv"])
            .arg(dir.path().join(&playlist))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&read.stdout).into_owned() + &String::from_utf8_lossy(&read.stderr);
        assert!(read.status.success() && read.stderr.is_empty(), "{playlist}: {said}");
        assert!(said.contains("h264") && said.contains("aac"), "{playlist}: {said}");
        let duration = said.lines().find_map(|line| line.strip_prefix("format,"));
        let duration: f64 = duration.unwrap().parse().unwrap();
        assert!((duration - seconds).abs() < 0.5, "{playlist}: {said}");
    }
}

/// All files below a directory, by their names in it.
pub(crate) fn files_below(directory: &Path) -> Files {
    let (mut found, mut waiting) = (Files::new(), vec![directory.to_owned()]);
    while let Some(at) = waiting.pop() {
        for entry in std::fs::read_dir(at).into_iter().flatten().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                waiting.push(entry.path());
            } else {
                let name = entry
                    .path()
                    .strip_prefix(directory)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

/// The directories of runs in a working directory: those beneath the directory of each process.
pub(crate) fn runs(work: &Path) -> Vec<PathBuf> {
    let entries = |path: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    entries(work).iter().flat_map(|home| entries(home)).collect()
}

/// What works in that directory: the ids and names of processes.
pub(crate) fn at_work(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let is_there = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
        if is_there {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push(format!("{} {}", entry.file_name().display(), name.trim()));
        }
    }
    found
}

/// Processes that `parent` started and that are dead and not waited for.
pub(crate) fn zombies(parent: u32) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // `pid (name) state ppid …`, and a name may hold anything.
        let rest: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        if rest.first() == Some(&"Z") && rest.get(1) == Some(&parent.to_string().as_str()) {
            found.push(stat);
        }
    }
    found
}
