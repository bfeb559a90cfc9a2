//! [`SimFs`]: a file system in memory that knows what a kill leaves and what a power loss takes.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod durable;
mod effects;
mod world;

use std::{
    fmt, future, io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{sync::Notify, task::AbortHandle, time::Instant};

use self::world::World;
use crate::upload::Timestamp;

/// A seeded generator of numbers.
#[derive(Clone, Debug)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What the file system is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OpKind {
    Create,
    Open,
    Stat,
    Write,
    Read,
    Copy,
    SetLen,
    Sync,
    Mkdir,
    Rmdir,
    Link,
    Rename,
    Unlink,
    List,
    Free,
}

impl OpKind {
    /// Whether a crash before it and one after it can differ.
    pub(crate) const fn is_effect(self) -> bool {
        !matches!(self, Self::Open | Self::Stat | Self::Read | Self::List | Self::Free)
    }
}

/// One call, as the hook sees it.
#[derive(Debug)]
pub(crate) struct Op<'a> {
    pub(crate) kind: OpKind,
    /// The path, or the one that the file was opened by.
    pub(crate) path: &'a str,
}

/// What happens instead of a plain success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is done but this error number. A sync forgets for good what it should have written.
    Error(i32),
    /// It is done, and reported as this error number.
    ErrorAfter(i32),
    /// It is done after this time.
    Pause(Duration),
}

type Hook = Box<dyn FnMut(&Op<'_>) -> Option<Fault> + Send>;

/// A file system in memory. Clones are the same one, as the same process sees it; [`crash`](Self::crash)
/// and [`power_loss`](Self::power_loss) give the one that the next process sees. For the process that died no
/// call returns any more.
#[derive(Clone)]
pub(crate) struct SimFs {
    machine: Arc<Machine>,
    life: u64,
}

struct Machine {
    state: Mutex<State>,
    died: Notify,
    booted: Instant,
}

struct State {
    world: World,
    rng: SplitMix64,
    life: u64,
    effects: u64,
    stop_before: Option<u64>,
    latency: Duration,
    hook: Option<Hook>,
    jobs: Vec<AbortHandle>,
}

/// Where the clock stood when the machine was booted.
const EPOCH: Timestamp = Timestamp::from_millis(1_700_000_000_000);

impl SimFs {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            machine: Arc::new(Machine {
                state: Mutex::new(State {
                    world: World::new(),
                    rng: SplitMix64::new(seed),
                    life: 0,
                    effects: 0,
                    stop_before: None,
                    latency: Duration::ZERO,
                    hook: None,
                    jobs: Vec::new(),
                }),
                died: Notify::new(),
                booted: Instant::now(),
            }),
            life: 0,
        }
    }

    /// Each call takes up to `most` before and again after it is done. Needs tokio's clock, best paused.
    pub(crate) fn set_latency(&self, most: Duration) {
        self.state().latency = most;
    }

    /// The bytes there are room for.
    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.state().world.capacity = bytes;
    }

    /// How many files may be open at once.
    pub(crate) fn set_max_open(&self, files: usize) {
        self.state().world.max_open = files;
    }

    /// Asked before each call.
    pub(crate) fn set_hook(&self, hook: impl FnMut(&Op<'_>) -> Option<Fault> + Send + 'static) {
        self.state().hook = Some(Box::new(hook));
    }

    pub(crate) fn clear_hook(&self) {
        self.state().hook = None;
    }

    /// The process dies before effect number `effect`, counted from 0; a write or a copy may get half way.
    pub(crate) fn stop_before(&self, effect: u64) {
        self.state().stop_before = Some(effect);
    }

    /// How many effects there were.
    pub(crate) fn effects(&self) -> u64 {
        self.state().effects
    }

    /// Files that are open.
    pub(crate) fn open_files(&self) -> usize {
        self.state().world.open
    }

    /// The paths of all files.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.state().world.paths()
    }

    /// Waits until the process died.
    pub(crate) async fn died(&self) {
        loop {
            let died = self.machine.died.notified();
            if self.state().life != self.life {
                return;
            }
            died.await;
        }
    }

    /// Kills the process; what it wrote stays.
    pub(crate) fn crash(&self) -> Self {
        let mut state = self.state();
        self.machine.kill(&mut state);
        state.world.close_all();
        self.next_life(state)
    }

    /// Takes the power away: of what was not synced some is lost, down to single sectors and names.
    pub(crate) fn power_loss(&self) -> Self {
        let mut state = self.state();
        self.machine.kill(&mut state);
        let mut rng = state.rng.clone();
        state.world.power_loss(&mut rng);
        state.rng = rng;
        self.next_life(state)
    }

    fn next_life(&self, mut state: MutexGuard<'_, State>) -> Self {
        state.hook = None;
        state.stop_before = None;
        Self {
            machine: Arc::clone(&self.machine),
            life: state.life,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.machine.state.lock().unwrap()
    }

    async fn call<T>(
        &self,
        kind: OpKind,
        path: &str,
        run: impl FnOnce(&mut State, Option<i32>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.latency().await;
        let fault = {
            let mut state = self.state();
            let mut hook = state.hook.take();
            let fault = hook.as_mut().and_then(|hook| hook(&Op { kind, path }));
            state.hook = state.hook.take().or(hook);
            fault
        };
        if let Some(Fault::Pause(time)) = fault {
            tokio::time::sleep(time).await;
        }
        let mut run = Some(run);
        let outcome = {
            let mut state = self.state();
            let stops = kind.is_effect() && state.stop_before == Some(state.effects);
            if state.life != self.life {
                None
            } else if stops {
                if matches!(kind, OpKind::Write | OpKind::Copy) {
                    state.world.tear = Some(state.rng.next());
                    let _ = run.take().map(|run| run(&mut state, None));
                    state.world.tear = None;
                }
                self.machine.kill(&mut state);
                None
            } else {
                state.effects += u64::from(kind.is_effect());
                let injected = match fault {
                    Some(Fault::Error(number)) => Some(number),
                    _ => None,
                };
                run.take().map(|run| match (injected, run(&mut state, injected)) {
                    (Some(number), _) => Err(io::Error::from_raw_os_error(number)),
                    (None, result) => match fault {
                        Some(Fault::ErrorAfter(number)) => Err(io::Error::from_raw_os_error(number)),
                        _ => result,
                    },
                })
            }
        };
        self.latency().await;
        match outcome {
            Some(outcome) if self.state().life == self.life => outcome,
            _ => future::pending().await,
        }
    }

    async fn latency(&self) {
        let time = {
            let mut state = self.state();
            let most = state.latency.as_micros() as u64;
            (most > 0).then(|| Duration::from_micros(state.rng.below(most + 1)))
        };
        if let Some(time) = time {
            tokio::time::sleep(time).await;
        }
    }
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFs")
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

impl Machine {
    fn kill(&self, state: &mut State) {
        state.life += 1;
        for job in state.jobs.drain(..) {
            job.abort();
        }
        self.died.notify_waiters();
    }
}
