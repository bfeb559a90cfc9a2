//! A proxy that knows where the messages of PostgreSQL's protocol begin: counts them, and cuts the connection at one.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// What went through since it was last asked.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Types of messages.
    pub to_server: Vec<u8>,
    pub to_client: Vec<u8>,
}

impl Traffic {
    /// Round trips that somebody waited for: each ends with a message that asks for an answer to all before it.
    pub fn round_trips(&self) -> usize {
        let mut waiting = false;
        let mut trips = 0;
        for kind in &self.to_server {
            match kind {
                b'Q' => trips += 1,
                // A Sync after nothing is the pool's, which looks whether a connection is at rest.
                b'S' => trips += usize::from(std::mem::take(&mut waiting)),
                _ => waiting = true,
            }
        }
        trips
    }
}

#[derive(Default)]
struct State {
    server: u16,
    traffic: Traffic,
    /// The message at which connections are cut, counted from when it was set.
    cut: Option<(Way, usize)>,
}

#[derive(Clone)]
pub struct Proxy {
    state: Arc<Mutex<State>>,
    pub port: u16,
}

impl Proxy {
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            state: Arc::default(),
            port: listener.local_addr().unwrap().port(),
        };
        proxy.lead_to(server);
        let accepting = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let proxy = accepting.clone();
                let server = proxy.state.lock().unwrap().server;
                if let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await {
                    client.set_nodelay(true).unwrap();
                    server.set_nodelay(true).unwrap();
                    tokio::spawn(proxy.between(client, server));
                }
            }
        });
        proxy
    }

    /// New connections lead there.
    pub fn lead_to(&self, server: u16) {
        self.state.lock().unwrap().server = server;
    }

    /// Forgets what went through so far.
    pub fn take(&self) -> Traffic {
        std::mem::take(&mut self.state.lock().unwrap().traffic)
    }

    /// From now on, cuts both sides before the message with this number of this way goes on.
    pub fn cut_at(&self, way: Way, number: usize) {
        self.state.lock().unwrap().cut = Some((way, number));
    }

    /// Whether the cut is still to come; it is not made any more.
    pub fn calm(&self) -> bool {
        self.state.lock().unwrap().cut.take().is_some()
    }

    async fn between(self, client: TcpStream, server: TcpStream) {
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        // Whichever ends first ends both: what was not sent on is lost.
        tokio::select! {
            biased;
            () = self.pass(from_client, to_server, Way::ToServer) => {}
            () = self.pass(from_server, to_client, Way::ToClient) => {}
        }
    }

    async fn pass(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: Way) {
        if way == Way::ToServer {
            let Some(start) = body(&mut from).await else { return };
            if to.write_all(&start).await.is_err() {
                return;
            }
        }
        while let Ok(kind) = from.read_u8().await {
            let Some(rest) = body(&mut from).await else { return };
            if self.cuts(way, kind) {
                return;
            }
            let mut message = vec![kind];
            message.extend(rest);
            if to.write_all(&message).await.is_err() {
                return;
            }
        }
    }

    fn cuts(&self, way: Way, kind: u8) -> bool {
        let mut state = self.state.lock().unwrap();
        match &mut state.cut {
            Some((cut, 0)) if *cut == way => {
                state.cut = None;
                return true;
            }
            Some((cut, left)) if *cut == way => *left -= 1,
            _ => {}
        }
        match way {
            Way::ToServer => state.traffic.to_server.push(kind),
            Way::ToClient => state.traffic.to_client.push(kind),
        }
        false
    }
}

/// Length and what it is the length of.
async fn body(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let len = from.read_u32().await.ok()?;
    let mut message = len.to_be_bytes().to_vec();
    message.resize(len as usize, 0);
    from.read_exact(&mut message[4..]).await.ok()?;
    Some(message)
}
