//! Bytes on their way from a body into a part writer: gathered within the budget, counted and summed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_core::stream::BoxStream;
use futures_util::StreamExt as _;

use super::{
    Inner,
    budget::Reservation,
    checksum::{Crc64, Hasher},
    live::{Turn, superseded},
};
use crate::{
    blob::PartWriter,
    error::{Error, Result},
    observe,
    planted::{Bug, planted},
    upload::{Algorithm, Digest, Receipt},
};

/// A client that sends nothing for this long has what was gathered of it written, so that it holds no memory.
const IDLE: Duration = Duration::from_millis(20);

/// Frames below this are copied together: each costs more to keep than its bytes, and a client can send one for every byte.
const SMALL: usize = 4 << 10;

/// Where a full batch ends in its part: the page cache takes what begins and ends so in few large pieces.
const ALIGNED: u64 = 256 << 10;

/// What a body gives next.
pub(super) enum Next {
    Frame(Bytes),
    Idle,
    End,
}

/// The next frame of a body; [`Next::Idle`] if bytes are `gathering` and none comes for a while. Cancel-safe.
pub(super) async fn next(body: &mut BoxStream<'_, Result<Bytes>>, gathering: bool) -> Result<Next> {
    let frame = if gathering {
        match tokio::time::timeout(IDLE, body.next()).await {
            Ok(frame) => frame,
            Err(_) => return Ok(Next::Idle),
        }
    } else {
        body.next().await
    };
    Ok(frame.transpose()?.map_or(Next::End, Next::Frame))
}

/// One attempt at one part.
pub(super) struct Intake {
    writer: Box<dyn PartWriter>,
    gathered: Vec<Bytes>,
    small: BytesMut,
    gathered_len: usize,
    is_full: bool,
    reservation: Option<Reservation>,
    budgeted: bool,
    len: u64,
    crc64: Crc64,
    hasher: Option<Hasher>,
}

impl Intake {
    /// `budgeted`: whether the frames are new to memory, rather than held in it and paid for already.
    pub(super) fn new(writer: Box<dyn PartWriter>, algorithm: Option<Algorithm>, budgeted: bool) -> Self {
        Self {
            writer,
            gathered: Vec::new(),
            small: BytesMut::new(),
            gathered_len: 0,
            is_full: false,
            reservation: None,
            budgeted,
            len: 0,
            crc64: Crc64::new(),
            hasher: algorithm.map(Hasher::new),
        }
    }

    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn crc64(&self) -> u64 {
        self.crc64.value()
    }

    /// The digest of the algorithm that was asked for.
    pub(super) fn digest(&self) -> Result<Option<Digest>> {
        self.hasher.clone().map(Hasher::finish).transpose()
    }

    /// Takes in all of `body`, which has `max` bytes at most; stops when a newer request takes `turn` over.
    pub(super) async fn take_all(
        &mut self,
        inner: &Inner,
        body: &mut BoxStream<'_, Result<Bytes>>,
        max: u64,
        turn: &Turn,
    ) -> Result<()> {
        let newer = turn.superseded();
        tokio::pin!(newer);
        loop {
            let next = tokio::select! {
                biased;
                () = &mut newer => return Err(superseded()),
                next = next(body, self.is_gathering()) => next?,
            };
            match next {
                Next::Frame(frame) if self.len + frame.len() as u64 > max => {
                    return Err(Error::invalid(
                        "chunk",
                        format!("The chunk is longer than its {max} bytes"),
                    ));
                }
                Next::Frame(frame) => {
                    if self.gather(inner, frame) {
                        self.flush().await?;
                    }
                }
                Next::Idle => self.flush().await?,
                // The rest goes with the sync.
                Next::End => return Ok(()),
            }
        }
    }

    pub(super) const fn is_gathering(&self) -> bool {
        self.gathered_len > 0
    }

