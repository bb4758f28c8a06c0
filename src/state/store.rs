//! One task's RocksDB and the folder that holds them all.
//!
//! Key layout (frozen, promise 10): `a` + entity key → encoded actor state; `d` + due time (milliseconds, 8 bytes big-endian,
//! the sign bit flipped, so that keys sort by time) + entity key → nothing: a hint of the due index; `m` → what the store
//! says of itself ([`Local`], JSON). All of them are written in one batch, so the store always stands at exactly one commit.
//! Hints follow from the states: a store whose [`Local::due_index`] is not this binary's has them made anew.

use super::due::Hint;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Direction, IteratorMode, Options, WriteBatch, WriteBufferManager, WriteOptions,
};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use tracing::debug;
use tripline_core::protocol::start::Local;

const STATE: u8 = b'a';
const DUE: u8 = b'd';
const META: &[u8] = b"m";

/// Layout of the hints; [`Local::due_index`].
pub const DUE_INDEX: u32 = 1;

/// What can go wrong with the state folder.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// RocksDB refused.
    #[error("state store {}: {source}{}", path.display(), advice(source))]
    Rocks {
        /// The task's folder.
        path: PathBuf,
        /// RocksDB's own words.
        #[source]
        source: rocksdb::Error,
    },
    /// The folder cannot be used.
    #[error("state folder {}: {source}; check that it exists, is writable and has room (state.dir)", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// Somebody else works in the folder.
    #[error("state folder {} is in use by another tripline process; give each process its own state.dir", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// What the store says of itself could not be read.
    #[error("state store {}: what it says of itself cannot be read", path.display())]
    Words {
        /// The task's folder.
        path: PathBuf,
    },
    /// An actor state could not be read.
    #[error("state store {}: {source}", path.display())]
    State {
        /// The task's folder.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: tripline_core::state::StateError,
    },
}

/// What to do about an error of the disk.
fn advice(error: &rocksdb::Error) -> &'static str {
    match error.kind() {
        rocksdb::ErrorKind::IOError => "; check that the disk works and has room (state.dir)",
        _ => "",
    }
}

impl StoreError {
    /// Files are damaged or missing: nothing but setting the rest aside helps. A full or failing disk is another matter, and
    /// so is a state of another version, which stands in the changelog, too.
    pub fn is_corruption(&self) -> bool {
        match self {
            StoreError::Rocks { source, .. } => match source.kind() {
                rocksdb::ErrorKind::Corruption => true,
                // The kind does not tell a missing file from a disk that refuses; RocksDB's words do.
                rocksdb::ErrorKind::IOError => source.as_ref().contains("No such file or directory"),
                _ => false,
            },
            StoreError::Words { .. } => true,
            StoreError::Folder { .. } | StoreError::InUse { .. } | StoreError::State { .. } => false,
        }
    }
}

/// Block cache and write buffers of all tasks together.
#[derive(Clone)]
pub struct Budget {
    cache: Cache,
    buffers: WriteBufferManager,
    unwritten: Unwritten,
}

/// Committed encodings that one task keeps in memory at most, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unwritten {
    /// While it runs.
    pub running: usize,
    /// While it is restored.
    pub restoring: usize,
}

impl Default for Unwritten {
    fn default() -> Unwritten {
        Unwritten { running: 16 << 20, restoring: 4 << 20 }
    }
}

/// RocksDB allocates write buffers in steps of this, and each open one has a step or more: with RocksDB's own (1 MiB) a
/// few dozen tasks would fill any budget with nothing and flush without end.
const ARENA_STEP: usize = 64 << 10;

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Budget")
    }
}

impl Budget {
    /// Blocks and write buffers inside one bound: what the buffers take is charged to the cache of blocks. Buffers of a third
    /// are flushed before they are a half, so the cache gets a sixth less than all, as in Flink.
    pub fn new(bytes: usize) -> Budget {
        let cache = Cache::new_lru_cache(bytes / 6 * 5);
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(bytes / 3, false, cache.clone());
        Budget { cache, buffers, unwritten: Unwritten::default() }
    }

    /// With bounds for what has not reached RocksDB: of a task that runs, and of one that is restored.
    pub fn with_unwritten(self, running: usize, restoring: usize) -> Budget {
        Budget { unwritten: Unwritten { running, restoring }, ..self }
    }
}

