//! Which store to run on: `cargo bench --features benchmark --bench storage` measures pairs of stores and prints Markdown;
//! `-- --help` lists what can be chosen.
//!
//! Rounds are interleaved (each pair once, then all again); figures are medians over them.

mod progress;
#[path = "../../examples/support/stores.rs"]
#[allow(unreachable_pub, reason = "the examples have it as a module of theirs")]
mod stores;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use tower_upload::benchmark::{self, Options, Report};

use progress::Bar;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const HELP: &str = "\
cargo bench --features benchmark --bench storage -- [OPTIONS]

--blobs URL          file:DIR | memory: | s3://BUCKET/PREFIX | az://... | gs://...
--metadata URL       redb:PATH | memory: | postgres://USER@HOST/DATABASE (feature postgres; the password may come by PGPASSWORD)
                     both repeatable: the first goes with the first. None given: a directory with redb, the same
                     without any sync, and memory
--name TEXT          of a pair in the report, repeatable
--durability LEVEL   of file: and redb: in pairs that are given: ack (default) | none
--dir DIR            where the pairs lie that are measured when none is given; beneath the build directory otherwise
--quick              seconds for each pair
--full               2 GiB files, 100,000 open uploads
--rounds N           1
--open-uploads N     10,000; --full 100,000, --quick 1,000
--parts N            10,000; --quick 1,000
--large MIB          512; --full 2,048, --quick 32
--html FILE          a page with plots
--json FILE          all figures
--show FILE          repeatable: what --json left, of another day or machine, beside what is measured; alone, nothing is measured
";

/// A pair of stores, as `stores::open` takes it.
#[derive(Debug)]
struct Args {
    name: String,
    /// What is not said otherwise lies here.
    data: PathBuf,
    blobs: Option<String>,
    metadata: Option<String>,
    durable: bool,
}

/// The command line.
#[derive(Debug, Default)]
struct Asked {
    blobs: Vec<String>,
    metadata: Vec<String>,
    names: Vec<String>,
    fast: bool,
    dir: Option<PathBuf>,
    quick: bool,
    full: bool,
    rounds: usize,
    open_uploads: Option<u32>,
    parts: Option<u32>,
    large: Option<u64>,
    html: Option<PathBuf>,
    json: Option<PathBuf>,
    show: Vec<PathBuf>,
}

impl Asked {
    /// `None` if only help is wanted.
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Option<Self>, BoxError> {
        let mut asked = Self {
            rounds: 1,
            ..Self::default()
        };
        while let Some(flag) = given.next() {
            let mut value = || given.next().ok_or_else(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--blobs" => asked.blobs.push(value()?),
                "--metadata" => asked.metadata.push(value()?),
                "--name" => asked.names.push(value()?),
                "--durability" => match value()?.as_str() {
                    "ack" => asked.fast = false,
                    "none" => asked.fast = true,
                    other => return Err(format!("--durability: {other} is neither ack nor none").into()),
                },
                "--dir" => asked.dir = Some(value()?.into()),
                "--quick" => asked.quick = true,
                "--full" => asked.full = true,
                "--rounds" => asked.rounds = number(&flag, &value()?)?,
                "--open-uploads" => asked.open_uploads = Some(number(&flag, &value()?)?),
                "--parts" => asked.parts = Some(number(&flag, &value()?)?),
                "--large" => asked.large = Some(number(&flag, &value()?)?),
                "--html" => asked.html = Some(value()?.into()),
                "--json" => asked.json = Some(value()?.into()),
                "--show" => asked.show.push(value()?.into()),
                "--bench" => {} // cargo gives it
                "--help" => return Ok(None),
                other => return Err(format!("unknown option {other}; --help lists them").into()),
            }
        }
        if asked.blobs.len() != asked.metadata.len() {
            let counts = (asked.blobs.len(), asked.metadata.len());
            return Err(format!(
                "--blobs is given {} times and --metadata {} times; each pair needs both",
                counts.0, counts.1
            )
            .into());
        }
        if asked.rounds == 0 || asked.quick && asked.full {
            return Err("one round at least, and --quick or --full, not both".into());
        }
        Ok(Some(asked))
    }

    fn options(&self) -> Options {
        let mut options = match (self.quick, self.full) {
            (true, _) => Options::quick(),
            (_, true) => Options::full(),
            _ => Options::default(),
        };
        if let Some(uploads) = self.open_uploads {
            options = options.with_open_uploads(uploads);
        }
        if let Some(parts) = self.parts {
            options = options.with_parts(parts);
        }
        if let Some(mib) = self.large {
            options = options.with_large(mib << 20);
        }
        options
    }

