//! HTTP/1.1 by hand, so that a test decides over every byte that the client sees.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    pub fn is(&self, method: &str, target: &str) -> bool {
        self.method == method && self.target == target
    }
}

/// What is answered.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

pub enum Body {
    /// With its length announced.
    Whole(Vec<u8>),
    /// The announced length, but only these bytes, and then the connection is closed.
    Cut { announced: usize, bytes: Vec<u8> },
    /// No length announced; ends with the connection.
    UntilClosed(Vec<u8>),
    /// No length announced, and no end.
    Endless,
    /// The announced length, but a byte at a time with pauses.
    Drip { announced: usize, pause: Duration },
    /// The announced length and nothing of it.
    Silence { announced: usize },
    /// Instead of an answer: these bytes, and the connection is closed.
    Raw(Vec<u8>),
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Body::Whole(Vec::new()),
        }
    }

    pub fn ok(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            body: Body::Whole(bytes.into()),
            ..Self::status(200)
        }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn status_206(mut self) -> Self {
        self.status = 206;
        self
    }

    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }
}

/// A server for one test.
pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

type Handler = dyn Fn(&Seen, usize) -> Reply + Send + Sync;

impl Server {
    /// Answers with `handler`, which is told the request and how many of the same method and target came before it.
    pub async fn start(handler: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (handler, log): (Arc<Handler>, _) = (Arc::new(handler), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                tokio::spawn(async move {
                    // A client that goes away is no failure of the server.
                    let _ = serve(stream, handler, log).await;
                });
            }
        });
        Self {
            address,
            seen,
            task,
        }
    }

    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The requests with this method and target.
    pub fn count(&self, method: &str, target: &str) -> usize {
        self.seen().iter().filter(|s| s.is(method, target)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    stream: TcpStream,
    handler: Arc<Handler>,
    log: Arc<Mutex<Vec<Seen>>>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let seen = match read_request(&mut stream).await {
            Ok(Some(seen)) => seen,
            Ok(None) => break,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                // Such as a TLS greeting: answered as any web server would.
                return stream
                    .get_mut()
                    .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    .await;
            }
            Err(error) => return Err(error),
        };
        let before = {
            let mut log = log.lock().unwrap();
            let before = log
                .iter()
                .filter(|s| s.is(&seen.method, &seen.target))
                .count();
            log.push(seen.clone());
            before
        };
        if !answer(stream.get_mut(), &seen, handler(&seen, before)).await? {
            break;
        }
    }
    Ok(())
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Seen>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut parts = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(target)) = (parts.next(), parts.next()) else {
        return Ok(None);
    };
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
            None => break,
        }
    }
    let mut seen = Seen {
        method,
        target,
        headers,
        body: Vec::new(),
    };
    let length = seen
        .header("content-length")
        .and_then(|l| l.parse().ok())
        .unwrap_or(0);
    seen.body = vec![0; length];
    stream.read_exact(&mut seen.body).await?;
    Ok(Some(seen))
}

/// Sends an answer; says whether the connection goes on.
async fn answer(stream: &mut TcpStream, seen: &Seen, reply: Reply) -> std::io::Result<bool> {
    let mut head = format!("HTTP/1.1 {} x\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let announced = match &reply.body {
        Body::Whole(bytes) => Some(bytes.len()),
        Body::Cut { announced, .. }
        | Body::Drip { announced, .. }
        | Body::Silence { announced } => Some(*announced),
        Body::UntilClosed(_) | Body::Endless | Body::Raw(_) => None,
    };
    let given = reply
        .headers
        .iter()
        .any(|(n, _)| n.eq_ignore_ascii_case("content-length"));
    if let Some(announced) = announced.filter(|_| !given) {
        head.push_str(&format!("content-length: {announced}\r\n"));
    }
    head.push_str("\r\n");
    if !matches!(reply.body, Body::Raw(_)) {
        stream.write_all(head.as_bytes()).await?;
    }
    match reply.body {
        Body::Whole(_) if seen.method == "HEAD" => return Ok(true),
        Body::Whole(bytes) => {
            stream.write_all(&bytes).await?;
            return Ok(true);
        }
        Body::Cut { bytes, .. } | Body::UntilClosed(bytes) | Body::Raw(bytes) => {
            stream.write_all(&bytes).await?
        }
        Body::Endless => loop {
            stream.write_all(&[b'x'; 8192]).await?;
        },
        Body::Drip { announced, pause } => {
            for _ in 0..announced {
                stream.write_all(b"x").await?;
                tokio::time::sleep(pause).await;
            }
        }
        Body::Silence { .. } => std::future::pending().await,
    }
    stream.shutdown().await?;
    Ok(false)
}
