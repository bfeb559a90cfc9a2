//! Proxies that do harm: to the requests of an object store, and to the connections of a database.
#![allow(dead_code, clippy::unwrap_used, reason = "each suite uses some of it")]

mod http;
mod tcp;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

pub(crate) use self::{
    http::{Fault, HttpProxy, Kind, Plan, Requests, Seeded},
    tcp::{Break, BreakPlan, SeededBreaks, TcpProxy},
};

/// What a proxy did, and whether it may do harm now.
#[derive(Debug)]
pub(crate) struct Record {
    harmful: AtomicBool,
    began: Instant,
    injected: Mutex<BTreeMap<&'static str, usize>>,
    log: Mutex<Vec<String>>,
}

impl Record {
    /// Harmless until told otherwise.
    fn new() -> Self {
        Self {
            harmful: AtomicBool::new(false),
            began: Instant::now(),
            injected: Mutex::default(),
            log: Mutex::default(),
        }
    }

    fn is_harmful(&self) -> bool {
        self.harmful.load(Ordering::SeqCst)
    }

    fn note(&self, fault: &'static str, what: impl fmt::Display) {
        *self.injected.lock().unwrap().entry(fault).or_default() += 1;
        let at = self.began.elapsed().as_secs_f64();
        self.log.lock().unwrap().push(format!("{at:8.3} {fault}: {what}"));
    }

    /// From now on faults happen, or none does.
    pub(crate) fn harm(&self, on: bool) {
        self.harmful.store(on, Ordering::SeqCst);
    }

    /// How many faults of each sort happened.
    pub(crate) fn injected(&self) -> BTreeMap<&'static str, usize> {
        self.injected.lock().unwrap().clone()
    }

    /// What happened since it was asked last, a line each.
    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}
