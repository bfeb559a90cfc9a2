use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{
    Uploads,
    access::OwnerOnly,
    blob::MemoryBlobs,
    conformance::fault::{Call, Fault, FaultyMetadata},
    metadata::{MemoryMetadata, MetadataStore, Page},
};

async fn memory(options: &Options) -> (Report, Arc<MemoryBlobs>, Arc<MemoryMetadata>) {
    let (blobs, metadata) = (Arc::new(MemoryBlobs::new()), Arc::new(MemoryMetadata::new()));
    let report = run("memory", blobs.clone(), metadata.clone(), options).await.unwrap();
    (report, blobs, metadata)
}

async fn assert_nothing_left(blobs: &Arc<MemoryBlobs>, metadata: &Arc<MemoryMetadata>) {
    assert_eq!(blobs.used(), 0);
    assert_eq!(blobs.begun(std::time::Duration::ZERO).await.unwrap(), []);
    assert_eq!(metadata.list(None, Page::new(0, 10)).await.unwrap(), []);
    let uploads = Uploads::with(blobs.clone(), metadata.clone())
        .authorizer(OwnerOnly)
        .without_driver();
    let audit = uploads.build().await.unwrap().audit(true).await.unwrap();
    assert_eq!((audit.uploads, audit.findings), (0, Vec::new()));
}

