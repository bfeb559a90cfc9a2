//! Checksums as bytes stream by, and the checksum of a whole file out of those of its parts.

use std::sync::OnceLock;

use crc_fast::CrcAlgorithm;
use md5::{
    Digest as _,
    digest::common::hazmat::{SerializableState, SerializedState},
};

use crate::{
    error::Result,
    upload::{Algorithm, Digest, HashState},
};

/// CRC-64/NVME of what passes by.
#[derive(Debug, Clone)]
pub struct Crc64(crc_fast::Digest);

impl Crc64 {
    /// Of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme))
    }

    /// Takes `bytes` in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.finalize()
    }

    /// The checksum of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> u64 {
        crc_fast::crc64_nvme(bytes)
    }
}

impl Default for Crc64 {
    fn default() -> Self {
        Self::new()
    }
}

/// Any algorithm a client may name, as the bytes stream by.
#[derive(Clone)]
pub(crate) enum Hasher {
    Md5(md5::Md5),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Sha512(Box<sha2::Sha512>),
    Crc(Algorithm, crc_fast::Digest),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let crc = |crc| Self::Crc(algorithm, crc_fast::Digest::new(crc));
        match algorithm {
            Algorithm::Md5 => Self::Md5(md5::Md5::new()),
            Algorithm::Sha1 => Self::Sha1(sha1::Sha1::new()),
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Box::new(sha2::Sha512::new())),
            Algorithm::Crc32 => crc(CrcAlgorithm::Crc32IsoHdlc),
            Algorithm::Crc32c => crc(CrcAlgorithm::Crc32Iscsi),
            Algorithm::Crc64Nvme => crc(CrcAlgorithm::Crc64Nvme),
            Algorithm::Blake3 => Self::Blake3(Box::new(blake3::Hasher::new())),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(hasher) => hasher.update(bytes),
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
            Self::Crc(_, hasher) => hasher.update(bytes),
            Self::Blake3(hasher) => {
                hasher.update(bytes);
            }
        }
    }

    /// The state after `end` bytes, where the algorithm's crate can give it.
    pub(crate) fn save(&self, end: u64) -> Option<HashState> {
        fn lead(tag: u8, state: &[u8]) -> Vec<u8> {
            [&[tag], state].concat()
        }
        let state = match self {
            Self::Md5(hasher) => lead(0, &hasher.serialize()),
            Self::Sha1(hasher) => lead(1, &hasher.serialize()),
            Self::Sha256(hasher) => lead(2, &hasher.serialize()),
            Self::Sha512(hasher) => lead(3, &hasher.serialize()),
            Self::Crc(..) | Self::Blake3(_) => return None,
        };
        Some(HashState::new(end, state))
    }

    /// The hasher of a saved state; `None` if it is of another algorithm or a form not known.
    pub(crate) fn restore(algorithm: Algorithm, saved: &HashState) -> Option<Self> {
        fn load<T: SerializableState>(state: &[u8]) -> Option<T> {
            T::deserialize(SerializedState::<T>::try_from(state).ok().as_ref()?).ok()
        }
        match (algorithm, saved.state.split_first()?) {
            (Algorithm::Md5, (0, state)) => load(state).map(Self::Md5),
            (Algorithm::Sha1, (1, state)) => load(state).map(Self::Sha1),
            (Algorithm::Sha256, (2, state)) => load(state).map(Self::Sha256),
            (Algorithm::Sha512, (3, state)) => load(state).map(|hasher| Self::Sha512(Box::new(hasher))),
            _ => None,
        }
    }

    pub(crate) fn finish(self) -> Result<Digest> {
        match self {
            Self::Md5(hasher) => Digest::new(Algorithm::Md5, hasher.finalize().as_slice()),
            Self::Sha1(hasher) => Digest::new(Algorithm::Sha1, hasher.finalize().as_slice()),
            Self::Sha256(hasher) => Digest::new(Algorithm::Sha256, hasher.finalize().as_slice()),
            Self::Sha512(hasher) => Digest::new(Algorithm::Sha512, hasher.finalize().as_slice()),
            Self::Crc(algorithm, hasher) => {
                let bytes = hasher.finalize().to_be_bytes();
                Digest::new(algorithm, &bytes[8 - algorithm.len()..])
            }
            Self::Blake3(hasher) => Digest::new(Algorithm::Blake3, hasher.finalize().as_bytes().as_slice()),
        }
    }
}