    /// Takes one frame in; whether it is time to [`flush`](Self::flush).
    pub(super) fn gather(&mut self, inner: &Inner, frame: Bytes) -> bool {
        if frame.is_empty() {
            return false;
        }
        self.crc64.update(&frame);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&frame);
        }
        self.len += frame.len() as u64;
        if self.budgeted && self.reservation.is_none() {
            self.reservation = inner.budget.reserve(inner.config.batch as u64);
        }
        self.gathered_len += frame.len();
        if frame.len() < SMALL {
            self.small.extend_from_slice(&frame);
        } else {
            self.join_small();
            self.gathered.push(frame);
        }
        let may_gather = !self.budgeted || self.reservation.is_some();
        let is_due = !may_gather || self.gathered_len >= inner.config.batch;
        // Where memory is scarce nothing stays behind that would keep its reservation.
        self.is_full = is_due && may_gather && !inner.budget.is_scarce();
        is_due
    }

    fn join_small(&mut self) {
        if !self.small.is_empty() {
            self.gathered.push(self.small.split().freeze());
        }
    }

    /// Hands what was gathered to the writer; of a full batch not the rest behind its aligned end.
    pub(super) async fn flush(&mut self) -> Result<()> {
        self.join_small();
        let rest = self.take_rest();
        let rest_len: usize = rest.iter().map(Bytes::len).sum();
        observe::received((self.gathered_len - rest_len) as u64);
        self.gathered_len = rest_len;
        let frames = std::mem::replace(&mut self.gathered, rest);
        let result = if frames.is_empty() {
            Ok(())
        } else {
            self.writer.write(frames).await
        };
        if rest_len == 0 {
            free(self.reservation.take(), self.hasher.is_some());
        }
        result
    }

    /// Takes away what lies behind the last aligned place, if the batch is full.
    fn take_rest(&mut self) -> Vec<Bytes> {
        let mut len = usize::try_from(self.len % ALIGNED).unwrap_or(0);
        if !std::mem::take(&mut self.is_full) || len >= self.gathered_len {
            return Vec::new();
        }
        let mut rest = Vec::new();
        while len > 0
            && let Some(mut frame) = self.gathered.pop()
        {
            if frame.len() > len {
                let tail = frame.split_off(frame.len() - len);
                self.gathered.push(std::mem::replace(&mut frame, tail));
            }
            len -= frame.len();
            rest.push(frame);
        }
        rest.reverse();
        rest
    }

    /// Makes the part durable.
    pub(super) async fn finish(mut self) -> Result<Receipt> {
        self.join_small();
        observe::received(self.gathered_len as u64);
        let receipt = if self.gathered.is_empty() {
            self.writer.finish().await
        } else {
            self.writer.finish_with(self.gathered).await
        };
        free(self.reservation, self.hasher.is_some());
        receipt
    }
}

/// Gives memory back once what lay in it is written.
fn free(reservation: Option<Reservation>, is_hashed: bool) {
    if let Some(reservation) = reservation
        && planted(Bug::BudgetPermitLeaked)
        && is_hashed
    {
        reservation.forget();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use async_trait::async_trait;

    use super::*;

    #[derive(Debug)]
    struct Nowhere;

    #[async_trait]
    impl PartWriter for Nowhere {
        async fn write(&mut self, _: Vec<Bytes>) -> Result<()> {
            Ok(())
        }
        async fn finish(self: Box<Self>) -> Result<Receipt> {
            unreachable!()
        }
    }

    #[test]
    fn a_full_batch_ends_at_an_aligned_place_and_the_rest_stays_in_order() {
        let aligned = usize::try_from(ALIGNED).unwrap();
        let bytes: Vec<u8> = (0..3 * aligned).map(|at| (at % 251) as u8).collect();
        for (frames, is_full, expected_rest) in [
            (vec![aligned], true, 0),
            (vec![aligned + 1], true, 1),
            (vec![aligned - 1, 2], true, 1),
            (vec![aligned - 1, 1, 7, 8, 9], true, 24),
            (vec![2 * aligned + 10, 5], true, 15),
            (vec![10, 2 * aligned], true, 10),
            (vec![aligned + 1], false, 0),
            (vec![aligned - 1], true, 0),
        ] {
            let mut intake = Intake::new(Box::new(Nowhere), None, false);
            let mut at = 0;
            for len in &frames {
                intake.gathered.push(Bytes::copy_from_slice(&bytes[at..at + len]));
                at += len;
            }
            (intake.len, intake.gathered_len, intake.is_full) = (at as u64, at, is_full);
            let rest = intake.take_rest().concat();
            assert_eq!(rest.len(), expected_rest, "{frames:?}");
            assert!([intake.gathered.concat(), rest].concat() == bytes[..at], "{frames:?}");
            assert!(!intake.is_full);
        }
    }
}
