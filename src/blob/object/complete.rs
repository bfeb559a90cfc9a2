//! Making one object of the parts, and finding out whether that was done.
//!
//! The object itself is asked before: what lies under the key may be somebody else's, or of an earlier attempt whose end nobody
//! saw. That there is one proves nothing, its entity tag does where it is made of those of the parts, else its bytes.
//!
//! It is asked afterwards only if the answer to the request leaves open what became of it: that answer may be lost, may come inside of
//! a success, and differs between servers when it is asked again. A definite success is believed: it is by the backend's word that
//! every part of it is durable too, and a second look would be at the same word. It says that the upload is now the object
//! at this key; whose bytes those are is told by the tags of the parts, which the backend compared.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;

use super::{
    Shared,
    claims::{Published, Sealed},
    pieces::NotRead,
    place::{Cut, Native, Piece, Place, Put, Stored},
    proof::{bare, blob, composite, found},
    publish::AT_ONCE,
    trouble::{Trouble, Why},
};
use crate::{
    blob::Completed,
    engine::Crc64,
    error::{Error, Result},
    planted::{Bug, planted},
    upload::{Blob, Handle, Key, Part},
};

/// A pause before it is believed that neither a multipart upload nor its object is there.
pub(super) const SECOND_LOOK: Duration = Duration::from_secs(1);

/// What shall become one object.
pub(super) struct Order<'a> {
    pub(super) place: &'a Place,
    pub(super) path: Path,
    pub(super) parts: &'a [Part],
    pub(super) sealed: &'a Sealed,
}

impl Order<'_> {
    pub(super) fn size(&self) -> u64 {
        self.parts.iter().map(|part| part.len).sum()
    }

    /// Names these parts and no others.
    fn fingerprint(&self) -> u64 {
        let mut crc64 = Crc64::new();
        for part in self.parts {
            crc64.update(&part.number.to_be_bytes());
            crc64.update(&part.len.to_be_bytes());
            crc64.update(part.receipt.as_str().as_bytes());
        }
        crc64.value()
    }

    /// The parts whose receipts `is` holds for.
    fn numbers(&self, is: impl Fn(&Stored) -> bool) -> Vec<u32> {
        let parts = self.parts.iter();
        parts
            .filter(|part| Stored::of(part).is_none_or(|stored| is(&stored)))
            .map(|part| part.number)
            .collect()
    }
}

/// How the making of an object ended.
pub(super) enum Made {
    /// It is there; its entity tag, if the backend told one.
    Done(Option<String>),
    /// These parts are not there as recorded.
    Lost(Vec<u32>),
    /// Something is there, by somebody else perhaps.
    Occupied,
    /// The backend knows the multipart upload no more: by its word alone, the object is to be looked for after it.
    Dropped,
    /// It can never be, for this reason.
    Refused(String),
}

impl Shared {
    pub(super) async fn complete(&self, handle: &Handle, key: &Key, parts: &[Part]) -> Result<Completed> {
        let place = Place::parse(handle)?;
        let entry = self.registry.entry(&place.dir);
        let _turn = self.registry.key(key).await;
        let sealed = entry.seal().await;
        let order = Order {
            place: &place,
            path: self.paths.blob(key)?,
            parts,
            sealed: &sealed,
        };
        let completed = self.complete_sealed(&order, key).await;
        if let Ok(Completed::Done(blob)) = &completed {
            sealed.set_published(Published {
                key: key.clone(),
                parts: order.fingerprint(),
                blob: blob.clone(),
            });
        }
        if entry.published().is_some() || entry.is_dropped() {
            self.registry.keep(&place.dir, &entry);
        }
        sealed.unseal();
        completed
    }

