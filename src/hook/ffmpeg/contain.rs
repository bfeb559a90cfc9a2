//! What holds ffmpeg in: programs of util-linux and coreutils that are put in front of it and replace themselves by it, so that
//! every limit is in force before its first instruction.
//!
//! ```text
//! setpriv   no new privileges; a kill when the thread that started it is gone (the server crashed)
//! unshare   namespaces of its own: users, network (no interface is up), processes, System V IPC
//! timeout   the init of the process namespace: when it is gone, so is all in there, forked or detached
//! setpriv   no capabilities
//! nice      serving goes before converting
//! prlimit   processor seconds, address space, size of a file, open files, processes, no core
//! ffmpeg
//! ```
//!
//! Not held in: files, which ffmpeg reads with the server's rights. The forced demuxer and the protocol whitelist keep a file from naming others.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::Command;

/// What keeps a run of ffmpeg within bounds on this machine, beyond the forced demuxer, the protocol whitelist, the private
/// directory, the clock and the caps on output, which are always in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Containment {
    /// It has no network.
    pub network: bool,
    /// Whatever it starts ends with it, also what leaves its process group. Without it the process group is killed.
    pub processes: bool,
    /// Each of its processes has limits on processor time, memory and the size of files.
    pub resources: bool,
    /// It cannot have more processes and threads at once than it [may](super::TranscodeLimits::processes). The kernel holds root to no such
    /// limit: a server that is to have it runs as another user.
    pub process_count: bool,
    /// It has no privileges of the server and cannot gain any.
    pub privileges: bool,
    /// It ends when the server is killed.
    pub orphans: bool,
}

impl Containment {
    /// Whether all of it is in force. For a server that runs as root it is not: see [`process_count`](Self::process_count).
    #[must_use]
    pub const fn is_full(self) -> bool {
        let ends = self.processes && self.orphans;
        ends && self.network && self.resources && self.process_count && self.privileges
    }
}

/// The limits of one process.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProcessLimits {
    pub(super) cpu: Duration,
    pub(super) memory: u64,
    pub(super) file_size: u64,
    pub(super) processes: u32,
    /// When the init of the namespace ends it all, should the server hang.
    pub(super) time: Duration,
}

/// How to start a program here.
#[derive(Clone, Debug, Default)]
pub(super) struct Wrapper {
    pub(super) containment: Containment,
    setpriv: Option<PathBuf>,
    /// The program and how namespaces are asked for.
    unshare: Option<(PathBuf, &'static [&'static str])>,
    timeout: Option<PathBuf>,
    nice: Option<PathBuf>,
    prlimit: Option<PathBuf>,
    /// In a user namespace of its own, where processes are counted apart.
    counted: bool,
}

const AS_ITSELF: &[&str] = &[
    "--user",
    "--map-current-user",
    "--net",
    "--ipc",
    "--pid",
    "--fork",
    "--kill-child=KILL",
];
const AS_ROOT: &[&str] = &["--net", "--ipc", "--pid", "--fork", "--kill-child=KILL"];

impl Wrapper {
    /// The strongest that works. Each is tried, for a kernel, a container or its policy may forbid what is installed.
    pub(super) async fn detect() -> Self {
        let limits = ProcessLimits {
            cpu: Duration::from_secs(10),
            memory: 1 << 30,
            file_size: 1 << 20,
            processes: 16,
            time: Duration::from_secs(10),
        };
        let mut best = Self {
            nice: find("nice".as_ref()),
            ..Self::default()
        };
        let setpriv = Self {
            setpriv: find("setpriv".as_ref()),
            ..best.clone()
        };
        if setpriv.setpriv.is_some() && setpriv.works(&limits).await {
            best.setpriv = setpriv.setpriv;
            best.containment.orphans = true;
        }
        let prlimit = Self {
            prlimit: find("prlimit".as_ref()),
            ..best.clone()
        };
        if prlimit.prlimit.is_some() && prlimit.works(&limits).await {
            best.prlimit = prlimit.prlimit;
            best.containment.resources = true;
        }
        if let (Some(unshare), Some(timeout)) = (find("unshare".as_ref()), find("timeout".as_ref())) {
            for spaces in [AS_ITSELF, AS_ROOT] {
                let mut wrapper = best.clone();
                wrapper.unshare = Some((unshare.clone(), spaces));
                wrapper.timeout = Some(timeout.clone());
                wrapper.counted = spaces == AS_ITSELF;
                if wrapper.cuts_network(&limits).await {
                    best = wrapper;
                    best.containment.network = true;
                    best.containment.processes = true;
                    // Out of a user namespace nothing leads back to the server's capabilities; without one setpriv drops them.
                    best.containment.privileges = best.setpriv.is_some();
                    best.containment.process_count = best.counts_processes(limits).await;
                    break;
                }
            }
        }
        best
    }

