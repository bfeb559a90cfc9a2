//! What was begun, and the end of it.

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{GetOptions, path::Path};

use super::{
    Shared,
    claims::lock,
    place::{Cut, MARKER, Native, Place},
    trouble::Why,
};
use crate::{
    error::Result,
    upload::{Handle, UploadId},
};

/// An upload that is listed: its handle, and when it was begun by the backend's clock, in milliseconds.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    id: UploadId,
    place: Place,
    at: i64,
    /// Its marker is gone; only the directory is known.
    bare: bool,
}

/// How long a multipart upload must have been seen without a mark, by this process, whatever the backend says of its age.
const STRAY_FOR: Duration = Duration::from_secs(15 * 60);

/// Whether nobody will ever speak of a multipart upload any more. Its age alone does not say so: there are backends that tell a wrong one
/// (moto says 2010), and one that was listed a moment after it was begun has no mark yet.
fn is_orphan(begun: Option<i64>, first_seen: i64, now: i64, age: Duration) -> bool {
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let is_past = |at: i64, age: Duration| at <= now.saturating_sub(millis(age));
    begun.is_some_and(|begun| is_past(begun, age)) && is_past(first_seen, age.min(STRAY_FOR))
}

impl Shared {
    pub(super) async fn discard(&self, handle: &Handle) -> Result<()> {
        let place = Place::parse(handle)?;
        if place.dir.is_empty() {
            if let Some(native) = &place.native {
                self.backend.abort(native).await?;
            }
            return Ok(());
        }
        let entry = self.registry.entry(&place.dir);
        // Nothing is put from here on, within this process.
        let sealed = entry.seal().await;
        let marker = self.paths.marker(&place.dir);
        let listed = self.backend.list(&self.paths.dir(&place.dir)).await?;
        let mut staged: Vec<Path> = listed.into_iter().map(|meta| meta.location).collect();
        // Without its mark it was discarded before: that goes last, so that all this is done again should it break off.
        if !staged.is_empty() {
            if let Some(native) = &place.native
                && entry.published().is_none()
                && !entry.is_dropped()
            {
                self.backend.abort(native).await?;
            }
            staged.retain(|path| *path != marker);
            self.backend.delete(staged).await?;
            self.backend.delete(vec![marker]).await?;
        }
        lock(&self.begun).remove(&place.dir);
        self.registry.forget(&place.dir);
        drop(sealed);
        Ok(())
    }

