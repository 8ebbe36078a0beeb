//! One gzip member (RFC 1952) made by several threads, as pigz does it.
//!
//! The content is cut into blocks of a fixed size.  Each is deflated on its own with the 32 KiB before it as
//! dictionary and ended by a sync flush, so the blocks put together are one deflate stream that loses next to nothing
//! in ratio.  Blocks are handed out and collected in order by the thread that writes; the number of blocks
//! under way is bounded.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use flate2::{Compress, Compression, FlushCompress, Status};

/// Content of one block.  Part of the format: changing it changes the digest of every layer.
const BLOCK: usize = 256 << 10;

/// Deflate looks this far back.
const WINDOW: usize = 32 << 10;

/// Magic, deflate, no flags, no time, no extra flags, unknown operating system: nothing of this machine.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Compresses what is written to it.
pub struct GzipEncoder<W: Write> {
    out: W,
    level: u32,
    threads: usize,
    block: Vec<u8>,
    dictionary: Vec<u8>,
    deflater: Deflater,
    workers: Option<Workers>,
    crc: crc32fast::Hasher,
    length: u64,
}

struct Job {
    block: Vec<u8>,
    dictionary: Vec<u8>,
    last: bool,
}

struct Block {
    deflated: Vec<u8>,
    crc: crc32fast::Hasher,
}

impl<W: Write> GzipEncoder<W> {
    pub fn new(mut out: W, level: u32, threads: usize) -> io::Result<Self> {
        out.write_all(&HEADER)?;
        Ok(Self {
            out,
            level,
            threads,
            block: Vec::new(),
            dictionary: Vec::new(),
            deflater: Deflater::new(level),
            workers: None,
            crc: crc32fast::Hasher::new(),
            length: 0,
        })
    }

    pub fn finish(mut self) -> io::Result<W> {
        self.submit(true)?;
        while let Some(block) = self.workers.as_mut().and_then(Workers::oldest) {
            self.emit(&block?)?;
        }
        self.out.write_all(&self.crc.finalize().to_le_bytes())?;
        self.out.write_all(&(self.length as u32).to_le_bytes())?;
        Ok(self.out)
    }

    fn submit(&mut self, last: bool) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        let tail = block[block.len().saturating_sub(WINDOW)..].to_vec();
        let dictionary = std::mem::replace(&mut self.dictionary, tail);
        self.length += block.len() as u64;
        let job = Job {
            block,
            dictionary,
            last,
        };
        // Most layers are one block: no thread is worth starting for these.
        if self.workers.is_none() && (self.threads == 1 || last) {
            let block = self.deflater.run(&job)?;
            return self.emit(&block);
        }
        let (threads, level) = (self.threads, self.level);
        let workers = self
            .workers
            .get_or_insert_with(|| Workers::start(threads, level));
        workers.submit(job)?;
        if workers.under_way.len() > 2 * threads
            && let Some(block) = workers.oldest()
        {
            self.emit(&block?)?;
        }
        Ok(())
    }

    fn emit(&mut self, block: &Block) -> io::Result<()> {
        self.crc.combine(&block.crc);
        self.out.write_all(&block.deflated)
    }
}

impl<W: Write> Write for GzipEncoder<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK {
            self.submit(false)?;
        }
        if self.block.capacity() == 0 && buf.len() > BLOCK / 4 {
            self.block.reserve_exact(BLOCK);
        }
        let taken = buf.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&buf[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Deflates one block after the other.
///
/// Each block gets a compressor of its own: one that was reset still remembers enough of the block before (zlib-rs 0.6.8)
/// to write other bytes than a new one, and which block was before depends on the threads.
struct Deflater(Compression);

impl Deflater {
    fn new(level: u32) -> Self {
        Self(Compression::new(level))
    }

    fn run(&self, job: &Job) -> io::Result<Block> {
        let (mut compress, block) = (Compress::new(self.0, false), &job.block);
        if !job.dictionary.is_empty() {
            compress
                .set_dictionary(&job.dictionary)
                .map_err(io::Error::other)?;
        }
        // Room for the worst case at once, so that no output boundary can influence the bytes.
        let mut deflated = Vec::with_capacity(block.len() + block.len() / 8 + 1024);
        let (flush, done) = if job.last {
            (FlushCompress::Finish, Status::StreamEnd)
        } else {
            (FlushCompress::Sync, Status::Ok)
        };
        loop {
            let from = compress.total_in() as usize;
            let status = compress
                .compress_vec(&block[from..], &mut deflated, flush)
                .map_err(io::Error::other)?;
            if status == done && deflated.len() < deflated.capacity() {
                break;
            }
            deflated.reserve(BLOCK);
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(block);
        Ok(Block { deflated, crc })
    }
}

type Reply = io::Result<Block>;

struct Workers {
    jobs: Option<Sender<(Job, Sender<Reply>)>>,
    under_way: VecDeque<Receiver<Reply>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    fn start(threads: usize, level: u32) -> Self {
        let (jobs, inbox) = bounded::<(Job, Sender<Reply>)>(2 * threads + 1);
        let threads = (0..threads)
            .map(|_| {
                let inbox = inbox.clone();
                std::thread::spawn(move || work(&inbox, level))
            })
            .collect();
        Self {
            jobs: Some(jobs),
            under_way: VecDeque::new(),
            threads,
        }
    }

    fn submit(&mut self, job: Job) -> io::Result<()> {
        let (reply, result) = bounded(1);
        self.under_way.push_back(result);
        match self.jobs.as_ref().map(|jobs| jobs.send((job, reply))) {
            Some(Ok(())) => Ok(()),
            _ => Err(io::Error::other("the threads that compress have ended")),
        }
    }

    /// Waits for the oldest block that is under way; none where nothing is.
    fn oldest(&mut self) -> Option<Reply> {
        let result = self.under_way.pop_front()?;
        Some(
            result
                .recv()
                .unwrap_or_else(|_| Err(io::Error::other("a thread that compresses has ended"))),
        )
    }
}

fn work(inbox: &Receiver<(Job, Sender<Reply>)>, level: u32) {
    let deflater = Deflater::new(level);
    for (job, reply) in inbox {
        // Nobody listens any more where the writing failed.
        let _ = reply.send(deflater.run(&job));
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A panic in a worker was already reported as a missing block.
            let _ = thread.join();
        }
    }
}