    async fn complete_sealed(&self, order: &Order<'_>, key: &Key) -> Result<Completed> {
        if let Some(found) = self.backend.head(&order.path).await? {
            let published = order.sealed.entry.published();
            let known = published.filter(|published| published.key == *key && published.parts == order.fingerprint());
            return match known {
                Some(known) if known.blob == blob(&found) => Ok(Completed::Done(known.blob)),
                _ => self.examine(order, &found, None).await,
            };
        }
        let lost = order.numbers(|_| false);
        if !lost.is_empty() {
            return Ok(Completed::PartsLost(lost));
        }
        let made = self.make(order).await?;
        match made {
            Made::Done(Some(tag)) => Ok(Completed::Done(Blob::new(order.size(), Some(tag)))),
            // By a backend that tells no tag, nor such of its parts that the object's follows from them.
            Made::Done(None) => match self.backend.head(&order.path).await? {
                Some(found) if found.size == order.size() => Ok(Completed::Done(blob(&found))),
                _ => Err(Error::unavailable(
                    "The blob was published, and is not there; try again",
                )),
            },
            Made::Occupied => match self.backend.head(&order.path).await? {
                Some(found) => self.examine(order, &found, None).await,
                None => Err(Error::unavailable("Something was there, and is not; try again")),
            },
            Made::Lost(lost) => Ok(Completed::PartsLost(lost)),
            Made::Refused(reason) => Ok(Completed::Refused(reason)),
            Made::Dropped => Ok(Completed::PartsLost(order.numbers(|stored| !stored.puts.is_empty()))),
        }
    }

    async fn make(&self, order: &Order<'_>) -> Result<Made> {
        if order.size() == 0 {
            if let Some(native) = &order.place.native {
                // An object of no parts is not made of it. Ended before there is one, as nobody comes by here afterwards.
                self.backend.abort(native).await?;
                order.sealed.entry.set_dropped();
            }
            return self.publish_small(order, &[]).await;
        }
        let Some(native) = order.place.native.as_ref().filter(|_| !order.sealed.entry.is_dropped()) else {
            return self.make_staged(order).await;
        };
        if !self.options.aborts && !self.is_marked(order).await? {
            // Discarded, and the backend would not know.
        } else if native.path == order.path.as_ref() {
            match self.make_native(order, native).await? {
                Made::Dropped if self.is_there_now(order).await? => return Ok(Made::Occupied),
                Made::Dropped => {}
                made => return Ok(made),
            }
        } else {
            // It becomes an object under its own key or none. What is sent again is staged then, by every process.
            self.backend.abort(native).await?;
        }
        order.sealed.entry.set_dropped();
        self.make_staged(order).await
    }

    /// Whether the object is there although the multipart upload is not. An attempt whose end nobody saw may have made it after it
    /// was looked for: then the upload is gone because it became the object.
    async fn is_there_now(&self, order: &Order<'_>) -> Result<bool> {
        tokio::time::sleep(SECOND_LOOK).await;
        Ok(self.backend.head(&order.path).await?.is_some())
    }

    /// Whether the upload was not discarded.
    async fn is_marked(&self, order: &Order<'_>) -> Result<bool> {
        let marker = self.paths.marker(&order.place.dir);
        Ok(self.backend.head(&marker).await?.is_some())
    }

    /// Of staged objects alone.
    async fn make_staged(&self, order: &Order<'_>) -> Result<Made> {
        let parts = order.numbers(|stored| !stored.puts.is_empty());
        if !parts.is_empty() {
            return Ok(Made::Lost(parts));
        }
        self.publish_pieces(order, &pieces_of(order)).await
    }

    /// Within the multipart upload that the parts went to.
    async fn make_native(&self, order: &Order<'_>, native: &Native) -> Result<Made> {
        let stored: Vec<Stored> = order.parts.iter().filter_map(Stored::of).collect();
        let puts = match native.cut {
            Cut::Steps { .. } => self.steps(order, native, &stored).await?,
            Cut::Chunks(_) if self.are_parts(order.parts) => self.chunks(order, native, &stored).await?,
            Cut::Chunks(_) if stored.iter().all(|stored| stored.puts.is_empty()) => {
                self.recut(order, native, &pieces_of(order)).await?
            }
            Cut::Chunks(_) => Err(Made::Lost(order.numbers(|stored| !stored.puts.is_empty()))),
        };
        match puts {
            Ok(puts) => self.finish(order, native, &puts).await,
            Err(made) => Ok(made),
        }
    }