/// Combines the CRC-64/NVME of parts, in order, into that of their concatenation.
///
/// Moving a checksum over bytes is a linear map over GF(2). Those for 1, 2, 4, … bytes are made once in a process; a part
/// costs one for each bit that is set in its length.
#[derive(Debug)]
pub(crate) struct Combiner(u64);

type Matrix = [u64; 64];

/// The reflected polynomial of CRC-64/NVME.
const POLYNOMIAL: u64 = 0x9a6c_9329_ac4b_c9b5;

impl Combiner {
    pub(crate) const fn new() -> Self {
        Self(0)
    }

    pub(crate) fn push(&mut self, crc64: u64, len: u64) {
        let set = |bit: &usize| len >> bit & 1 == 1;
        for bit in (0..64).filter(set) {
            self.0 = apply(&powers()[bit], self.0);
        }
        self.0 ^= crc64;
    }

    pub(crate) const fn value(&self) -> u64 {
        self.0
    }
}

fn apply(matrix: &Matrix, mut vector: u64) -> u64 {
    let mut sum = 0;
    let mut row = 0;
    while vector != 0 {
        let skip = vector.trailing_zeros() as usize;
        row += skip;
        sum ^= matrix[row];
        vector = vector >> skip >> 1;
        row += 1;
    }
    sum
}

fn square(matrix: &Matrix) -> Matrix {
    matrix.map(|column| apply(matrix, column))
}

/// The maps that appending 1, 2, 4, … zero bytes are.
fn powers() -> &'static [Matrix; 64] {
    static POWERS: OnceLock<Box<[Matrix; 64]>> = OnceLock::new();
    POWERS.get_or_init(|| {
        let mut power: Matrix = [0; 64];
        power[0] = POLYNOMIAL;
        for (row, column) in power.iter_mut().enumerate().skip(1) {
            *column = 1 << (row - 1);
        }
        // One bit, squared three times, is one byte.
        for _ in 0..3 {
            power = square(&power);
        }
        let mut powers = Box::new([power; 64]);
        for bit in 1..64 {
            powers[bit] = square(&powers[bit - 1]);
        }
        powers
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_catalogues() {
        for (algorithm, hex) in [
            (Algorithm::Md5, "25f9e794323b453885f5181f1b624d0b"),
            (Algorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
            (
                Algorithm::Sha256,
                "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
            ),
            (Algorithm::Crc32, "cbf43926"),
            (Algorithm::Crc32c, "e3069283"),
            (Algorithm::Crc64Nvme, "ae8b14860a799888"),
        ] {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"1234");
            hasher.update(b"56789");
            assert_eq!(hasher.finish().unwrap().to_string(), format!("{algorithm}:{hex}"));
        }
        for algorithm in Algorithm::ALL {
            assert_eq!(
                Hasher::new(algorithm).finish().unwrap().as_bytes().len(),
                algorithm.len()
            );
        }
    }

    #[test]
    fn a_saved_hash_goes_on() {
        for algorithm in Algorithm::ALL {
            let mut whole = Hasher::new(algorithm);
            whole.update(b"hello, world");
            let mut first = Hasher::new(algorithm);
            first.update(b"hello, ");
            let Some(saved) = first.save(7) else { continue };
            let mut second = Hasher::restore(algorithm, &saved).unwrap();
            second.update(b"world");
            assert_eq!(second.finish().unwrap(), whole.finish().unwrap());
            assert!(Hasher::restore(Algorithm::Blake3, &saved).is_none());
        }
    }

    #[test]
    fn combined_as_if_read_at_once() {
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i * 31 % 251) as u8).collect();
        for lens in [
            vec![1, 2, 3],
            vec![5000; 19],
            vec![0, 0, 7],
            vec![65_536, 1, 34_463],
            vec![],
        ] {
            let mut combiner = Combiner::new();
            let mut at = 0;
            for len in lens {
                combiner.push(Crc64::of(&bytes[at..at + len]), len as u64);
                at += len;
            }
            assert_eq!(combiner.value(), Crc64::of(&bytes[..at]));
        }
    }
}
