//! `contexts`: reading the directories that the user handed over.  That a path stays within its context is the business
//! of the [`FrontendHost`](crate::frontend::FrontendHost).

use wasmtime::Result;

use crate::frontend::bindings::stepwell::frontend::contexts as wit;
use crate::frontend::state::State;
use crate::frontend::{AccessError, EntryKind};
use crate::limits::LimitReached;

impl wit::Host for State {
    fn read(
        &mut self,
        context: String,
        path: String,
        limit: u64,
    ) -> Result<std::result::Result<Vec<u8>, wit::AccessError>> {
        self.meter.call()?;
        if let Err(error) = self.open(&context) {
            return Ok(Err(error_to(error)));
        }
        let readable = self.meter.readable();
        let answer = self.host.read(&context, &path, limit.min(readable));
        if let Err(AccessError::TooLarge(_)) = answer
            && limit > readable
        {
            return Err(LimitReached::BytesRead(self.meter.limits().bytes_read).into());
        }
        if let Ok(content) = &answer {
            self.meter.read(content.len() as u64)?;
        }
        Ok(answer.map_err(error_to))
    }

    fn stat(
        &mut self,
        context: String,
        path: String,
    ) -> Result<std::result::Result<wit::EntryStat, wit::AccessError>> {
        self.meter.call()?;
        if let Err(error) = self.open(&context) {
            return Ok(Err(error_to(error)));
        }
        let answer = self.host.stat(&context, &path);
        Ok(answer.map_err(error_to).map(|stat| wit::EntryStat {
            kind: kind_to(stat.kind),
            size: stat.size,
            mode: stat.mode,
        }))
    }

    fn time(
        &mut self,
        context: String,
    ) -> Result<std::result::Result<Option<i64>, wit::AccessError>> {
        self.meter.call()?;
        if let Err(error) = self.open(&context) {
            return Ok(Err(error_to(error)));
        }
        Ok(self.host.context_time(&context).map_err(error_to))
    }

    fn list(
        &mut self,
        context: String,
        path: String,
    ) -> Result<std::result::Result<Vec<wit::DirectoryEntry>, wit::AccessError>> {
        self.meter.call()?;
        if let Err(error) = self.open(&context) {
            return Ok(Err(error_to(error)));
        }
        let entries = match self.host.list(&context, &path) {
            Ok(entries) => entries,
            Err(error) => return Ok(Err(error_to(error))),
        };
        let bytes: usize = entries.iter().map(|e| e.name.len() + 1).sum();
        self.meter.read(bytes as u64)?;
        let entries = entries.into_iter().map(|e| wit::DirectoryEntry {
            name: e.name,
            kind: kind_to(e.kind),
        });
        Ok(Ok(entries.collect()))
    }
}

fn kind_to(kind: EntryKind) -> wit::EntryKind {
    match kind {
        EntryKind::File => wit::EntryKind::File,
        EntryKind::Directory => wit::EntryKind::Directory,
        EntryKind::Symlink => wit::EntryKind::Symlink,
        EntryKind::Other => wit::EntryKind::Other,
    }
}

pub(super) fn error_to(error: AccessError) -> wit::AccessError {
    match error {
        AccessError::UnknownContext => wit::AccessError::UnknownContext,
        AccessError::NotFound => wit::AccessError::NotFound,
        AccessError::Outside => wit::AccessError::Outside,
        AccessError::NotAFile => wit::AccessError::NotAFile,
        AccessError::NotADirectory => wit::AccessError::NotADirectory,
        AccessError::TooLarge(limit) => wit::AccessError::TooLarge(limit),
        AccessError::Denied => wit::AccessError::Denied,
        AccessError::Io(message) => wit::AccessError::Io(message),
    }
}
