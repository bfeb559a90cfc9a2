//! Behind pgbouncer in transaction mode.

use std::process::{Child, Command, Stdio};

use futures_util::future::join_all;
use tower_upload::ErrorKind;

use super::*;

struct Pgbouncer {
    process: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Pgbouncer {
    /// `None`, after a line that says why, where it is not installed; on CI that is a failure.
    fn start(server: &Server) -> Option<Self> {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"]
            .into_iter()
            .find(|path| std::fs::exists(path).unwrap());
        let Some(program) = program else {
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "there is no pgbouncer, and nothing is skipped on CI"
            );
            println!("skipped: pgbouncer is not installed (Debian: apt install pgbouncer)");
            return None;
        };
        let directory = tempfile::Builder::new().prefix("pgbouncer-").tempdir().unwrap();
        let (config, users) = (directory.path().join("pgbouncer.ini"), directory.path().join("users"));
        let port = postgres_server::free_port();
        std::fs::write(&users, format!("\"{}\" \"\"\n", postgres_server::USER)).unwrap();
        std::fs::write(
            &config,
            format!(
                "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = 4\n",
                server.port(),
                users.display()
            ),
        )
        .unwrap();
        let mut command = Command::new(program);
        command.arg("-q").arg(&config);
        let mut process = postgres_server::as_somebody(&mut command, directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        postgres_server::wait_for(port, &mut process);
        Some(Self {
            process,
            port,
            _directory: directory,
        })
    }
}

impl Drop for Pgbouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_transaction_pooler_may_stand_before_the_database() {
    let server = server!();
    let Some(pooler) = Pgbouncer::start(&server) else {
        return;
    };
    let schema = server.fresh_name();
    let url = postgres_server::url(pooler.port);
    let options = options(&schema).with_transaction_pooler(true).with_max_connections(20);
    let nodes = Arc::new([
        options.clone().connect(&url).await.unwrap(),
        options.connect(&url).await.unwrap(),
    ]);
    create(&nodes[0], 1).await;
    let tasks = (0..200).map(|number| {
        let nodes = Arc::clone(&nodes);
        tokio::spawn(async move { put(&nodes[number as usize % 2], id(1), number).await.unwrap() })
    });
    for answer in join_all(tasks).await {
        assert!(matches!(answer.unwrap(), Committed::Done(_)));
    }
    assert_eq!(load(&nodes[1], id(1)).await.unwrap().parts.len(), 200);

    // Who forgets the option is told of it.
    let error = super::options(&schema).connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
    assert!(error.message().contains("with_transaction_pooler"), "{error:?}");
}
