//! A server as a process of its own, and what it used.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use tower_service::Service as _;

use crate::{
    floors, ours,
    support::served::{self, Served},
};

/// What a server does with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Discard,
    Write,
    Sync,
    Disk,
    /// This crate; `inline` is [`Writes::Inline`](tower_upload::blob::disk::Writes).
    Ours {
        durable: bool,
        inline: bool,
    },
}

impl Kind {
    pub(crate) const fn ours(durable: bool, inline: bool) -> Self {
        Self::Ours { durable, inline }
    }

    const NAMED: [(Self, &'static str); 7] = [
        (Self::Discard, "discard"),
        (Self::Write, "write"),
        (Self::Sync, "sync"),
        (Self::ours(true, false), "ours"),
        (Self::ours(true, true), "ours-inline"),
        (Self::ours(false, false), "ours-none"),
        (Self::ours(false, true), "ours-none-inline"),
    ];
}

/// A running server; ended when dropped.
pub(crate) struct Server {
    served: Served,
    trace: Option<PathBuf>,
}

impl Server {
    pub(crate) fn start(kind: Kind, directory: &Path, traced: bool) -> Self {
        let name = Kind::NAMED.iter().find(|(other, _)| *other == kind).unwrap().1;
        let role = format!("{name} {}", directory.display());
        let trace = traced.then(|| directory.with_extension("strace"));
        let served = match &trace {
            Some(path) => {
                let mut command = Command::new("strace");
                command
                    .args(["-f", "-c", "-U", "name,calls", "-o"])
                    .arg(path)
                    .arg(std::env::current_exe().unwrap());
                Served::start_by(command, &role)
            }
            None => Served::start(&role),
        };
        Self { served, trace }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.served.address.parse().unwrap()
    }

    /// Seconds on a processor until now.
    pub(crate) fn cpu(&self) -> f64 {
        self.served.cpu()
    }

    /// The most memory that it had resident, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.served.memory("VmHWM:")
    }

    /// Ends it; calls by name, if it was traced.
    pub(crate) fn syscalls(mut self) -> HashMap<String, u64> {
        self.served.end();
        let text = std::fs::read_to_string(self.trace.as_ref().unwrap()).unwrap();
        text.lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
            })
            .collect()
    }
}

/// Serves until standard input ends, if this process was started for that.
pub(crate) fn serve_if_asked() -> bool {
    let Some(role) = served::role() else { return false };
    let (name, directory) = role.split_once(' ').unwrap();
    let kind = Kind::NAMED.iter().find(|(_, other)| *other == name).unwrap().0;
    let directory = PathBuf::from(directory);
    served::run(async move {
        if let Kind::Ours { durable, inline } = kind {
            let service = ours::service(&directory, durable, inline).await;
            served::serve(None, move |request| service.clone().call(request)).await;
        } else {
            let directory = Arc::new(directory);
            served::serve(None, move |request| floors::answer(kind, directory.clone(), request)).await;
        }
    });
    true
}
