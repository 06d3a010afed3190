//! Saved state of a run: written after epochs, whole or not at all.
//!
//! Layout: magic, version, fingerprint of the run (32 bytes), BLAKE3 of the body (32 bytes), body
//! (postcard). The fingerprint covers configuration, data, first network and program version, so a
//! checkpoint is never continued by a run that would have gone another way.

use std::cell::Cell;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::TrainError;

const MAGIC: &[u8; 8] = b"PVTRAIN\x02";
const HEADER: usize = 8 + 32 + 32;
/// A state is a few copies of a network; nothing sound comes near this.
const MAX_BYTES: u64 = 32 << 30;

/// A checkpoint is written again once this many times as much time went by as writing it took.
const PAUSE: u32 = 20;

/// The file of one run.
pub(crate) struct Checkpoint {
    path: PathBuf,
    fingerprint: [u8; 32],
    /// End and duration of the last writing.
    last: Cell<Option<(Instant, Duration)>>,
}

impl Checkpoint {
    /// The checkpoint `name` in `folder` (made if missing), for the run with this fingerprint.
    pub(crate) fn open(folder: &Path, name: &str, fingerprint: [u8; 32]) -> Result<Self, TrainError> {
        std::fs::create_dir_all(folder)
            .map_err(|source| TrainError::Io { path: folder.to_owned(), source })?;
        Ok(Self { path: folder.join(format!("{name}.ckpt")), fingerprint, last: Cell::new(None) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The saved state; none when there is no file.
    pub(crate) fn load<T: DeserializeOwned>(&self) -> Result<Option<T>, TrainError> {
        let size = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata.len(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.io(source)),
        };
        if size > MAX_BYTES {
            return Err(self.damaged(format!("{size} bytes, at most {MAX_BYTES} expected")));
        }
        let bytes = std::fs::read(&self.path).map_err(|e| self.io(e))?;
        let (Some(header), Some(body)) = (bytes.get(..HEADER), bytes.get(HEADER..)) else {
            return Err(self.damaged(format!("{} bytes, shorter than its header", bytes.len())));
        };
        if &header[..8] != MAGIC {
            return Err(self.damaged("not a checkpoint of this version".to_owned()));
        }
        if header[8..40] != self.fingerprint {
            return Err(TrainError::CheckpointMismatch {
                path: self.path.clone(),
                expected: hex(&self.fingerprint),
                found: hex(&header[8..40]),
            });
        }
        if header[40..] != blake3::hash(body).as_bytes()[..] {
            return Err(self.damaged("checksum does not match".to_owned()));
        }
        postcard::from_bytes(body).map(Some).map_err(|e| self.damaged(e.to_string()))
    }

    /// Writes the state unless that would take a large share of the run's time.
    pub(crate) fn save_if_due(&self, state: &impl Serialize) -> Result<(), TrainError> {
        if self.last.get().is_some_and(|(end, duration)| end.elapsed() < PAUSE * duration) {
            return Ok(());
        }
        let start = Instant::now();
        self.save(state)?;
        self.last.set(Some((Instant::now(), start.elapsed())));
        Ok(())
    }

    /// Writes the state beside the old file, then takes its place. The state is not copied: that of a
    /// large network is a GB.
    pub(crate) fn save(&self, state: &impl Serialize) -> Result<(), TrainError> {
        let temporary = self.path.with_extension("pvtmp");
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::File::create(&temporary)?;
            let mut header = [MAGIC.as_slice(), &self.fingerprint, &[0; 32]].concat();
            file.write_all(&header)?;
            // The buffer comes first: hashed one by one, four bytes each, values took a third of the time of saving.
            let body = Hashing { to: &file, hash: blake3::Hasher::new() };
            let body = BufWriter::with_capacity(1 << 20, body);
            let mut body = postcard::to_io(state, body).map_err(std::io::Error::other)?;
            body.flush()?;
            header[40..].copy_from_slice(body.get_ref().hash.finalize().as_bytes());
            drop(body);
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&header)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &self.path)
        };
        write().map_err(|source| {
            let _ = std::fs::remove_file(&temporary);
            self.io(source)
        })
    }

    /// Removes the file of a run that is complete.
    pub(crate) fn remove(&self) -> Result<(), TrainError> {
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(self.io(e)),
            _ => Ok(()),
        }
    }

    fn io(&self, source: std::io::Error) -> TrainError {
        TrainError::Io { path: self.path.clone(), source }
    }

    fn damaged(&self, reason: String) -> TrainError {
        TrainError::CheckpointDamaged { path: self.path.clone(), reason }
    }
}

/// Hashes what goes through.
struct Hashing<W> {
    to: W,
    hash: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

fn hex(bytes: &[u8]) -> String {
    // Eight digits tell two runs apart in a message.
    bytes.iter().take(4).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_loads_and_what_is_altered_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::open(folder.path(), "t", [7; 32]).unwrap();
        assert_eq!(checkpoint.load::<Vec<u32>>().unwrap(), None);
        checkpoint.save(&vec![1u32, 2, 3]).unwrap();
        assert_eq!(checkpoint.load::<Vec<u32>>().unwrap(), Some(vec![1, 2, 3]));

        let sound = std::fs::read(checkpoint.path()).unwrap();
        for position in 0..sound.len() {
            let mut altered = sound.clone();
            altered[position] ^= 1;
            std::fs::write(checkpoint.path(), &altered).unwrap();
            checkpoint.load::<Vec<u32>>().unwrap_err();
            std::fs::write(checkpoint.path(), &sound[..position]).unwrap();
            checkpoint.load::<Vec<u32>>().unwrap_err();
        }

        std::fs::write(checkpoint.path(), &sound).unwrap();
        let other = Checkpoint::open(folder.path(), "t", [8; 32]).unwrap();
        let message = other.load::<Vec<u32>>().unwrap_err().to_string();
        assert!(message.contains("07070707") && message.contains("08080808"), "{message}");
        checkpoint.remove().unwrap();
        checkpoint.remove().unwrap();
        assert_eq!(checkpoint.load::<Vec<u32>>().unwrap(), None);
    }
}
