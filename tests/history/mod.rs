//! What a client was told of its films, against what the server says and has afterwards.
#![allow(dead_code, clippy::unwrap_used, reason = "each suite uses some of it")]

use std::{collections::BTreeSet, path::Path};

use serde_json::{Value, json};

use super::wire::{Numbers, Reply, Request};

/// How far the client went with giving a film up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    No,
    /// Asked for, but not answered.
    Asked,
    Done,
}

/// A file of the client and all it was told of it.
#[derive(Clone, Debug)]
pub(crate) struct Film {
    pub(crate) user: String,
    pub(crate) video: String,
    pub(crate) name: String,
    pub(crate) len: usize,
    pub(crate) chunk: usize,
    /// Sent as forms, chunk first, by name; else as bodies to an upload that was created before.
    pub(crate) as_forms: bool,
    pub(crate) id: Option<String>,
    /// Chunks of which the last byte was sent.
    pub(crate) sent: BTreeSet<u32>,
    /// Chunks whose storing was answered.
    pub(crate) acknowledged: BTreeSet<u32>,
    /// Where it lies, once the assembly was answered.
    pub(crate) published: Option<String>,
    pub(crate) deletion: Deletion,
    seed: u64,
}

/// What the server says of a film.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// It does not know it, or does not any more.
    Unknown,
    Unfinished {
        missing: Vec<u32>,
        sealed: bool,
    },
    Published,
    Ended,
}

impl Film {
    pub(crate) fn new(user: &str, n: usize, len: usize, chunk: usize, as_forms: bool, seed: u64) -> Self {
        Self {
            user: user.to_owned(),
            video: format!("{n}"),
            name: format!("film {n}.mp4"),
            len,
            chunk,
            as_forms,
            id: None,
            sent: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            published: None,
            deletion: Deletion::No,
            seed,
        }
    }

    pub(crate) fn content(&self) -> Vec<u8> {
        Numbers::new(self.seed).bytes(self.len)
    }

    pub(crate) fn total(&self) -> u32 {
        u32::try_from(self.len.div_ceil(self.chunk)).unwrap()
    }

    pub(crate) fn chunk_len(&self, index: u32) -> usize {
        let begin = index as usize * self.chunk;
        self.chunk.min(self.len - begin)
    }

    pub(crate) fn creation(&self) -> Request {
        let body = json!({
            "fileName": self.name, "fileSize": self.len, "chunkSize": self.chunk, "videoId": self.video,
        });
        Request::json(&self.user, "POST /uploads/", &body)
    }

    pub(crate) fn status(&self) -> Request {
        let path = match &self.id {
            Some(id) => format!("/uploads/{id}/"),
            None => format!(
                "/uploads/?videoId={}&fileName={}",
                self.video,
                self.name.replace(' ', "%20")
            ),
        };
        Request::get(&self.user, &path)
    }

    pub(crate) fn piece(&self, content: &[u8], index: u32) -> Request {
        let begin = index as usize * self.chunk;
        let bytes = &content[begin..begin + self.chunk_len(index)];
        match &self.id {
            Some(id) if !self.as_forms => Request::raw(&self.user, &format!("PUT /uploads/{id}/chunks/{index}"), bytes),
            _ => Request::form(&self.user, &self.video, &self.name, index, self.total(), bytes),
        }
    }

    pub(crate) fn assembly(&self) -> Request {
        match &self.id {
            Some(id) if !self.as_forms => {
                Request::json(&self.user, &format!("POST /uploads/{id}/assemble/"), &json!({}))
            }
            _ => {
                let body = json!({"videoId": self.video, "fileName": self.name});
                Request::json(&self.user, "POST /assemble-chunks/", &body)
            }
        }
    }

    pub(crate) fn deletion(&self) -> Option<Request> {
        let id = self.id.as_ref()?;
        Some(Request::raw(&self.user, &format!("DELETE /uploads/{id}/"), b""))
    }

