//! Two gigabytes go through the writer and the reader in less than 64 MB of memory.  A test program of its own, because the
//! peak that the kernel counts is that of the whole process.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use stepwell_image::compress::DecodeLimits;
use stepwell_image::layer::ReadLimits;
use stepwell_image::{Entry, Kind, LayerOptions, LayerReader, LayerWriter};
use stepwell_model::request::Compression;

const SIZE: u64 = 2 << 30;
const LIMIT: u64 = 64 << 20;

/// Peak of the resident set of this process, in bytes (proc(5), VmHWM).
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

struct Sender(SyncSender<Vec<u8>>);

impl Write for Sender {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let sent = self.0.send(buf.to_vec());
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Inbox(Receiver<Vec<u8>>, io::Cursor<Vec<u8>>);

impl Read for Inbox {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.1.position() == self.1.get_ref().len() as u64 {
            match self.0.recv() {
                Ok(bytes) => self.1 = io::Cursor::new(bytes),
                Err(_) => return Ok(0),
            }
        }
        self.1.read(buf)
    }
}

#[test]
fn two_gigabytes_take_less_than_64_megabytes() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let (sender, inbox) = sync_channel(4);
        let writing = std::thread::spawn(move || {
            let options = LayerOptions {
                compression,
                level: Some(1),
                threads: 4,
                clamp_mtime: None,
            };
            let mut writer = LayerWriter::new(Sender(sender), options).unwrap();
            let entry = Entry::new("big", Kind::File { size: SIZE }, 0o644);
            writer
                .add(&entry, Some(&mut io::repeat(0).take(SIZE)))
                .unwrap();
            writer.finish().unwrap().diff_id
        });
        let input = Inbox(inbox, io::Cursor::default());
        let mut reader =
            LayerReader::compressed(input, ReadLimits::default(), DecodeLimits::default()).unwrap();
        let (_, mut content) = reader.next_entry().unwrap().unwrap();
        assert_eq!(io::copy(&mut content, &mut io::sink()).unwrap(), SIZE);
        assert!(reader.next_entry().unwrap().is_none());
        assert_eq!(reader.finish().unwrap().diff_id, writing.join().unwrap());
        assert!(peak() < LIMIT, "{compression:?}: {} bytes", peak());
        eprintln!("{compression:?}: peak {} KiB", peak() >> 10);
    }
}
