//! Spool: files with the events that the ledger does not have yet. Each event is appended before its claim is answered,
//! with one write per batch. If this process is killed before SQL has the event, the next start reads it from the file. The
//! kernel holds a completed write, which survives the end of the process but not a power loss; only an SQL commit survives
//! that.
//!
//! Files are never synced, and a file is deleted as soon as SQL has its events, usually before the kernel has written it to
//! disk. Each sidecar locks the files it writes, so an unlocked file belongs to a dead sidecar. This module must not know
//! what an event means or when SQL has it; the journal does.

mod record;

use std::{
    collections::VecDeque,
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::event::{Event, EventRow};
use twilio_edge_platform::{file_access, metrics::Metrics};

/// Size in bytes after which the spool begins another file.
const FILE_BYTES: u64 = 4 << 20;

/// File extension of spool files.
const SUFFIX: &str = "spool";

/// Number of the file that contains a row. Later files have greater numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SpoolPosition(u64);

/// The spool files of one sidecar.
pub(super) struct Spool {
    folder: PathBuf,
    most_bytes: u64,
    metrics: Arc<Metrics>,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    /// The last file is appended to; the first one contains a row that SQL does not have.
    open: VecDeque<Segment>,
    /// Number of the latest file.
    next: u64,
    /// Buffer for encoded events, reused for its capacity.
    buffer: Vec<u8>,
    /// Set if the last append failed.
    refuses: bool,
}

struct Segment {
    place: SpoolPosition,
    path: PathBuf,
    /// The file, locked as long as it is open.
    file: File,
    bytes: u64,
    /// Number of its rows that SQL does not have.
    waiting: usize,
}

/// Spool file of a dead sidecar.
pub(super) struct Orphan {
    path: PathBuf,
    /// Locked, so that no other sidecar adopts the file.
    _file: File,
    /// All rows that can be decoded.
    pub(super) rows: Vec<EventRow>,
    /// Number of bytes at the end of the file that cannot be decoded.
    pub(super) torn: usize,
}

/// Result of adopting a file that may be an orphan.
pub(super) enum Adoption {
    /// This process has adopted the file.
    Adopted(Orphan),
    /// Another process holds the file, or it was deleted.
    InUse,
    /// This version cannot read the file.
    OtherVersion,
}

impl Spool {
    /// Creates the first file, so that a folder that is not writable is detected at start.
    pub(super) fn open(folder: &Path, most_bytes: u64, metrics: Arc<Metrics>) -> io::Result<Spool> {
        // The files contain phone numbers and messages, so only this user may access a folder that we create.
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        file_access::repair(folder);
        for entry in std::fs::read_dir(folder)?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|suffix| suffix == SUFFIX) {
                file_access::repair(&path);
            }
        }
        let mut files = Files::default();
        files.begin(folder)?;
        Ok(Spool { folder: folder.to_owned(), most_bytes, metrics, files: Mutex::new(files) })
    }

    /// Appends events, which the next start recovers. Returns `None` when the spool is full or the disk refuses the write.
    pub(super) fn keep(&self, events: &[Event<'_>]) -> Option<SpoolPosition> {
        let mut files = self.files();
        let appended = files.append(events, &self.folder, self.most_bytes);
        let refuses = appended.is_err();
        match &appended {
            Err(reason) if !files.refuses => tracing::error!(event = "spool.unavailable",
                %reason,
                folder = %self.folder.display(),
                "the spool could not store events; claims wait for the database",
            ),
            Ok(_) if files.refuses => {
                tracing::info!(event = "spool.resumed", "the spool accepted events again")
            }
            _ => {}
        }
        files.refuses = refuses;
        self.metrics.journal.spooled(files.bytes(), refuses);
        appended.ok()
    }

    /// Releases rows at these places: SQL has them, or they will never be written.
    pub(super) fn forget(&self, places: impl IntoIterator<Item = SpoolPosition>) {
        let mut files = self.files();
        for place in places {
            // The place is almost always the first or the last.
            let segment = files.open.iter_mut().find(|segment| segment.place == place);
            segment.into_iter().for_each(|segment| {
                segment.waiting = segment.waiting.saturating_sub(1);
            });
        }
        files.clear();
        self.metrics.journal.spooled(files.bytes(), files.refuses);
    }

    /// Deletes the files that are no longer needed. Files with rows that SQL lacks remain for the next start.
    pub(super) fn close(&self) {
        let mut files = self.files();
        while files.open.front().is_some_and(|segment| segment.waiting == 0) {
            files.drop_first();
        }
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        // No code panics while it holds this lock.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    fn bytes(&self) -> u64 {
        self.open.iter().map(|segment| segment.bytes).sum()
    }

    fn append(
        &mut self,
        events: &[Event<'_>],
        folder: &Path,
        most_bytes: u64,
    ) -> io::Result<SpoolPosition> {
        self.buffer.clear();
        events.iter().for_each(|event| record::encode(event, &mut self.buffer));
        let bytes = self.buffer.len() as u64;
        if self.bytes().saturating_add(bytes) > most_bytes {
            return Err(io::Error::other("events.spool_max_bytes are waiting for the database"));
        }
        if self.open.back().is_none_or(|segment| segment.bytes >= FILE_BYTES) {
            self.begin(folder)?;
        }
        let Some(segment) = self.open.back_mut() else {
            return Err(io::Error::other("there is no file"));
        };
        match segment.file.write(&self.buffer) {
            Ok(written) if written == self.buffer.len() => {
                segment.bytes = segment.bytes.saturating_add(bytes);
                segment.waiting = segment.waiting.saturating_add(events.len());
                Ok(segment.place)
            }
            // A partial record would hide the records after it.
            failed => {
                if segment.file.set_len(segment.bytes).is_err() {
                    segment.bytes = segment.bytes.max(FILE_BYTES);
                }
                Err(failed.err().unwrap_or_else(|| io::ErrorKind::StorageFull.into()))
            }
        }
    }

    /// Creates another file and locks it before its first row.
    fn begin(&mut self, folder: &Path) -> io::Result<()> {
        loop {
            self.next += 1;
            let name = format!("{}-{}.{SUFFIX}", std::process::id(), self.next);
            let path = folder.join(name);
            let made = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
            let mut file = match made {
                // The file of an earlier sidecar with the same process id, for example in a container.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            };
            // Another process that holds the lock is about to adopt the file.
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => continue,
                locked => locked.map_err(io::Error::from)?,
            }
            file.write_all(record::HEADER)?;
            let (place, bytes) = (SpoolPosition(self.next), record::HEADER.len() as u64);
            self.open.push_back(Segment { place, path, file, bytes, waiting: 0 });
            return Ok(());
        }
    }

    /// Deletes the leading files whose rows SQL has. A row that another one was merged into is in an earlier file.
    fn clear(&mut self) {
        while self.open.len() > 1 && self.open.front().is_some_and(|first| first.waiting == 0) {
            self.drop_first();
        }
        let header = record::HEADER.len() as u64;
        if let Some(last) = self.open.front_mut()
            && last.waiting == 0
            && last.bytes > header
            && last.file.set_len(header).is_ok()
        {
            last.bytes = header;
        }
    }

    fn drop_first(&mut self) {
        if let Some(segment) = self.open.pop_front()
            && let Err(error) = std::fs::remove_file(&segment.path)
        {
            tracing::warn!(event = "spool.delete_failed", %error, file = %segment.path.display(), "the sidecar could not remove a written spool file");
        }
    }
}

/// Returns the spool files in a folder, oldest first; files of living sidecars are included and turn out to be locked.
pub(super) fn orphans(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == SUFFIX) {
            found.push((entry.metadata()?.modified()?, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

impl Orphan {
    /// Reads a file, unless its sidecar is alive, another process adopts it, or it has another version.
    pub(super) fn adopt(path: &Path) -> io::Result<Adoption> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Adoption::InUse),
            file => file?,
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(Adoption::InUse),
            locked => locked.map_err(io::Error::from)?,
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        if !record::is_ours(&bytes) {
            return Ok(Adoption::OtherVersion);
        }
        let (rows, torn) = record::decode(&bytes);
        Ok(Adoption::Adopted(Orphan { path: path.to_owned(), _file: file, rows, torn }))
    }

    /// Deletes the file, after SQL has all its rows.
    pub(super) fn remove(self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            // Its sidecar deleted it between our open and our lock.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
    use tempfile::TempDir;

    use super::{record::tests::any_row, *};

    fn rows(count: usize) -> Vec<EventRow> {
        let mut runner = TestRunner::deterministic();
        let rows = prop::collection::vec(any_row(), count);
        rows.new_tree(&mut runner).unwrap().current()
    }

    fn spool(folder: &TempDir, most_bytes: u64) -> Spool {
        Spool::open(folder.path(), most_bytes, Arc::default()).unwrap()
    }

    /// Returns the rows that the next start would find, file by file.
    fn recovered_from(folder: &TempDir) -> Vec<Vec<EventRow>> {
        let paths = orphans(folder.path()).unwrap();
        let adopted = paths.iter().map(|path| Orphan::adopt(path).unwrap());
        let rows = |adopted| match adopted {
            Adoption::Adopted(orphan) => Some(orphan.rows),
            Adoption::InUse | Adoption::OtherVersion => None,
        };
        adopted.filter_map(rows).collect()
    }

    #[test]
    fn unwritten_events_are_recovered_after_the_process_ends() {
        let (folder, rows) = (TempDir::new().unwrap(), rows(6));
        let living = spool(&folder, 1 << 20);
        living.keep(&events(&rows[..4])).unwrap();
        living.keep(&events(&rows[4..])).unwrap();
        assert_eq!(recovered_from(&folder), Vec::<Vec<_>>::new(), "its sidecar lives");
        drop(living);
        assert_eq!(recovered_from(&folder), [rows]);
    }

    #[test]
    fn events_in_sql_are_removed_from_the_spool() {
        let (folder, rows) = (TempDir::new().unwrap(), rows(5));
        let spool = spool(&folder, 1 << 20);
        let places: Vec<SpoolPosition> =
            rows.iter().map(|row| spool.keep(&[row.event()]).unwrap()).collect();
        spool.forget(places[1..].iter().copied());
        assert!(spool.files().bytes() > record::HEADER.len() as u64);
        spool.forget([places[0]]);
        assert_eq!(spool.files().bytes(), record::HEADER.len() as u64);
        // The file remains usable afterwards.
        spool.keep(&events(&rows[..1])).unwrap();
        drop(spool);
        assert_eq!(recovered_from(&folder), [&rows[..1]]);
    }

    #[test]
    fn closed_spool_keeps_only_unwritten_events() {
        let (folder, rows) = (TempDir::new().unwrap(), rows(1));
        for written in [true, false] {
            let spool = spool(&folder, 1 << 20);
            let place = spool.keep(&events(&rows)).unwrap();
            spool.forget(Some(place).filter(|_| written));
            spool.close();
        }
        assert_eq!(recovered_from(&folder), [rows]);
    }

    #[test]
    fn files_are_deleted_in_order() {
        let (folder, mut rows) = (TempDir::new().unwrap(), rows(3));
        let large = "x".repeat(usize::try_from(FILE_BYTES).unwrap());
        rows.iter_mut().for_each(|row| {
            *row = EventRow::of(Event { form: Some(&large), ..row.event() });
        });
        let spool = spool(&folder, u64::MAX);
        let places: Vec<SpoolPosition> =
            rows.iter().map(|row| spool.keep(&[row.event()]).unwrap()).collect();
        assert!(places.is_sorted() && places[0] != places[2]);
        let files = || std::fs::read_dir(folder.path()).unwrap().count();
        // The row in the second file may have been merged into the first row, so the file stays as long as the first one.
        spool.forget([places[1]]);
        assert_eq!(files(), 3);
        spool.forget([places[0]]);
        assert_eq!(files(), 1);
        drop(spool);
        assert_eq!(recovered_from(&folder), [&rows[2..]]);
    }

    #[test]
    fn full_spool_refuses_events_until_sql_has_some_of_them() {
        let (folder, rows) = (TempDir::new().unwrap(), rows(1));
        let spool = spool(&folder, record::HEADER.len() as u64 + encoded(&rows));
        let place = spool.keep(&events(&rows)).unwrap();
        assert_eq!(spool.keep(&events(&rows)), None);
        spool.forget([place]);
        assert!(spool.keep(&events(&rows)).is_some());
    }

    #[test]
    fn file_of_another_version_is_not_changed() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("1-1.spool");
        std::fs::write(&path, "twilio-edge spool 9\nwhatever that may be").unwrap();
        assert_eq!(recovered_from(&folder), Vec::<Vec<_>>::new());
        assert!(path.exists());
    }

    #[test]
    fn existing_file_name_is_not_used_again() {
        let (folder, rows) = (TempDir::new().unwrap(), rows(1));
        let dead = spool(&folder, 1 << 20);
        dead.keep(&events(&rows)).unwrap();
        drop(dead);
        // Has the same process id, and its first file would have the same name.
        let next = spool(&folder, 1 << 20);
        next.keep(&events(&rows)).unwrap();
        drop(next);
        assert_eq!(recovered_from(&folder), [rows.clone(), rows]);
    }

    fn events(rows: &[EventRow]) -> Vec<Event<'_>> {
        rows.iter().map(EventRow::event).collect()
    }

    fn encoded(rows: &[EventRow]) -> u64 {
        let mut bytes = Vec::new();
        rows.iter().for_each(|row| record::encode(&row.event(), &mut bytes));
        bytes.len() as u64
    }
}