    /// Whether the chunks, as long as they are, can be the parts.
    fn are_parts(&self, parts: &[Part]) -> bool {
        let parts: Vec<&Part> = parts.iter().filter(|part| part.len > 0).collect();
        let Some((last, before)) = parts.split_last() else {
            return true;
        };
        let chunk = before.first().map_or(last.len, |first| first.len);
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let in_order = (0..).zip(&parts).all(|(at, part)| part.number == at);
        let equal = before.iter().all(|part| part.len == chunk) && last.len <= chunk;
        in_order && equal && self.options.parts.fit(chunk, count)
    }

    /// Each chunk is a part; those that were kept aside are put in their places.
    async fn chunks(&self, order: &Order<'_>, native: &Native, stored: &[Stored]) -> Result<Result<Vec<Put>, Made>> {
        let mut stored = stored.to_vec();
        stored.retain(|stored| stored.len > 0);
        let puts = stream::iter(stored).map(async |stored: Stored| {
            let aside = match stored.puts.as_slice() {
                [put] if put.index == stored.number => return Ok(put.clone()),
                _ => &stored.pieces,
            };
            let _reserved = self.memory.reserve(stored.len).await.map_err(Stop::Failed)?;
            let frames = self.read_pieces(order.place, aside).await;
            let frames = frames.map_err(|not| Stop::reading(not, |_| vec![stored.number]))?;
            self.put_again(native, stored.number, &frames).await
        });
        collected(puts.buffered(AT_ONCE).try_collect().await)
    }

    /// What ended at steps, and the rest behind the last one.
    async fn steps(&self, order: &Order<'_>, native: &Native, stored: &[Stored]) -> Result<Result<Vec<Put>, Made>> {
        let mut puts: Vec<Put> = stored.iter().flat_map(|stored| stored.puts.clone()).collect();
        let count = u32::try_from(puts.len()).unwrap_or(u32::MAX);
        if (0..).zip(&puts).any(|(at, put)| put.index != at) {
            return Err(Error::internal("The parts of the upload do not follow each other"));
        }
        let rest = stored.last().map_or(&[][..], |last| &last.pieces);
        if rest.is_empty() {
            return Ok(Ok(puts));
        }
        let last = || order.parts.last().map(|part| part.number).into_iter().collect();
        let tail = async {
            let _reserved = self
                .memory
                .reserve(super::place::total(rest))
                .await
                .map_err(Stop::Failed)?;
            let frames = self.read_pieces(order.place, rest).await;
            let frames = frames.map_err(|not| Stop::reading(not, |_| last()))?;
            self.put_again(native, count, &frames).await
        };
        Ok(match collected(tail.await)? {
            Ok(tail) => {
                puts.push(tail);
                Ok(puts)
            }
            Err(made) => Err(made),
        })
    }

    pub(super) async fn put_again(&self, native: &Native, index: u32, frames: &[Bytes]) -> Result<Put, Stop> {
        let put = self.backend.put_part(native, index, frames).await;
        self.counters.sent(frames.iter().map(|frame| frame.len() as u64).sum());
        put.map_err(|trouble| match trouble.why {
            Why::NotThere => Stop::Made(Made::Dropped),
            _ => Stop::Failed(trouble.into()),
        })
    }

    /// Asks the backend to make the object, and, if its answer leaves that open, the object itself.
    async fn finish(&self, order: &Order<'_>, native: &Native, puts: &[Put]) -> Result<Made> {
        let trouble = match self.backend.complete(native, puts).await {
            // Ceph's gateway leaves the tag out.
            Ok(tag) => return Ok(Made::Done(tag.map(|tag| bare(&tag)).or_else(|| composite(puts)))),
            Err(_) if planted(Bug::LostAnswerIsSuccess) => return Ok(Made::Done(composite(puts))),
            Err(trouble) => trouble,
        };
        tracing::debug!(?trouble, "whether a blob was made is not known, and found out");
        if let Some(found) = self.backend.head(&order.path).await? {
            return match self.examine(order, &found, Some(puts)).await? {
                Completed::Done(blob) => Ok(Made::Done(blob.etag)),
                _ => Ok(Made::Occupied),
            };
        }
        match trouble.why {
            Why::NotThere => Ok(Made::Dropped),
            Why::OtherPart => self.other_parts(order, native, puts, trouble).await,
            Why::Unfit => Ok(unfit(&trouble)),
            _ => Err(trouble.into()),
        }
    }