/// The state folder, locked for this process.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Creates and locks the folder.
    pub fn open(path: &Path) -> Result<StateDir, StoreError> {
        let folder = |source| StoreError::Folder { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(folder)?;
        let lock = File::options().create(true).truncate(false).write(true).open(path.join("LOCK")).map_err(folder)?;
        match lock.try_lock() {
            Ok(()) => Ok(StateDir { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(folder(source)),
        }
    }

    /// Locks a folder to look into it; `None` when there is none, or nobody worked in it yet.
    pub fn existing(path: &Path) -> Result<Option<StateDir>, StoreError> {
        if path.join("LOCK").exists() { StateDir::open(path).map(Some) } else { Ok(None) }
    }

    /// The id kept in the folder, made on first use: the identity of a process that has none configured.
    pub fn identity(&self) -> Result<String, StoreError> {
        let path = self.path.join("identity");
        let folder = |source| StoreError::Folder { path: path.clone(), source };
        match std::fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
            Ok(_) => self.new_identity(&path).map_err(folder),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => self.new_identity(&path).map_err(folder),
            Err(e) => Err(folder(e)),
        }
    }

    fn new_identity(&self, path: &Path) -> std::io::Result<String> {
        let identity = uuid::Uuid::new_v4().simple().to_string()[..12].to_owned();
        std::fs::write(path, &identity)?;
        Ok(identity)
    }

    /// The folder of a task.
    pub fn task(&self, partition: i32) -> PathBuf {
        self.path.join(format!("task-{partition}"))
    }

    /// Moves a task's store, which must be closed, out of the way, and says where to; `None` when there is none. It is never
    /// removed: that is for whoever has looked at it.
    pub fn set_aside(&self, partition: i32) -> Result<Option<PathBuf>, StoreError> {
        let (from, to) = (self.task(partition), self.path.join("set-aside"));
        let folder = |source| StoreError::Folder { path: to.clone(), source };
        std::fs::create_dir_all(&to).map_err(folder)?;
        let to = to.join(format!("task-{partition}-{}", jiff::Timestamp::now().as_millisecond()));
        match std::fs::rename(&from, &to) {
            Ok(()) => Ok(Some(to)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Folder { path: to, source }),
        }
    }
}

/// A scan ends early when it has read so much.
const SCAN_BYTES: usize = 1 << 20;

/// What a [`TaskStore::scan`] found.
#[derive(Debug)]
pub struct Scanned {
    /// Entities and their encoded states, in key order.
    pub found: Vec<(String, Vec<u8>)>,
    /// There is nothing behind them.
    pub is_end: bool,
}

/// One task's RocksDB.
pub struct TaskStore {
    db: DB,
    path: PathBuf,
    unwritten: Unwritten,
}

impl std::fmt::Debug for TaskStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TaskStore({})", self.path.display())
    }
}

fn state_key(entity: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + entity.len());
    key.push(STATE);
    key.extend_from_slice(entity.as_bytes());
    key
}

fn due_key((due_ms, entity): &Hint) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + entity.len());
    key.push(DUE);
    key.extend_from_slice(&((*due_ms as u64) ^ (1 << 63)).to_be_bytes());
    key.extend_from_slice(entity.as_bytes());
    key
}

fn hint_of(key: &[u8]) -> Option<Hint> {
    let (due, entity) = key.strip_prefix(&[DUE])?.split_first_chunk::<8>()?;
    Some(((u64::from_be_bytes(*due) ^ (1 << 63)) as i64, String::from_utf8_lossy(entity).into()))
}

impl TaskStore {
    /// Opens a store to look at it; `None` when there is none. Nothing is written: what stands only in its log is read from there.
    pub fn open_read_only(path: &Path) -> Result<Option<TaskStore>, StoreError> {
        if !path.join("CURRENT").exists() {
            return Ok(None);
        }
        let mut options = Options::default();
        options.set_max_open_files(256);
        let db = DB::open_for_read_only(&options, path, false).map_err(|source| StoreError::Rocks { path: path.to_owned(), source })?;
        Ok(Some(TaskStore { db, path: path.to_owned(), unwritten: Unwritten::default() }))
    }

