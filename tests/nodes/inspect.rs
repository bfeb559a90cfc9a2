//! What is left when all is quiet: in the bucket, and in the database.

use std::{collections::BTreeSet, process::Command, time::Duration};

use tower_upload::{
    Caller, State, Uploads,
    access::OwnerOnly,
    blob::object::ObjectOptions,
    metadata::{Page, PostgresMetadata},
};

use super::cluster::{Cluster, PREFIX};

pub(crate) struct Found {
    /// What there is, in a line.
    pub(crate) told: String,
    pub(crate) problems: Vec<String>,
}

/// Sweeps once, without the nodes' patience, and looks.
pub(crate) async fn inspect(cluster: &Cluster, users: &[String]) -> Found {
    let mut problems = Vec::new();
    let s3 = S3::of(cluster);
    let blobs = ObjectOptions::default()
        .with_orphan_age(Duration::ZERO)
        .from_url(&s3.url())
        .unwrap();
    let metadata = PostgresMetadata::connect(cluster.database.get("POSTGRES_URL"))
        .await
        .unwrap();
    let uploads = Uploads::with(blobs, metadata)
        .authorizer(OwnerOnly)
        .orphan_grace(Duration::ZERO)
        .without_driver()
        .build()
        .await
        .unwrap();
    let (objects_before, multiparts_before) = (s3.objects(), s3.multiparts());
    let swept = uploads.sweep().await.unwrap();

    let (mut count, mut assembled) = (0, BTreeSet::new());
    for user in users {
        let caller = Caller::new(user.as_str());
        for page in 0.. {
            let found = uploads.list(&caller, Page::new(page * 100, 100)).await.unwrap();
            for upload in &found {
                count += 1;
                match upload.state() {
                    State::Assembled => drop(assembled.insert(format!("{PREFIX}/{}", upload.key()))),
                    State::Aborted | State::Deleted | State::Expired => {}
                    state => problems.push(format!("it neither finished nor expired: {state:?}, {upload:?}")),
                }
            }
            if found.len() < 100 {
                break;
            }
        }
    }
    let audit = uploads.audit(true).await.unwrap();
    problems.extend(audit.findings.iter().map(|finding| format!("audit: {finding:?}")));
    uploads.shutdown(Duration::from_secs(10)).await;

    let (objects, multiparts) = (s3.objects(), s3.multiparts());
    // Which is there for good: it tells what the store's clock says.
    let clock = format!("{PREFIX}/.uploads/clock");
    let strays: Vec<_> = objects
        .symmetric_difference(&assembled)
        .filter(|key| **key != clock)
        .collect();
    if !strays.is_empty() {
        problems.push(format!("either in the bucket or assembled, not both: {strays:?}"));
    }
    if !multiparts.is_empty() {
        problems.push(format!("multipart uploads are left: {multiparts:?}"));
    }
    let database = cluster.database.get("POSTGRES_URL");
    for (what, query) in [
        (
            "parts without a live upload",
            "SELECT count(*) FROM tower_upload.parts p LEFT JOIN tower_upload.uploads u ON u.sequence = p.upload \
             WHERE u.state IS NULL OR u.state NOT IN ('open', 'assembling', 'assembled')",
        ),
        (
            "unfinished uploads that count against a quota",
            "SELECT coalesce(sum(uploads), 0) FROM tower_upload.usage",
        ),
    ] {
        let counted = Command::new("psql").args([database, "-Atc", query]).output().unwrap();
        if String::from_utf8_lossy(&counted.stdout).trim() != "0" {
            problems.push(format!("{what}: {counted:?}"));
        }
    }
    let told = format!(
        "{count} uploads are known, {} of them assembled, all bytes as acknowledged; a sweep found {} objects and {} multipart \
         uploads, took {swept:?}, and left {} objects and {} multipart uploads",
        assembled.len(),
        objects_before.len(),
        multiparts_before.len(),
        objects.len(),
        multiparts.len()
    );
    Found { told, problems }
}

/// The store itself, with no proxy before it.
pub(crate) struct S3<'a>(&'a Cluster);

impl<'a> S3<'a> {
    pub(crate) const fn of(cluster: &'a Cluster) -> Self {
        Self(cluster)
    }

    fn get(&self, name: &str) -> &str {
        self.0.store.get(name)
    }

    fn url(&self) -> String {
        format!(
            "s3://{}/{PREFIX}?endpoint={}&allow_http=true&access_key_id={}&secret_access_key={}&region={}",
            self.get("BUCKET"),
            self.get("AWS_ENDPOINT"),
            self.get("AWS_ACCESS_KEY_ID"),
            self.get("AWS_SECRET_ACCESS_KEY"),
            self.get("AWS_REGION")
        )
    }

    /// The keys of all objects.
    pub(crate) fn objects(&self) -> BTreeSet<String> {
        self.list("list-type=2&max-keys=1000")
    }

    /// The keys of all unfinished multipart uploads.
    fn multiparts(&self) -> BTreeSet<String> {
        self.list("uploads&max-uploads=1000")
    }

    fn list(&self, query: &str) -> BTreeSet<String> {
        let output = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nodes/list.py"))
            .args([self.get("AWS_ENDPOINT"), self.get("BUCKET")])
            .args([self.get("AWS_ACCESS_KEY_ID"), self.get("AWS_SECRET_ACCESS_KEY"), query])
            .output()
            .unwrap();
        let xml = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{xml} {output:?}");
        assert!(
            !xml.contains("<IsTruncated>true"),
            "there is more than was asked for: {xml:.300}"
        );
        let keys = xml.split("<Key>").skip(1);
        keys.filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned()))
            .collect()
    }
}
