//! A hostile or failing server: a proxy in front of the real registry that tampers with the answers that a test chooses.
//! Everything else stays the real registry's.
//!
//! One thread and one connection for each request, so that there is no state that a test has not asked for.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What is done to an answer.
#[derive(Clone)]
pub enum Tamper {
    /// The registry is not asked: status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The connection ends after so many bytes of the registry's body, whose whole length was announced.
    Cut(usize),
    /// The registry's body is changed; the announced length is that of the new one.
    Body(fn(Vec<u8>) -> Vec<u8>),
    /// The registry's body is followed by bytes without end, and no length is announced.
    Endless,
    /// A header of the registry's answer is replaced.
    Header(&'static str, String),
    /// The registry is not asked: these bytes, head and all, and the end of the connection.
    Raw(Vec<u8>),
    /// The connection ends after so many bytes of the request's body were read; the registry never hears of it.
    Deaf(usize),
}

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// For example `GET`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Value of `Authorization`, or empty.
    pub authorization: String,
    /// How many requests were tampered with before this one.
    pub tampered: usize,
    head: Vec<String>,
}

impl Asked {
    /// Says whether the method is this one, and the target contains this.
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.target.contains(part)
    }

    /// Announced length of the body.
    pub fn length(&self) -> usize {
        let length = self.header("content-length").and_then(|l| l.parse().ok());
        length.unwrap_or(0)
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

type Rule = Arc<dyn Fn(&Asked) -> Option<Tamper> + Send + Sync>;

#[derive(Default)]
struct Shared {
    registry: String,
    rule: Mutex<Option<Rule>>,
    /// The requests, and whether their answers were tampered with.
    log: Mutex<Vec<(Asked, bool)>>,
    ended: AtomicBool,
}

/// A running proxy; it ends with this value.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts an honest proxy in front of `registry` (`host:port`).
    pub fn start(registry: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port for the proxy");
        let port = listener.local_addr().expect("the proxy's port").port();
        let shared = Arc::new(Shared {
            registry: registry.to_owned(),
            ..Shared::default()
        });
        let listening = std::thread::spawn({
            let shared = shared.clone();
            move || {
                for client in listener.incoming().flatten() {
                    if shared.ended.load(Ordering::SeqCst) {
                        return;
                    }
                    let shared = shared.clone();
                    // A client that goes away in the middle is what some tests are about.
                    std::thread::spawn(move || drop(shared.serve(client)));
                }
            }
        });
        Self {
            port,
            shared,
            listener: Some(listening),
        }
    }

    /// Starts a server with no registry behind it, which has an answer to everything.
    pub fn alone(rule: impl Fn(&Asked) -> Tamper + Send + Sync + 'static) -> Self {
        let proxy = Self::start("");
        proxy.tamper(move |asked| Some(rule(asked)));
        proxy
    }

    /// Returns `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// From now on tampers with the requests for which `rule` answers something, and counts from nought.
    pub fn tamper(&self, rule: impl Fn(&Asked) -> Option<Tamper> + Send + Sync + 'static) {
        lock(&self.shared.log).clear();
        *lock(&self.shared.rule) = Some(Arc::new(rule));
    }

    /// From now on is honest, and counts from nought.
    pub fn honest(&self) {
        lock(&self.shared.log).clear();
        *lock(&self.shared.rule) = None;
    }

    /// The requests that were tampered with.
    pub fn tampered(&self) -> Vec<Asked> {
        let log = lock(&self.shared.log);
        log.iter()
            .filter(|(_, t)| *t)
            .map(|(a, _)| a.clone())
            .collect()
    }

    /// All requests, as `METHOD TARGET`.
    pub fn requests(&self) -> Vec<String> {
        let log = lock(&self.shared.log);
        log.iter()
            .map(|(a, _)| format!("{} {}", a.method, a.target))
            .collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the listener up.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

impl Shared {
    fn serve(&self, client: TcpStream) -> std::io::Result<()> {
        let mut client = BufReader::new(client);
        let Some(asked) = self.head(&mut client)? else {
            return Ok(());
        };
        let rule = lock(&self.rule).clone();
        let tamper = {
            // Held until the request is counted, so that of two at once only one is the first.
            let mut log = lock(&self.log);
            let tampered = log.iter().filter(|(_, t)| *t).count();
            let asked = Asked {
                tampered,
                ..asked.clone()
            };
            let tamper = rule.and_then(|rule| rule(&asked));
            log.push((asked, tamper.is_some()));
            tamper
        };
        let mut body = vec![0; asked.length()];
        if let Some(Tamper::Deaf(heard)) = tamper {
            let heard = heard.min(body.len());
            return client.read_exact(&mut body[..heard]);
        }
        client.read_exact(&mut body)?;
        let out = client.get_mut();
        if let Some(Tamper::Raw(bytes)) = &tamper {
            out.write_all(bytes)?;
            return out.flush();
        }
        if let Some(Tamper::Answer(status, headers, body)) = tamper {
            let mut head = vec![format!("HTTP/1.1 {status} tampered")];
            head.extend(headers.iter().map(|(n, v)| format!("{n}: {v}")));
            return answer(out, &asked, &head, body.len(), &body);
        }
        let (mut head, body) = self.ask(&asked, &body)?;
        let length = head
            .iter()
            .find_map(|h| h.strip_prefix("Content-Length: ")?.parse().ok());
        // What answers a HEAD has a length and no body.
        let length = length.unwrap_or(body.len());
        match tamper {
            Some(Tamper::Cut(after)) => {
                answer(out, &asked, &head, length, &body[..after.min(body.len())])
            }
            Some(Tamper::Body(change)) => {
                let body = change(body);
                answer(out, &asked, &head, body.len(), &body)
            }
            Some(Tamper::Endless) => endless(out, &head, &body),
            Some(Tamper::Header(name, value)) => {
                let is_other =
                    |h: &String| !h.to_ascii_lowercase().starts_with(&format!("{name}:"));
                head.retain(is_other);
                head.push(format!("{name}: {value}"));
                answer(out, &asked, &head, length, &body)
            }
            _ => answer(out, &asked, &head, length, &body),
        }
    }

    /// Reads the head of a request; nothing where there is none.
    fn head(&self, client: &mut BufReader<TcpStream>) -> std::io::Result<Option<Asked>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if client.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let mut words = lines
            .first()
            .map_or("", |l| l)
            .split(' ')
            .map(str::to_owned);
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Ok(None);
        };
        let mut asked = Asked {
            method,
            target,
            authorization: String::new(),
            tampered: 0,
            head: lines.split_off(1),
        };
        asked.authorization = asked.header("authorization").unwrap_or("").to_owned();
        Ok(Some(asked))
    }

    /// Asks the registry; returns the head's lines and the body.  HTTP/1.0, so that the body comes in one piece.
    fn ask(&self, asked: &Asked, body: &[u8]) -> std::io::Result<(Vec<String>, Vec<u8>)> {
        let mut registry = TcpStream::connect(&self.registry)?;
        let mut request = format!("{} {} HTTP/1.0\r\n", asked.method, asked.target);
        for line in &asked.head {
            // The name that the client knows stays, so that the registry sends it to the proxy again.
            request.push_str(line);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        registry.write_all(request.as_bytes())?;
        registry.write_all(body)?;
        let mut answer = Vec::new();
        registry.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n");
        let end = end.ok_or_else(|| std::io::Error::other("the registry's answer has no head"))?;
        let head = String::from_utf8_lossy(&answer[..end]);
        let head = head.replacen("HTTP/1.0", "HTTP/1.1", 1);
        Ok((
            head.split("\r\n").map(str::to_owned).collect(),
            answer.split_off(end + 4),
        ))
    }
}

fn answer(
    out: &mut TcpStream,
    asked: &Asked,
    head: &[String],
    length: usize,
    body: &[u8],
) -> std::io::Result<()> {
    out.write_all(&headers(head, Some(length)))?;
    if asked.method != "HEAD" {
        out.write_all(body)?;
    }
    out.flush()
}

fn endless(out: &mut TcpStream, head: &[String], body: &[u8]) -> std::io::Result<()> {
    out.write_all(&headers(head, None))?;
    out.write_all(body)?;
    loop {
        out.write_all(&[b'x'; 8192])?;
    }
}

/// A head whose length is `length`; without one, the body ends with the connection.
fn headers(head: &[String], length: Option<usize>) -> Vec<u8> {
    let is_ours = |line: &&String| {
        let line = line.to_ascii_lowercase();
        !line.starts_with("content-length:") && !line.starts_with("connection:")
    };
    let mut lines: Vec<String> = head.iter().filter(is_ours).cloned().collect();
    lines.extend(length.map(|l| format!("Content-Length: {l}")));
    lines.push("Connection: close\r\n\r\n".to_owned());
    lines.join("\r\n").into_bytes()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
