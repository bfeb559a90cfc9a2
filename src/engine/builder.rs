use std::marker::PhantomData;

/// Builder state: nobody said who may do what.
#[derive(Debug)]
pub enum Unauthorized {}
/// Builder state: `build` exists.
#[derive(Debug)]
pub enum Ready {}

/// What is read back before a blob is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verify {
    /// Nothing: syncs and receipts are trusted.
    #[default]
    Receipts,
    /// Every byte is read back and compared with the checksum of its part.
    Read,
}

/// Builds [`Uploads`](super::Uploads).
#[derive(Debug)]
pub struct Builder<A>(PhantomData<A>);
