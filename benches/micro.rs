//! What single steps cost, without stores: `cargo bench --features benchmark --bench micro`.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use tower_upload::{
    FileName, Key, Owner, UploadId,
    benchmark::micro,
    upload::{Algorithm, Handle, Part, Plan, Receipt, Record, Snapshot, Tally},
};

const MIB: usize = 1 << 20;
const PARTS: u32 = 10_000;

fn parsers(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    let metadata = "filename d29ybGRfZG9taW5hdGlvbl9wbGFuLnBkZg==,filetype dmlkZW8vbXA0,is_confidential,target NDI=";
    assert_eq!(micro::tus_metadata(metadata), Some(4));
    group.bench_function("tus metadata", |b| b.iter(|| micro::tus_metadata(black_box(metadata))));

    let item = b"123456789012; a; b=\"c\"; d=?1";
    assert!(micro::structured_item(item));
    group.bench_function("structured field item", |b| {
        b.iter(|| micro::structured_item(black_box(item)));
    });

    let digest = b"sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:, md5=:sQqNsWTgdUEFt6mb5y4/5Q==:";
    assert!(micro::content_digest(digest).is_some());
    group.bench_function("content digest", |b| {
        b.iter(|| micro::content_digest(black_box(digest)))
    });

    let path = "/uploads/AAAAAAAAAAAAAAAAAAAAAA/chunks/1234/a%20name%20with%20spaces.mp4";
    assert_eq!(micro::path(path), Some(5));
    group.bench_function("path", |b| b.iter(|| micro::path(black_box(path))));

    let query = "target=42&fileName=a+film%20of+mine.mp4&chunkIndex=17&totalChunks=1000";
    assert!(micro::query(query, "totalChunks"));
    group.bench_function("query", |b| {
        b.iter(|| micro::query(black_box(query), black_box("totalChunks")));
    });
    group.finish();

    let mut group = c.benchmark_group("form");
    let frames = form();
    let read = |frames: Vec<Bytes>| micro::form(frames).now_or_never().flatten();
    assert_eq!(read(frames.clone()), Some(MIB));
    group.throughput(Throughput::Bytes(MIB as u64));
    group.bench_function("1 MiB in frames of 64 KiB", |b| {
        b.iter_batched(|| frames.clone(), read, BatchSize::SmallInput);
    });
    group.finish();
}

/// A form as a browser sends it, cut as a connection cuts it.
fn form() -> Vec<Bytes> {
    let mut form = Vec::new();
    for (name, value) in [
        ("videoId", "7"),
        ("fileName", "film.mp4"),
        ("chunkIndex", "17"),
        ("totalChunks", "1000"),
    ] {
        let field = format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        form.extend_from_slice(field.as_bytes());
    }
    form.extend_from_slice(
        b"--X\r\nContent-Disposition: form-data; name=\"chunk\"; filename=\"blob\"\r\n\
          Content-Type: application/octet-stream\r\n\r\n",
    );
    form.extend_from_slice(&noise(MIB));
    form.extend_from_slice(b"\r\n--X--\r\n");
    let form = Bytes::from(form);
    (0..form.len())
        .step_by(65_536)
        .map(|at| form.slice(at..form.len().min(at + 65_536)))
        .collect()
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 42_u64;
    let bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    });
    bytes.take(len).collect()
}

fn checksums(c: &mut Criterion) {
    let bytes = noise(MIB);
    let mut group = c.benchmark_group("checksum of 1 MiB");
    group.throughput(Throughput::Bytes(MIB as u64));
    for algorithm in Algorithm::ALL {
        assert!(micro::digest(algorithm, b"").is_some());
        group.bench_function(algorithm.name(), |b| {
            b.iter(|| micro::digest(algorithm, black_box(&bytes)));
        });
    }
    group.finish();

    let mut group = c.benchmark_group("CRC of 10,000 parts");
    let equal: Vec<(u64, u64)> = (0..u64::from(PARTS)).map(|n| (n << 40 | n, 5 << 20)).collect();
    let other: Vec<(u64, u64)> = equal.iter().map(|(crc64, len)| (*crc64, len + crc64 % 7)).collect();
    group.bench_function("of one length", |b| b.iter(|| micro::combine(black_box(&equal))));
    group.bench_function("of seven lengths", |b| b.iter(|| micro::combine(black_box(&other))));
    group.finish();
}

fn record() -> Record {
    let name = "a film of mine.mp4";
    let mut record = Record::new(
        UploadId::from_bytes([7; 16]),
        Owner::new("user-42"),
        FileName::parse(name).unwrap(),
        Key::parse("videos/originals/42_film.mp4").unwrap(),
        Plan::indexed(PARTS, Some(5 << 20), Some(u64::from(PARTS) * (5 << 20))),
        Handle::new("a handle of some length, as stores give them"),
    );
    record.named = true;
    record.expire_after = Some(Duration::from_secs(86_400));
    record.metadata.insert("filetype".to_owned(), "video/mp4".to_owned());
    record
}

fn uploads(c: &mut Criterion) {
    let part = |number| Part::new(number, 5 << 20, number.into(), Receipt::new("a receipt"));
    let snapshot = |parts: Vec<Part>| {
        let tally = Tally::default().with(&parts, &[]);
        micro::upload(Snapshot::new(record(), tally, parts))
    };
    let mut group = c.benchmark_group("missing of 10,000 parts");
    let every_second = snapshot((0..PARTS).step_by(2).map(part).collect());
    assert_eq!(every_second.missing().len(), 5_000);
    group.bench_function("every second", |b| b.iter(|| black_box(&every_second).missing()));
    let all_but_last = snapshot((0..PARTS - 1).map(part).collect());
    assert_eq!(all_but_last.missing(), [(PARTS - 1, PARTS - 1)]);
    group.bench_function("the last one", |b| b.iter(|| black_box(&all_but_last).missing()));
    group.finish();

    let mut group = c.benchmark_group("record");
    let record = record();
    let encoded = record.encode();
    assert_eq!(Record::decode(&encoded).unwrap(), record);
    group.throughput(Throughput::Bytes(encoded.len() as u64));
    group.bench_function("encode", |b| b.iter(|| black_box(&record).encode()));
    group.bench_function("decode", |b| b.iter(|| Record::decode(black_box(&encoded)).unwrap()));
    group.finish();
}

criterion_group!(benches, parsers, checksums, uploads);
criterion_main!(benches);