    /// The command that runs `program` with `args`, with nothing of the server's environment.
    pub(super) fn command<A: AsRef<OsStr>>(&self, limits: &ProcessLimits, program: &Path, args: &[A]) -> Command {
        let mut argv: Vec<OsString> = Vec::new();
        let mut add = |program: &Path, options: &[&str]| {
            argv.push(program.into());
            argv.extend(options.iter().map(OsString::from));
        };
        if let Some(setpriv) = &self.setpriv {
            add(setpriv, &["--pdeathsig", "KILL", "--no-new-privs"]);
        }
        if let (Some((unshare, spaces)), Some(timeout)) = (&self.unshare, &self.timeout) {
            let seconds = whole_seconds(limits.time).to_string();
            add(unshare, spaces);
            add(timeout, &["--foreground", "--signal=KILL", &seconds]);
            if let Some(setpriv) = &self.setpriv {
                add(setpriv, &["--bounding-set=-all", "--inh-caps=-all"]);
            }
        }
        if let Some(nice) = &self.nice {
            add(nice, &["-n", "10"]);
        }
        if let Some(prlimit) = &self.prlimit {
            let mut options = vec![
                // The first number brings a signal that tells what happened, the second the end.
                format!(
                    "--cpu={0}:{1}",
                    whole_seconds(limits.cpu),
                    whole_seconds(limits.cpu) + 5
                ),
                format!("--as={}", limits.memory),
                format!("--fsize={}", limits.file_size),
                "--nofile=256".to_owned(),
                "--core=0".to_owned(),
            ];
            if self.counted {
                options.push(format!("--nproc={}", limits.processes));
            }
            add(prlimit, &options.iter().map(String::as_str).collect::<Vec<_>>());
        }
        argv.push(program.into());
        argv.extend(args.iter().map(|arg| arg.as_ref().to_owned()));
        let mut command = Command::new(&argv[0]);
        command
            .args(&argv[1..])
            .env_clear()
            .env("LC_ALL", "C")
            // Each arena of glibc reserves 64 MiB of the address space that is limited.
            .env("MALLOC_ARENA_MAX", "2")
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    async fn works(&self, limits: &ProcessLimits) -> bool {
        let Some(truth) = find("true".as_ref()) else {
            return false;
        };
        self.output(limits, &truth, &[]).await.is_some()
    }

    async fn cuts_network(&self, limits: &ProcessLimits) -> bool {
        let Some(readlink) = find("readlink".as_ref()) else {
            return false;
        };
        let Ok(ours) = std::fs::read_link("/proc/self/ns/net") else {
            return false;
        };
        let theirs = self.output(limits, &readlink, &["/proc/self/ns/net"]).await;
        theirs.is_some_and(|theirs| theirs.starts_with("net:[") && Some(theirs.trim()) != ours.to_str())
    }

    /// Whether a shell that may have one process cannot start another.
    async fn counts_processes(&self, limits: ProcessLimits) -> bool {
        let (Some(shell), Some(_)) = (find("sh".as_ref()), &self.prlimit) else {
            return false;
        };
        let one = ProcessLimits { processes: 1, ..limits };
        let forks = ["-c", "(echo two); :"];
        self.output(&limits, &shell, &forks).await.is_some() && self.output(&one, &shell, &forks).await.is_none()
    }

    async fn output(&self, limits: &ProcessLimits, program: &Path, args: &[&str]) -> Option<String> {
        let mut command = self.command(limits, program, args);
        let output = tokio::time::timeout(limits.time, command.output()).await.ok()?.ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(1)
}

/// The program as an absolute path: looked up in `PATH` if it is a bare name.
pub(super) fn find(program: &Path) -> Option<PathBuf> {
    let runs = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if program.components().count() > 1 {
        return std::path::absolute(program).ok().filter(runs);
    }
    let path = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(runs)
}
