//! Medians, spreads, ratios within rounds, and their tables.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    time::Duration,
};

use crate::{
    load::{Load, Sent},
    support::Spread,
};

/// One server in one round.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// MiB or files a second.
    rate: f64,
    is_files: bool,
    p50: Duration,
    p99: Duration,
    /// Processor seconds per GiB, or milliseconds a file.
    cpu: Option<f64>,
    peak: Option<u64>,
}

impl Measured {
    /// `used`: seconds on a processor, and the most bytes that were resident.
    pub(crate) fn new(load: &Load, mut sent: Sent, used: Option<(f64, u64)>) -> Self {
        sent.latencies.sort_unstable();
        let seconds = sent.took.as_secs_f64();
        let bytes = load.bytes() as f64;
        let is_files = load.is_small();
        let cpu = |seconds: f64| match is_files {
            true => seconds * 1e3 / load.files as f64,
            false => seconds * (1 << 30) as f64 / bytes,
        };
        Self {
            rate: match is_files {
                true => load.files as f64 / seconds,
                false => bytes / (1 << 20) as f64 / seconds,
            },
            is_files,
            p50: percentile(&sent.latencies, 0.5),
            p99: percentile(&sent.latencies, 0.99),
            cpu: used.map(|(seconds, _)| cpu(seconds)),
            peak: used.map(|(_, peak)| peak),
        }
    }
}

fn percentile(sorted: &[Duration], part: f64) -> Duration {
    let at = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or_default()
}

/// The rounds of all servers under one load.
pub(crate) struct Table {
    floor: String,
    names: Vec<&'static str>,
    rounds: BTreeMap<&'static str, Vec<Measured>>,
}

impl Table {
    pub(crate) fn new(floor: &str) -> Self {
        Self {
            floor: floor.to_owned(),
            names: Vec::new(),
            rounds: BTreeMap::new(),
        }
    }

    /// The median of the ratios to `floor` within rounds; nothing if one of both was not measured.
    fn ratio(&self, name: &str, floor: &str, value: fn(&Measured) -> Option<f64>) -> Option<f64> {
        let pairs = self.rounds.get(floor)?.iter().zip(self.rounds.get(name)?);
        let ratios: Vec<f64> = pairs
            .filter_map(|(floor, ours)| Some(value(ours)? / value(floor)?))
            .filter(|ratio| ratio.is_finite())
            .collect();
        (!ratios.is_empty()).then(|| Spread::of(ratios.into_iter()).median)
    }

    pub(crate) fn add(&mut self, name: &'static str, measured: Measured) {
        if !self.names.contains(&name) {
            self.names.push(name);
        }
        self.rounds.entry(name).or_default().push(measured);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let floor = self.rounds.get(self.floor.as_str());
        let is_files = self.rounds.values().flatten().any(|measured| measured.is_files);
        let (rate, cpu) = if is_files {
            ("files/s", "CPU-ms a file")
        } else {
            ("MiB/s", "CPU-s/GiB")
        };
        writeln!(
            f,
            "| | {rate} (quartiles) | × {floor} | {cpu} | × {floor} | p50 ms | p99 ms | × {floor} | peak MiB |",
            floor = self.floor
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
        for name in &self.names {
            let rounds = &self.rounds[name];
            let rates = Spread::of(rounds.iter().map(|round| round.rate));
            let ratio = |value| {
                self.ratio(name, &self.floor, value)
                    .map_or_else(String::new, |ratio| format!("{ratio:.2}"))
            };
            let equal = floor.is_some_and(|floor| {
                *name != self.floor && rates.overlaps(&Spread::of(floor.iter().map(|round| round.rate)))
            });
            let median = |value: fn(&Measured) -> Option<f64>, digits: usize| {
                let values: Vec<f64> = rounds.iter().filter_map(value).collect();
                if values.is_empty() {
                    return String::new();
                }
                format!("{:.digits$}", Spread::of(values.into_iter()).median)
            };
            let mut line = format!("| {name} | {rates} | {}", ratio(|round| Some(round.rate)));
            if equal {
                line.push_str(" (equal)");
            }
            write!(
                line,
                " | {} | {} | {} | {} | {} | {} |",
                median(|round| round.cpu, 2),
                ratio(|round| round.cpu),
                median(|round| Some(round.p50.as_secs_f64() * 1e3), 1),
                median(|round| Some(round.p99.as_secs_f64() * 1e3), 1),
                ratio(|round| Some(round.p99.as_secs_f64())),
                median(|round| Some(round.peak? as f64 / (1 << 20) as f64), 0),
            )?;
            writeln!(f, "{line}")?;
        }
        // What is not durable has a floor of its own, and the disk is the limit of what is.
        for (name, other) in OTHER_FLOORS {
            let rate = self.ratio(name, other, |round| Some(round.rate));
            let cpu = self.ratio(name, other, |round| round.cpu);
            if let Some(rate) = rate {
                write!(f, "\n{name} against {other}: × {rate:.2}")?;
                match cpu {
                    Some(cpu) => writeln!(f, ", processor × {cpu:.2}")?,
                    None => writeln!(f)?,
                }
            }
        }
        Ok(())
    }
}

const OTHER_FLOORS: [(&str, &str); 5] = [
    ("raw-none", "floor-b"),
    ("raw-none-inline", "floor-b"),
    ("tus-none", "floor-b"),
    ("raw", "disk"),
    ("raw-inline", "disk"),
];

/// Bytes of memory that may be taken.
pub(crate) fn memory_available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
