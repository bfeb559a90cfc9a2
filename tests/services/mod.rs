//! Real servers that tests need, each run by the script beside this file: an object store, the database, a proxy.
#![allow(dead_code, clippy::unwrap_used, reason = "each suite uses some of it")]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/run");

/// A running server; ended when dropped.
#[derive(Debug)]
pub(crate) struct Service {
    name: String,
    script: Child,
    commands: Option<ChildStdin>,
    says: BufReader<ChildStdout>,
    variables: BTreeMap<String, String>,
    directory: tempfile::TempDir,
}

impl Service {
    /// Starts `moto`, `rgw`, `azurite` or `postgres`, or `haproxy` or `nginx` in front of these ports.
    ///
    /// # Errors
    /// Why it cannot be had here.
    pub(crate) fn start(name: &str, ports: &[u16]) -> Result<Self, String> {
        let directory = tempfile::tempdir().unwrap();
        // The database's own user must get there.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let mut script = Command::new(SCRIPT)
            .arg(name)
            .arg(directory.path().join(name))
            .args(ports.iter().map(u16::to_string))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{SCRIPT}: {error}"))?;
        let mut service = Self {
            name: name.to_owned(),
            commands: script.stdin.take(),
            says: BufReader::new(script.stdout.take().unwrap()),
            script,
            variables: BTreeMap::new(),
            directory,
        };
        service.until_ready()?;
        Ok(service)
    }

    /// The same; `None`, and a line that says why, if it cannot be had. On CI that is an error.
    pub(crate) fn start_or_skip(name: &str, ports: &[u16]) -> Option<Self> {
        match Self::start(name, ports) {
            Ok(service) => Some(service),
            Err(why) if std::env::var("CI").as_deref() == Ok("true") => panic!("nothing is skipped on CI: {why}"),
            Err(why) => {
                println!("skipped: {why}");
                None
            }
        }
    }

    fn until_ready(&mut self) -> Result<(), String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.says.read_line(&mut line).unwrap() == 0 {
                return Err(format!("{} ended before it was ready", self.name));
            }
            match line.trim() {
                "ready" => return Ok(()),
                other => match (other.strip_prefix("cannot: "), other.split_once('=')) {
                    (Some(why), _) => return Err(why.to_owned()),
                    (None, Some((name, value))) => drop(self.variables.insert(name.to_owned(), value.to_owned())),
                    (None, None) => {}
                },
            }
        }
    }

    /// What the script said, as for an environment.
    pub(crate) const fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    pub(crate) fn get(&self, name: &str) -> &str {
        &self.variables[name]
    }

    /// Kills the server at once and starts it again on its data.
    pub(crate) fn restart(&mut self) {
        self.commands.as_mut().unwrap().write_all(b"restart\n").unwrap();
        self.until_ready().unwrap();
    }

    /// The end of its log, for a test that failed.
    pub(crate) fn log(&self) -> String {
        let path = self.directory.path().join(&self.name).join("log");
        let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The script ends, and with it what it started, when its input does.
        drop(self.commands.take());
        for _ in 0..100 {
            if !matches!(self.script.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}