    pub(super) async fn begun(&self, older_than: Duration) -> Result<Vec<(UploadId, Handle)>> {
        let before = match older_than {
            Duration::ZERO => i64::MAX,
            _ => self.now().await? - i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX),
        };
        let known = lock(&self.begun).clone();
        let dirs = self.backend.directories(&self.paths.staging).await?;
        let mut names: Vec<String> = Vec::new();
        for dir in &dirs {
            names.extend(
                dir.filename()
                    .filter(|name| Place::upload(name).is_some())
                    .map(str::to_owned),
            );
        }
        let look = stream::iter(names).map(async |dir: String| match known.get(&dir) {
            Some(begun) => Ok(Some((dir, begun.clone()))),
            None => Ok::<_, crate::Error>(self.look(&dir).await?.map(|begun| (dir, begun))),
        });
        let found: Vec<Option<(String, Begun)>> = look.buffer_unordered(16).try_collect().await?;
        let found: HashMap<String, Begun> = found.into_iter().flatten().collect();
        let mut out: Vec<(UploadId, Handle)> = found
            .values()
            .filter(|begun| begun.at <= before)
            .map(|begun| (begun.id, begun.place.handle()))
            .collect();
        out.extend(self.orphans(&found).await?);
        let keep = found.into_iter().filter(|(_, begun)| !begun.bare);
        *lock(&self.begun) = keep.collect();
        Ok(out)
    }

    /// What a directory is of: as its marker says, or, without one, as its name does.
    async fn look(&self, dir: &str) -> Result<Option<Begun>> {
        let Some(id) = Place::upload(dir) else { return Ok(None) };
        match self.backend.get(&self.paths.marker(dir), GetOptions::default()).await {
            Ok(found) => {
                let at = found.meta.last_modified.timestamp_millis();
                let text = found.bytes().await.map_err(|error| {
                    crate::Error::unavailable("The mark of an upload cannot be read; try again").with_source(error)
                })?;
                let marked = serde_json::from_slice(&text).ok();
                let place = marked.filter(|place: &Place| place.dir == dir);
                Ok(place.map(|place| Begun {
                    id,
                    place,
                    at,
                    bare: false,
                }))
            }
            Err(trouble) if trouble.why == Why::NotThere => {
                let staged = self.backend.list(&self.paths.dir(dir)).await?;
                let newest = staged.iter().map(|meta| meta.last_modified.timestamp_millis()).max();
                Ok(newest.map(|at| Begun {
                    id,
                    place: Place {
                        dir: dir.to_owned(),
                        native: None,
                    },
                    at,
                    bare: true,
                }))
            }
            Err(trouble) => Err(trouble.into()),
        }
    }

    /// Multipart uploads that no mark speaks of: a crash came between the two, or the request was answered twice.
    async fn orphans(&self, found: &HashMap<String, Begun>) -> Result<Vec<(UploadId, Handle)>> {
        let sole = self.options.sole_use.unwrap_or(!self.paths.root.as_ref().is_empty());
        let Some(lister) = self.backend.lister.as_ref().filter(|_| sole) else {
            return Ok(Vec::new());
        };
        let listed = match lister.uploads(&self.paths.root).await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(%error, "unfinished multipart uploads cannot be listed; a rule of the bucket should end them");
                return Ok(Vec::new());
            }
        };
        let spoken_of = |id: &str| {
            let mut natives = found.values().filter_map(|begun| begun.place.native.as_ref());
            natives.any(|native| native.id == id)
        };
        let strays: Vec<_> = listed.into_iter().filter(|upload| !spoken_of(&upload.id)).collect();
        if strays.is_empty() {
            lock(&self.strays).clear();
            return Ok(Vec::new());
        }
        let now = self.now().await?;
        let first_seen: HashMap<String, i64> = {
            let mut known = lock(&self.strays);
            let seen = strays
                .iter()
                .map(|upload| (upload.id.clone(), known.get(&upload.id).copied().unwrap_or(now)));
            *known = seen.collect();
            known.clone()
        };
        let old = strays
            .into_iter()
            .filter(|upload| is_orphan(upload.begun, first_seen[&upload.id], now, self.options.orphan_age));
        Ok(old
            .map(|upload| {
                let nobody = Place::nobody(&upload.id);
                let native = Native {
                    id: upload.id,
                    path: upload.path,
                    cut: Cut::Chunks(0),
                };
                let place = Place {
                    dir: String::new(),
                    native: Some(native),
                };
                (nobody, place.handle())
            })
            .collect())
    }

    /// What the backend's clock says, in milliseconds since 1970: this machine's may be wrong.
    async fn now(&self) -> Result<i64> {
        let path = self.paths.clock();
        self.backend.put(&path, &[]).await?;
        match self.backend.head(&path).await? {
            Some(meta) => Ok(meta.last_modified.timestamp_millis()),
            None => Err(crate::Error::unavailable(
                "The object store does not show what was just stored; try again",
            )),
        }
    }

    /// Begins an upload: the multipart upload first, then the mark that speaks of it.
    pub(super) async fn begin(&self, id: UploadId, path: &Path, cut: Option<Cut>) -> Result<Handle> {
        let native = match cut {
            Some(cut) => Some(Native {
                id: self.backend.begin_multipart(path).await?,
                path: path.as_ref().to_owned(),
                cut,
            }),
            None => None,
        };
        let place = Place {
            dir: format!("{id}.{}", self.name()),
            native,
        };
        let handle = place.handle();
        let marker = self.paths.dir(&place.dir).join(MARKER);
        let mark = bytes::Bytes::from(handle.as_str().to_owned());
        if let Err(trouble) = self.backend.put(&marker, &[mark]).await {
            if let Some(native) = &place.native {
                // If this fails too, it is an orphan.
                let _ = self.backend.abort(native).await;
            }
            return Err(trouble.into());
        }
        Ok(handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_just_seen_is_no_orphan_however_old_it_is_said_to_be() {
        let (day, minute) = (Duration::from_secs(86_400), 60_000);
        let now = 10 * 86_400_000;
        let in_2010 = Some(0);
        assert!(!is_orphan(in_2010, now, now, day));
        assert!(!is_orphan(in_2010, now - 14 * minute, now, day));
        assert!(is_orphan(in_2010, now - 15 * minute, now, day));
        assert!(!is_orphan(Some(now - 60 * minute), 0, now, day), "a day is not over");
        assert!(!is_orphan(None, 0, now, day), "nobody knows its age");
        assert!(is_orphan(Some(now), now, now, Duration::ZERO));
    }
}
