//! The proxies that do harm in other suites do the harm that they say, and none when they shall not.
#![allow(clippy::unwrap_used, missing_docs)]

mod proxy;
mod wire;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use proxy::{Break, BreakPlan as _, Fault, HttpProxy, Kind, Plan as _, Requests, Seeded, SeededBreaks, TcpProxy};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A server that counts requests that came whole, and answers one on each connection.
async fn small_server() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let whole = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&whole);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                loop {
                    if stream.read_buf(&mut bytes).await? == 0 {
                        return io::Result::Ok(());
                    }
                    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                        continue;
                    };
                    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
                    let len = text.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if bytes.len() == head + 4 + len.map_or(0, |len| len.parse().unwrap()) {
                        count.fetch_add(1, Ordering::SeqCst);
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                        return stream.write_all(answer).await;
                    }
                }
            });
        }
    });
    (address, whole)
}

/// The status that answers a request with this body; none if the connection broke.
async fn ask(address: SocketAddr, ask: &str, body: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{ask} HTTP/1.1\r\nhost: s3\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply).await;
    String::from_utf8_lossy(&reply).split(' ').nth(1)?.parse().ok()
}

const PART: &str = "PUT /bucket/key?partNumber=1&uploadId=x";

#[tokio::test]
async fn each_fault_of_a_request_does_what_it_says() {
    let millis = Duration::from_millis;
    let cases = [
        (Fault::None, Some(200), 1),
        (Fault::Refuse(503), Some(503), 0),
        (Fault::Contradict, Some(200), 0),
        (Fault::Hang(millis(30)), None, 0),
        (Fault::Cut, None, 0),
        (Fault::CutBody(2000), None, 0),
        (Fault::LoseReply(Duration::ZERO), None, 1),
        (Fault::LoseReply(millis(30)), None, 1),
        (Fault::Delay(millis(30)), Some(200), 1),
        (Fault::Forge, Some(200), 0),
    ];
    for (fault, status, whole) in cases {
        let (server, count) = small_server().await;
        let proxy = HttpProxy::start(
            &server.to_string(),
            move |_, n| if n == 1 { fault } else { Fault::None },
        )
        .await;
        proxy.record.harm(true);
        let part = [7; 100_000];
        assert_eq!(ask(proxy.address, PART, &part).await, Some(200));
        assert_eq!(ask(proxy.address, PART, &part).await, status, "{fault:?}");
        assert_eq!(count.load(Ordering::SeqCst), 1 + whole, "{fault:?}");
        assert_eq!(ask(proxy.address, PART, &part).await, Some(200));
        let injected: usize = proxy.record.injected().values().sum();
        assert_eq!(injected, usize::from(fault != Fault::None), "{fault:?}");
        assert_eq!(proxy.record.take_log().len(), injected);
        let counts = proxy.counts();
        assert_eq!(counts.keys().collect::<Vec<_>>(), [&Kind::Part]);
        assert_eq!(counts[&Kind::Part].count, 3);
        assert!(counts[&Kind::Part].bytes >= 200_000, "{fault:?}: {counts:?}");
    }
}

#[tokio::test]
async fn requests_are_told_apart_and_quiet_is_quiet() {
    let (server, _) = small_server().await;
    let proxy = HttpProxy::start(&server.to_string(), |_, _| Fault::Cut).await;
    let asks = [
        ("POST /b/k?uploads", Kind::Create),
        ("POST /b/k?uploads=", Kind::Create),
        (PART, Kind::Part),
        ("POST /b/k?uploadId=x", Kind::Complete),
        ("DELETE /b/k?uploadId=x", Kind::Abort),
        ("PUT /b/k", Kind::Put),
        ("GET /b/k", Kind::Get),
        ("DELETE /b/k", Kind::Delete),
        ("POST /b?delete", Kind::Delete),
        ("GET /b?list-type=2&prefix=a", Kind::List),
        ("GET /b?uploads", Kind::List),
    ];
    for (line, kind) in asks {
        let before = proxy.counts().get(&kind).map_or(0, |requests| requests.count);
        assert_eq!(ask(proxy.address, line, b"12345").await, Some(200), "{line}");
        assert_eq!(proxy.counts()[&kind].count, before + 1, "{line}");
    }
    assert_eq!(proxy.counts()[&Kind::Create], Requests { count: 2, bytes: 10 });
    proxy.record.harm(true);
    assert_eq!(ask(proxy.address, PART, b"").await, None);
    proxy.record.harm(false);
    assert_eq!(ask(proxy.address, PART, b"").await, Some(200));
}

#[tokio::test]
async fn each_break_of_a_connection_does_what_it_says() {
    let millis = Duration::from_millis;
    let cases = [
        (Break::None, true, 1),
        (Break::Before, false, 0),
        (Break::After, false, 1),
        (Break::Stall(millis(30)), true, 1),
    ];
    for (action, is_answered, whole) in cases {
        let (server, count) = small_server().await;
        let plan = move |n| if n == 1 { action } else { Break::None };
        let proxy = TcpProxy::start(&server.to_string(), plan).await;
        proxy.record.harm(true);
        assert_eq!(ask(proxy.address, PART, b"").await, Some(200));
        let reply = ask(proxy.address, PART, b"").await;
        assert_eq!(reply.is_some(), is_answered, "{action:?}");
        assert_eq!(count.load(Ordering::SeqCst), 1 + whole, "{action:?}");
        assert_eq!(ask(proxy.address, PART, b"").await, Some(200));
        assert_eq!(proxy.record.take_log().len(), usize::from(action != Break::None));
    }
}

#[tokio::test]
async fn all_connections_are_cut_at_once() {
    let (server, _) = small_server().await;
    let proxy = TcpProxy::start(&server.to_string(), |_| Break::None).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        assert!(stream.read(&mut [0; 100]).await.unwrap() > 0);
        open.push(stream);
    }
    proxy.cut();
    for mut stream in open {
        assert!(matches!(stream.read(&mut [0; 100]).await, Ok(0) | Err(_)));
    }
    assert_eq!(ask(proxy.address, PART, b"").await, Some(200));
}

#[test]
fn a_seed_says_which_faults_and_says_all_of_them() {
    use std::collections::BTreeMap;

    let seeded = Seeded {
        seed: 7,
        one_in: 4,
        patience: Duration::from_secs(1),
    };
    let mut faults: BTreeMap<String, usize> = BTreeMap::new();
    for n in 0..4000 {
        let fault = seeded.next(Kind::Part, n);
        assert_eq!(fault, seeded.next(Kind::Part, n));
        let name = format!("{fault:?}");
        *faults.entry(name.split('(').next().unwrap().to_owned()).or_default() += 1;
    }
    assert!((2800..3200).contains(&faults["None"]), "{faults:?}");
    let names: Vec<_> = faults.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["Cut", "CutBody", "Delay", "Hang", "LoseReply", "None", "Refuse"]
    );
    let breaks = SeededBreaks {
        seed: 7,
        one_in: 4,
        patience: Duration::from_secs(1),
    };
    let broken = (0..4000).filter(|n| breaks.next(*n) != Break::None).count();
    assert!((800..1200).contains(&broken), "{broken}");
}
