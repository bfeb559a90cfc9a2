use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::exponent;

/// What a pair of stores came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// What the stores were called.
    pub name: String,
    /// Where it was measured: the machine, say. For whoever runs it to set; empty from [`run`](super::run).
    #[serde(default)]
    pub setting: String,
    /// In the order in which it was done.
    pub measured: Vec<Measured>,
    /// How costs grow with amounts.
    pub growths: Vec<Growth>,
    /// What was done otherwise than asked for, and why.
    pub notes: Vec<String>,
}

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Workload {
    /// One large file, one append after the other.
    Append,
    /// One large file in numbered chunks, many at once.
    Indexed,
    /// Small files.
    Small,
    /// Chunks of an upload that has few or many already.
    Parts,
    /// Assembly of few or many parts.
    Assembly,
    /// Finished files.
    Read,
    /// The metadata store alone.
    Metadata,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Append,
        Self::Indexed,
        Self::Small,
        Self::Parts,
        Self::Assembly,
        Self::Read,
        Self::Metadata,
    ];
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Append => "append",
            Self::Indexed => "indexed",
            Self::Small => "small files",
            Self::Parts => "many parts",
            Self::Assembly => "assembly",
            Self::Read => "reads",
            Self::Metadata => "metadata",
        })
    }
}

/// One operation, done many times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Measured {
    /// The work it belongs to.
    pub workload: Workload,
    /// What was done, with sizes.
    pub operation: String,
    /// How many did it at once.
    pub at_once: u32,
    /// How many parts, or open uploads, there were already.
    pub amount: Option<u32>,
    /// How often it was done.
    pub operations: u64,
    /// The bytes of files that were stored or read.
    pub bytes: u64,
    /// From the beginning of the first to the end of the last; of a large file from its creation to its publication.
    pub seconds: f64,
    /// Of each operation.
    pub latency: Latency,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Latency {
    /// Half take no longer.
    pub p50: f64,
    /// Nine of ten take no longer.
    pub p90: f64,
    /// 99 of 100 take no longer; of fewer than 100 operations it is the longest.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// How the cost of an operation grows with what there is already.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Growth {
    /// The work it belongs to.
    pub workload: Workload,
    /// What was done.
    pub operation: String,
    /// Medians by amount.
    pub points: Vec<Point>,
    /// Of the power law that fits best, by amounts of 100 and more: 0 is constant, 1 is linear.
    pub exponent: f64,
}

/// A point of a [`Growth`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Point {
    /// Parts or open uploads.
    pub amount: u32,
    /// The median latency, in microseconds.
    pub micros: f64,
}

impl Measured {
    /// Bytes per second; 0 where no bytes of files moved.
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.seconds.max(1e-9)
    }

    /// Operations per second.
    #[must_use]
    pub fn operations_per_second(&self) -> f64 {
        self.operations as f64 / self.seconds.max(1e-9)
    }
}

impl Latency {
    pub(super) fn of(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        let at = |hundredths: usize| {
            let rank = (took.len() * hundredths).div_ceil(100).max(1);
            took.get(rank - 1).map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        Self {
            p50: at(50),
            p90: at(90),
            p99: at(99),
            max: at(100),
        }
    }
}

impl Report {
    pub(super) const fn new(name: String) -> Self {
        Self {
            name,
            setting: String::new(),
            measured: Vec::new(),
            growths: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// One report of several rounds with the same options, each figure the median; `None` of none. What not all of them
    /// have is left out.
    #[must_use]
    pub fn median_of(rounds: &[Self]) -> Option<Self> {
        let mut median = rounds.first()?.clone();
        median.measured.retain_mut(|row| {
            let same: Vec<&Measured> = rounds.iter().filter_map(|round| round.find(row)).collect();
            let of = |value: fn(&Measured) -> f64| middle(same.iter().copied().map(value).collect());
            row.seconds = of(|row| row.seconds);
            row.latency = Latency {
                p50: of(|row| row.latency.p50),
                p90: of(|row| row.latency.p90),
                p99: of(|row| row.latency.p99),
                max: of(|row| row.latency.max),
            };
            same.len() == rounds.len()
        });
        median.fit();
        Some(median)
    }

    /// The same operation in this report.
    pub(super) fn find(&self, row: &Measured) -> Option<&Measured> {
        let key = |row: &Measured| (row.workload, row.operation.clone(), row.at_once, row.amount);
        self.measured.iter().find(|found| key(found) == key(row))
    }

    /// Sets the growths by what was measured.
    pub(super) fn fit(&mut self) {
        self.growths.clear();
        for row in &self.measured {
            let Some(amount) = row.amount else { continue };
            let point = Point {
                amount,
                micros: row.latency.p50,
            };
            let same = |growth: &&mut Growth| (growth.workload, &growth.operation) == (row.workload, &row.operation);
            match self.growths.iter_mut().find(same) {
                Some(growth) => growth.points.push(point),
                None => self.growths.push(Growth {
                    workload: row.workload,
                    operation: row.operation.clone(),
                    points: vec![point],
                    exponent: 0.0,
                }),
            }
        }
        self.growths.retain_mut(|growth| {
            let points = growth.points.iter().filter(|point| point.amount >= 100);
            let points: Vec<_> = points.map(|point| (f64::from(point.amount), point.micros)).collect();
            let found = exponent(&points);
            growth.exponent = found.unwrap_or_default();
            found.is_some()
        });
    }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() % 2 {
        0 if half > 0 => f64::midpoint(values[half - 1], values[half]),
        _ => values.get(half).copied().unwrap_or_default(),
    }
}