    /// Opens or creates the store.
    pub fn open(path: &Path, budget: &Budget) -> Result<TaskStore, StoreError> {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&budget.cache);
        table.set_bloom_filter(10.0, false);
        table.set_cache_index_and_filter_blocks(true);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_write_buffer_manager(&budget.buffers);
        options.set_write_buffer_size(8 << 20);
        options.set_arena_block_size(ARENA_STEP);
        options.set_max_total_wal_size(32 << 20);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_bottommost_compression_type(DBCompressionType::Zstd);
        options.set_keep_log_file_num(2);
        options.set_max_open_files(256);
        let db = DB::open(&options, path).map_err(|source| StoreError::Rocks { path: path.to_owned(), source })?;
        Ok(TaskStore { db, path: path.to_owned(), unwritten: budget.unwritten })
    }

    /// What may wait in memory to be written here.
    pub fn unwritten(&self) -> Unwritten {
        self.unwritten
    }

    /// Removes a task's store from the disk; it must be closed.
    pub fn destroy(path: &Path) -> Result<(), StoreError> {
        match std::fs::remove_dir_all(path) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(StoreError::Folder { path: path.to_owned(), source }),
        }
    }

    fn rocks(&self, source: rocksdb::Error) -> StoreError {
        StoreError::Rocks { path: self.path.clone(), source }
    }

    /// A state error with the store's name.
    pub fn state_error(&self, source: tripline_core::state::StateError) -> StoreError {
        StoreError::State { path: self.path.clone(), source }
    }

    /// What the store says of itself; `None` for one that never came to a commit.
    pub fn local(&self) -> Result<Option<Local>, StoreError> {
        let Some(bytes) = self.db.get(META).map_err(|e| self.rocks(e))? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|_| StoreError::Words { path: self.path.clone() })
    }

    /// The encoded state of an entity.
    pub fn get(&self, entity: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.db.get(state_key(entity)).map_err(|e| self.rocks(e))
    }

    /// Writes states (`None` deletes), hints to put and to delete, and what the store says of itself, all or nothing.
    pub fn write<'a>(
        &self,
        states: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
        (put, delete): (impl Iterator<Item = &'a Hint>, impl Iterator<Item = &'a Hint>),
        local: Option<&Local>,
    ) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        delete.for_each(|hint| batch.delete(due_key(hint)));
        put.for_each(|hint| batch.put(due_key(hint), []));
        for (entity, bytes) in states {
            match bytes {
                Some(bytes) => batch.put(state_key(entity), bytes),
                None => batch.delete(state_key(entity)),
            }
        }
        if let Some(local) = local {
            batch.put(META, serde_json::to_vec(local).unwrap_or_default());
        }
        let mut options = WriteOptions::default();
        // The changelog covers a lost suffix; the log in front of the tables keeps each batch whole.
        options.set_sync(false);
        self.db.write_opt(batch, &options).map_err(|e| self.rocks(e))?;
        if let Some(local) = local {
            // Whoever doubts a disk can hold what it has at the next start against this; `make faults` does.
            debug!(store = %self.path.display(), seq = local.seq, "a store was written");
        }
        Ok(())
    }

    /// Up to `limit` hints after one, by time.
    pub fn hints(&self, after: Option<&Hint>, limit: usize) -> Result<Vec<Hint>, StoreError> {
        let start = after.map_or_else(|| vec![DUE], due_key);
        let mut found = Vec::new();
        for item in self.db.iterator(IteratorMode::From(&start, Direction::Forward)) {
            let (key, _) = item.map_err(|e| self.rocks(e))?;
            let Some(hint) = hint_of(&key).filter(|_| found.len() < limit) else { break };
            if after != Some(&hint) {
                found.push(hint);
            }
        }
        Ok(found)
    }

    /// Up to `limit` entities after `from` (exclusive), in key order, with their encoded states; fewer when they are large.
    pub fn scan(&self, from: Option<&str>, limit: usize) -> Result<Scanned, StoreError> {
        let start = from.map_or_else(|| vec![STATE], state_key);
        let (mut found, mut bytes) = (Vec::new(), 0);
        for item in self.db.iterator(IteratorMode::From(&start, Direction::Forward)) {
            let (key, value) = item.map_err(|e| self.rocks(e))?;
            if key.first() != Some(&STATE) {
                break;
            }
            if found.len() == limit || bytes >= SCAN_BYTES {
                return Ok(Scanned { found, is_end: false });
            }
            let entity = String::from_utf8_lossy(&key[1..]).into_owned();
            if from != Some(entity.as_str()) {
                bytes += value.len();
                found.push((entity, value.into_vec()));
            }
        }
        Ok(Scanned { found, is_end: true })
    }
}
