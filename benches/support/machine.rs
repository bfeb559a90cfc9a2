//! What figures were measured on.

use std::path::Path;

/// The machine and the day, in a line.
pub(crate) fn machine(dir: &Path) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |line| line.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let mounts = read("/proc/mounts");
    let dir = dir.canonicalize().unwrap_or_default();
    let disk = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(at, _)| dir.starts_with(at))
        .max_by_key(|(at, _)| at.len())
        .map_or("", |(_, kind)| kind);
    let days = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let date = tower_upload::upload::Timestamp::from_millis(days * 1000).to_string();
    format!(
        "{model}, {cores} cores, Linux {}, {disk}, {}",
        kernel.trim(),
        date.split('T').next().unwrap_or_default()
    )
}