fn tiny() -> Options {
    Options::quick()
        .with_large(1 << 20)
        .with_chunk(100_000)
        .with_small(10)
        .with_parts(100)
        .with_open_uploads(100)
        .with_samples(5)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quick_run_measures_everything_and_leaves_nothing() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let options = Options::quick().with_progress(move |progress| {
        assert!(progress.done >= 1 && progress.done <= progress.total, "{progress}");
        count.fetch_add(1, Ordering::Relaxed);
    });
    let (report, blobs, metadata) = memory(&options).await;
    assert_nothing_left(&blobs, &metadata).await;
    assert_eq!(report.notes, Vec::<String>::new());
    assert!(told.load(Ordering::Relaxed) > 5_000);

    let of = |workload| report.measured.iter().filter(move |row| row.workload == workload);
    let shape = |workload| -> Vec<_> {
        of(workload)
            .map(|row| (row.at_once, row.amount, row.operations, row.bytes))
            .collect()
    };
    let large = 32 << 20;
    assert_eq!(shape(Workload::Append), [(1, None, 16, large)]);
    assert_eq!(shape(Workload::Indexed), [(4, None, 16, large), (16, None, 16, large)]);
    let small = 64 * 65_536;
    assert_eq!(
        shape(Workload::Small),
        [1, 1, 16, 16].map(|at_once| (at_once, None, 64, small))
    );
    assert_eq!(
        shape(Workload::Parts),
        [10, 100, 1_000].map(|amount| (1, Some(amount), 40, 40 * 4096))
    );
    assert_eq!(
        shape(Workload::Assembly),
        [(1, 9), (10, 9), (100, 5), (1_000, 2)].map(|(amount, times): (u32, u64)| (
            1,
            Some(amount),
            times,
            times * u64::from(amount) * 4096
        ))
    );
    let ranges = 160 * 65_536;
    assert_eq!(
        shape(Workload::Read),
        [(1, None, 3, 3 * large), (1, None, 160, ranges), (16, None, 160, ranges)]
    );
    let metadata: Vec<_> = of(Workload::Metadata)
        .map(|row| (row.operation.as_str(), row.amount))
        .collect();
    assert_eq!(metadata.len(), 3 + 3 * 4 + 3, "{metadata:?}");

    for row in &report.measured {
        let latency = row.latency;
        assert!(row.seconds > 0.0 && latency.p50 > 0.0, "{row:?}");
        assert!(latency.p50 <= latency.p90 && latency.p90 <= latency.p99 && latency.p99 <= latency.max);
        assert!(latency.max / 1e6 <= row.seconds, "{row:?}");
    }
    assert_eq!(report.growths.len(), 1 + 1 + 1 + 4);
    for growth in &report.growths {
        assert!(growth.points.len() >= 3 && growth.exponent.is_finite(), "{growth:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_twice_on_the_same_stores_and_beside_other_uploads() {
    let (_, blobs, metadata) = memory(&tiny()).await;
    let uploads = Uploads::with(blobs.clone(), metadata.clone())
        .authorizer(OwnerOnly)
        .build()
        .await
        .unwrap();
    let ann = crate::Caller::new("ann");
    let film = uploads
        .create(&ann, crate::NewUpload::new("film").size(3))
        .await
        .unwrap();
    run("again", blobs.clone(), metadata.clone(), &tiny()).await.unwrap();
    assert_eq!(uploads.status(&ann, film.id()).await.unwrap().revision(), 1);
    uploads.shutdown(std::time::Duration::ZERO).await;
    assert_eq!(metadata.list(None, Page::new(0, 10)).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fails_cleans_up() {
    for fails in [1, 3, 30, 60, 200, 300] {
        let (blobs, metadata) = (Arc::new(MemoryBlobs::new()), Arc::new(MemoryMetadata::new()));
        let commits = AtomicUsize::new(0);
        let faults = move |call| match call {
            Call::Commit if commits.fetch_add(1, Ordering::Relaxed) >= fails => Fault::FailBefore,
            _ => Fault::None,
        };
        let stops = FaultyMetadata::new(metadata.clone(), Arc::new(faults));
        let ran = run("stops", blobs.clone(), Arc::new(stops), &tiny()).await;
        assert_eq!(ran.unwrap_err().kind(), crate::ErrorKind::Unavailable);
        assert_nothing_left(&blobs, &metadata).await;
    }
}

fn row(workload: Workload, amount: Option<u32>, micros: f64) -> Measured {
    Measured {
        workload,
        operation: "a <step> & \"more\"".to_owned(),
        at_once: 1,
        amount,
        operations: 10,
        bytes: 1 << 20,
        seconds: micros * 1e-5,
        latency: Latency {
            p50: micros,
            p90: micros * 2.0,
            p99: micros * 4.0,
            max: micros * 40.0,
        },
    }
}

fn report(name: &str, slower: f64) -> Report {
    let mut report = Report::new(name.to_owned());
    for workload in Workload::ALL {
        report.measured.push(row(workload, None, 300.0 * slower));
        for amount in [10, 100, 1_000] {
            let micros = f64::from(amount) * slower;
            report.measured.push(row(workload, Some(amount), micros));
        }
    }
    report.notes.push("less <than> asked".to_owned());
    report.fit();
    report
}

#[test]
fn growth_counts_from_a_hundred_on() {
    let mut report = Report::new(String::new());
    for (amount, micros) in [(1, 1e9), (100, 5.0), (1_000, 50.0), (10_000, 500.0)] {
        report.measured.push(row(Workload::Parts, Some(amount), micros));
    }
    report.fit();
    assert!((report.growths[0].exponent - 1.0).abs() < 1e-9);
    assert_eq!(report.growths[0].points.len(), 4);
    report.measured.truncate(2);
    report.fit();
    assert_eq!(report.growths, [], "one amount says nothing");
}

#[test]
fn rounds_become_their_median() {
    assert_eq!(Report::median_of(&[]), None);
    let rounds = [report("a", 1.0), report("a", 9.0), report("a", 2.0)];
    let median = Report::median_of(&rounds).unwrap();
    assert_eq!(median, report("a", 2.0));
    let mut fewer = report("a", 1.0);
    fewer.measured.remove(0);
    let median = Report::median_of(&[report("a", 1.0), fewer]).unwrap();
    assert_eq!(median.measured.len(), rounds[0].measured.len() - 1);
}

#[test]
fn latencies_are_those_of_ranks() {
    let times = (1..=200).rev().map(std::time::Duration::from_micros).collect();
    let latency = Latency::of(times);
    let found = [latency.p50, latency.p90, latency.p99, latency.max].map(f64::round);
    assert_eq!(found, [100.0, 180.0, 198.0, 200.0]);
    assert_eq!(Latency::of(Vec::new()), Latency::default());
    let one = Latency::of(vec![std::time::Duration::from_micros(7)]);
    assert!((one.p50 - one.p99).abs() < 1e-9 && (one.p99 - 7.0).abs() < 1e-9);
}

#[test]
fn a_report_is_json() {
    let report = report("a", 1.0);
    let json = serde_json::to_string(&report).unwrap();
    assert!(json.contains(r#""workload":"append""#));
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}

#[test]
fn a_table_has_a_cell_for_each() {
    let mut second = report("b|c", 2.0);
    second.measured.remove(0);
    let text = markdown(&[report("a", 1.0), second]);
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    assert!(lines.len() > 7 * 6, "{text}");
    for line in lines {
        assert_eq!(line.replace("\\|", "").matches('|').count(), 4, "{line}");
    }
}

/// Reads markup as strictly as XML: elements nest, attributes are quoted, text is escaped.
fn well_formed(markup: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = markup.strip_prefix("<!DOCTYPE html>\n").ok_or("no doctype")?;
    while let Some((text, behind)) = rest.split_once('<') {
        let entities = ["amp;", "lt;", "gt;", "quot;", "#39;"];
        for entity in text.split('&').skip(1) {
            if !entities.iter().any(|known| entity.starts_with(known)) {
                return Err(format!("a bare & before {entity:?}"));
            }
        }
        if text.contains('>') {
            return Err(format!("a bare > in {text:?}"));
        }
        let (tag, behind) = behind.split_once('>').ok_or("a tag does not end")?;
        rest = behind;
        if let Some(name) = tag.strip_prefix('/') {
            let begun = open.pop();
            if begun != Some(name) {
                return Err(format!("{name} ends {begun:?}"));
            }
            continue;
        }
        let empty = tag.ends_with('/');
        let tag = tag.trim_end_matches('/');
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        let quoted: Vec<&str> = attributes.split('"').collect();
        if quoted.len().is_multiple_of(2) {
            return Err(format!("a quote is open in {tag}"));
        }
        for (at, piece) in quoted.iter().enumerate() {
            let key = piece.trim_start();
            let ends = at + 1 == quoted.len();
            if at % 2 == 0 && !(ends && key.is_empty() || key.ends_with('=') && !key.contains(' ')) {
                return Err(format!("{tag} has {piece:?}"));
            }
        }
        if !empty {
            open.push(name);
        }
    }
    match open[..] {
        [] => Ok(()),
        _ => Err(format!("{open:?} do not end")),
    }
}

#[test]
fn the_checker_of_markup_finds_faults() {
    let with = |body: &str| well_formed(&format!("<!DOCTYPE html>\n<html>{body}</html>"));
    assert_eq!(with("<p class=\"a\" id=\"b\">a &amp; b<br/></p>"), Ok(()));
    for wrong in [
        "<p>",
        "</p>",
        "<p><b></p></b>",
        "<p class=a></p>",
        "<p class=\"a></p>",
        "<p>a & b</p>",
        "<p>a > b</p>",
        "<p class=\"a\"b></p>",
    ] {
        assert!(with(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_page_stands_alone_and_is_well_formed() {
    let names = [
        "plain",
        "</style><script>alert(1)</script>",
        "a \"quoted\" & 'odd' name that is long",
    ];
    let reports: Vec<Report> = names
        .iter()
        .zip(1_u8..)
        .map(|(name, n)| report(name, n.into()))
        .collect();
    let page = html(&reports);
    assert_eq!(well_formed(&page), Ok(()));
    for outside in [
        "<script", "http:", "https:", "url(", "@import", "<link", "<img", "NaN", "inf",
    ] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert_eq!(page.matches("<svg").count(), 7 * 3);
    for at in 0..3 {
        assert!(page.contains(&format!("class=\"path s{at}\"")));
    }
    assert_eq!(well_formed(&html(&[])), Ok(()));
}

#[test]
fn a_page_of_zeros_has_no_figures_that_are_none() {
    let mut zeros = Report::new("zeros".to_owned());
    zeros.measured.push(row(Workload::Small, None, 0.0));
    zeros.measured.push(row(Workload::Parts, Some(100), 0.0));
    zeros.fit();
    let page = html(&[zeros]);
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_under_way_any_more_when_a_step_fails() {
    let stores = (Arc::new(MemoryBlobs::new()), Arc::new(MemoryMetadata::new()));
    let bench = Bench::new(String::new(), stores.0, stores.1, tiny()).await.unwrap();
    let running = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&running);
    let step = bench.step(Workload::Small, "", 100);
    let ran = step.each(100, 8, move |number| {
        let running = Arc::clone(&count);
        async move {
            running.fetch_add(1, Ordering::Relaxed);
            // The others have begun, and are at it for longer.
            let time = if number == 0 { 20 } else { 100 };
            tokio::time::sleep(std::time::Duration::from_millis(time)).await;
            running.fetch_sub(1, Ordering::Relaxed);
            if number == 0 {
                return Err(crate::Error::internal("the first"));
            }
            Ok(1)
        }
    });
    let error = ran.await.err().unwrap();
    assert_eq!(error.message(), "the first");
    assert_eq!(running.load(Ordering::Relaxed), 0);
}
