//! A real TCP service on a host of the lab, and the question whether it answers.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::inside;

const HELLO: &[u8] = b"hello from a real service\n";

/// A service that greets whoever connects, until it is dropped.
pub struct Service {
    port: u16,
    netns: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Listens on `[::]:port` (IPv4 too) in the namespace.
    pub fn start(netns: &str, port: u16) -> Service {
        let listener = inside(netns, move || {
            TcpListener::bind(SocketAddr::new("::".parse().unwrap(), port)).expect("the port is free")
        });
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                if let Ok(mut stream) = stream {
                    let _ = stream.write_all(HELLO);
                }
            }
        });
        Service { port, netns: netns.into(), stop, thread: Some(thread) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // One more connection wakes the accept loop.
        let port = self.port;
        inside(&self.netns, move || {
            let _ = TcpStream::connect_timeout(
                &SocketAddr::new("127.0.0.1".parse().unwrap(), port),
                Duration::from_secs(1),
            );
        });
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether the service at `address`:`port` greets a client in `netns` within `limit`.
pub fn answers(netns: &str, address: IpAddr, port: u16, limit: Duration) -> bool {
    inside(netns, move || {
        let Ok(mut stream) = TcpStream::connect_timeout(&SocketAddr::new(address, port), limit) else {
            return false;
        };
        let _ = stream.set_read_timeout(Some(limit));
        let mut greeting = [0; HELLO.len()];
        stream.read_exact(&mut greeting).is_ok() && greeting == HELLO
    })
}