    fn pairs(&self, beneath: &Path) -> Vec<Args> {
        if self.blobs.is_empty() && !self.show.is_empty() {
            return Vec::new();
        }
        if self.blobs.is_empty() {
            let pair = |name: &str, directory: &str, durable| Args {
                name: name.to_owned(),
                data: beneath.join(directory),
                blobs: None,
                metadata: None,
                durable,
            };
            let memory = Args {
                blobs: Some("memory:".to_owned()),
                metadata: Some("memory:".to_owned()),
                ..pair("memory", "memory", true)
            };
            return vec![
                pair("disk + redb", "durable", true),
                pair("disk + redb, no sync", "fast", false),
                memory,
            ];
        }
        let pairs = self.blobs.iter().zip(&self.metadata).enumerate();
        pairs
            .map(|(at, (blobs, metadata))| Args {
                name: match self.names.get(at) {
                    Some(name) => name.clone(),
                    // The rest of a URL may hold a password.
                    None => format!("{}. {} + {}", at + 1, scheme(blobs), scheme(metadata)),
                },
                data: beneath.join(at.to_string()),
                blobs: Some(blobs.clone()),
                metadata: Some(metadata.clone()),
                durable: !self.fast,
            })
            .collect()
    }
}

/// Date, processors, kernel.
fn setting(rounds: usize) -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).output().ok()?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut models = cpus
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = models.next().map_or("", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let date = said("date", &["-u", "+%Y-%m-%d"]).unwrap_or_default();
    let kernel = said("uname", &["-sr"]).unwrap_or_default();
    let build = if cfg!(debug_assertions) {
        "; NOT a release build"
    } else {
        ""
    };
    format!("Measured {date}: {cores} cores, {model}; {kernel}; rounds: {rounds}{build}.")
}

fn scheme(url: &str) -> &str {
    url.split(':').next().unwrap_or_default()
}

fn number<T: std::str::FromStr>(flag: &str, text: &str) -> Result<T, BoxError> {
    let plain = text.replace([',', '_'], "");
    plain.parse().map_err(|_| format!("{flag}: {text} is no number").into())
}

fn main() -> ExitCode {
    let done = match Asked::parse(std::env::args().skip(1)) {
        Ok(Some(asked)) => tokio::runtime::Runtime::new()
            .map_err(BoxError::from)
            .and_then(|runtime| runtime.block_on(measure(&asked))),
        Ok(None) => {
            print!("{HELP}");
            Ok(())
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(asked: &Asked) -> Result<(), BoxError> {
    let above = asked
        .dir
        .clone()
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")));
    std::fs::create_dir_all(&above)?;
    let directory = tempfile::Builder::new().prefix("storage-").tempdir_in(above)?;
    let mut opened = Vec::new();
    for pair in asked.pairs(directory.path()) {
        let stores = stores::open(&pair).await;
        let stores = stores.map_err(|error| format!("{}: {error}", pair.name))?;
        opened.push((pair.name, stores, Vec::new()));
    }
    for round in 1..=asked.rounds {
        for (name, (blobs, metadata), rounds) in &mut opened {
            let bar = Bar::new(format!("{name}, round {round} of {}", asked.rounds));
            let options = asked.options().with_progress(move |step| bar.show(step));
            let report = benchmark::run(name.clone(), blobs.clone(), metadata.clone(), &options).await;
            rounds.push(report.map_err(|error| format!("\n{name}: {error}"))?);
        }
    }
    progress::end();
    let mut reports: Vec<Report> = opened
        .iter()
        .filter_map(|(.., rounds)| Report::median_of(rounds))
        .collect();
    for report in &mut reports {
        report.setting = setting(asked.rounds);
    }
    for file in &asked.show {
        let told = |error: &dyn std::fmt::Display| format!("--show {}: {error}", file.display());
        let earlier = std::fs::read(file).map_err(|error| told(&error))?;
        reports.extend(serde_json::from_slice::<Vec<Report>>(&earlier).map_err(|error| told(&error))?);
    }
    write!(std::io::stdout().lock(), "{}", benchmark::markdown(&reports))?;
    if let Some(file) = &asked.html {
        std::fs::write(file, benchmark::html(&reports))?;
    }
    if let Some(file) = &asked.json {
        std::fs::write(file, serde_json::to_vec_pretty(&reports)?)?;
    }
    Ok(())
}