    /// Which parts are not those that the receipts speak of: as the backend lists them, or all, if it cannot be asked. What was put
    /// again with the same bytes, by an older attempt that came late, is taken as it is there.
    async fn other_parts(&self, order: &Order<'_>, native: &Native, puts: &[Put], trouble: Trouble) -> Result<Made> {
        let there = match &self.backend.lister {
            Some(lister) => lister.parts(native).await?,
            None => None,
        };
        if there.is_none() && self.is_there_now(order).await? {
            return Ok(Made::Occupied);
        }
        let is_listed = there.is_some();
        let there = there.unwrap_or_default();
        match puts.iter().map(|put| found(put, &there)).collect::<Option<Vec<Put>>>() {
            Some(now) if now != puts => return Box::pin(self.finish(order, native, &now)).await,
            Some(_) if is_listed => return self.finish_once_more(order, native, puts).await,
            _ => {}
        }
        let is_lost = |put: &Put| found(put, &there).is_none();
        let lost = order.numbers(|stored| stored.puts.iter().any(is_lost));
        tracing::warn!(
            ?lost,
            parts = puts.len(),
            "the object store has other parts than those recorded"
        );
        // What was put just now by this very call, and written over, is put again the next time.
        if lost.is_empty() {
            Err(trouble.into())
        } else {
            Ok(Made::Lost(lost))
        }
    }

    /// The backend refused parts that it lists, all of them: unequal ones, if it wants them equal (R2). It is believed when it says so
    /// twice; a request that was late might have been in between.
    async fn finish_once_more(&self, order: &Order<'_>, native: &Native, puts: &[Put]) -> Result<Made> {
        tokio::time::sleep(SECOND_LOOK).await;
        let trouble = match self.backend.complete(native, puts).await {
            Ok(tag) => return Ok(Made::Done(tag.map(|tag| bare(&tag)).or_else(|| composite(puts)))),
            Err(trouble) => trouble,
        };
        match trouble.why {
            Why::NotThere => Ok(Made::Dropped),
            // Some say the same of an upload that became an object meanwhile.
            Why::OtherPart => match self.backend.head(&order.path).await? {
                Some(_) => Ok(Made::Occupied),
                None => Ok(unfit(&trouble)),
            },
            _ => Err(trouble.into()),
        }
    }
}

/// The parts are as they were sent, and will be the next time.
fn unfit(trouble: &Trouble) -> Made {
    tracing::error!(
        ?trouble,
        "the object store takes other parts than the options say: see `with_parts`"
    );
    Made::Refused(
        "this store makes no object of such parts: some are too small, too large or not as long as the others; say what it \
         takes by `with_parts`, then send the file again"
            .to_owned(),
    )
}

/// Why the way to the parts ended early.
pub(super) enum Stop {
    Made(Made),
    Failed(Error),
}

impl Stop {
    pub(super) fn reading(not: NotRead, numbers: impl FnOnce(usize) -> Vec<u32>) -> Self {
        match not {
            NotRead::Lost(at) => Self::Made(Made::Lost(numbers(at))),
            NotRead::Failed(error) => Self::Failed(error),
        }
    }
}

pub(super) fn collected<T>(result: Result<T, Stop>) -> Result<Result<T, Made>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Stop::Made(made)) => Ok(Err(made)),
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// All staged objects of an upload whose parts are kept as they came.
fn pieces_of(order: &Order<'_>) -> Vec<Piece> {
    let pieces = order.parts.iter().filter_map(Stored::of);
    pieces.flat_map(|stored| stored.pieces).collect()
}