    /// Takes note of the answer to a creation.
    pub(crate) fn created(&mut self, reply: &Reply) {
        self.id = Some(reply.data()["upload_id"].as_str().unwrap().to_owned());
    }

    /// Takes note of the answer to an assembly.
    pub(crate) fn assembled(&mut self, reply: &Reply) {
        self.published = Some(reply.data()["video_path"].as_str().unwrap().to_owned());
    }

    /// Compares what the server says of the film with what it said before.
    ///
    /// # Errors
    /// The contradiction.
    pub(crate) fn check_status(&mut self, reply: &Reply) -> Result<View, String> {
        let known = self.clone();
        let wrong = |what: &str| Err(format!("{what}: {reply:?}; client: {known:?}"));
        if reply.status == 404 {
            let forgotten_by_name = self.id.is_none() && self.deletion != Deletion::No;
            let never_acknowledged = self.id.is_none() && self.acknowledged.is_empty() && self.published.is_none();
            return if never_acknowledged || forgotten_by_name {
                Ok(View::Unknown)
            } else {
                wrong("an acknowledged upload is unknown")
            };
        }
        if reply.status != 200 {
            return wrong("no status");
        }
        let data = reply.data();
        let state = data["state"].as_str().unwrap();
        match state {
            "aborted" | "deleted" if self.deletion == Deletion::No => return wrong("nobody gave it up"),
            "aborted" | "deleted" => return Ok(View::Ended),
            _ if self.deletion == Deletion::Done => return wrong("it was given up"),
            "open" | "assembling" if self.published.is_some() => return wrong("it was published"),
            "open" | "assembling" | "assembled" => {}
            _ => return wrong("a state that nobody asked for"),
        }
        let (received, missing) = (set(&data["received"]), set(&data["missing"]));
        if !self.acknowledged.is_subset(&received) {
            return wrong("an acknowledged chunk is lost");
        }
        if !received.is_subset(&self.sent) {
            return wrong("a chunk is there that was not sent to its end");
        }
        let all: BTreeSet<u32> = (0..self.total()).collect();
        if !received.is_disjoint(&missing) || &received | &missing != all {
            return wrong("received and missing do not make the whole");
        }
        let bytes: usize = received.iter().map(|index| self.chunk_len(*index)).sum();
        if data["bytes"] != json!(bytes) {
            return wrong("the bytes are not those of the chunks");
        }
        self.id = Some(data["upload_id"].as_str().unwrap().to_owned());
        if state != "assembled" {
            let (missing, sealed) = (missing.into_iter().collect(), state == "assembling");
            return Ok(View::Unfinished { missing, sealed });
        }
        let path = data["video_path"].as_str().unwrap();
        if self.published.as_deref().is_some_and(|known| known != path) {
            return wrong("it was published elsewhere");
        }
        self.published = Some(path.to_owned());
        Ok(View::Published)
    }

    /// Compares the published file beneath `directory` with what was sent. Answers its length.
    ///
    /// # Errors
    /// The difference.
    pub(crate) fn check_published(&self, directory: &Path) -> Result<usize, String> {
        let path = self.published.as_ref().ok_or("it was not published")?;
        let bytes = std::fs::read(directory.join("blobs").join(path)).map_err(|error| format!("{error}: {self:?}"))?;
        let content = self.content();
        if bytes == content {
            return Ok(bytes.len());
        }
        let at = bytes.iter().zip(&content).position(|(is, was)| is != was);
        Err(format!(
            "{} bytes are published, {} were sent, the first difference is at {at:?}: {self:?}",
            bytes.len(),
            content.len()
        ))
    }
}

/// Ranges, both ends included, as the set of their members.
fn set(ranges: &Value) -> BTreeSet<u32> {
    let number = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let ranges = ranges.as_array().unwrap().iter();
    ranges.flat_map(|range| number(&range[0])..=number(&range[1])).collect()
}

/// Files beneath `directory`, by their paths in it.
pub(crate) fn files(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}
