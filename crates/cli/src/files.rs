//! Files as the commands use them: written whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use polyveil_format::{FormatError, MAGIC};

use crate::error::{CliError, Exit};

/// Who may read a new file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// As the system's mask says.
    Shared,
    /// The owner alone (mode 0600); never replaces a file that exists.
    Secret,
}

/// Writes a file through `body`: into a temporary neighbour that is renamed when all is on disk.
/// After a failure neither a partial file nor the temporary one is left, and an older file of the
/// same name is untouched. Something that is no regular file (a pipe, a device) is written directly.
///
/// # Errors
/// When the file cannot be written, or a secret one exists already.
pub fn write_atomically<T>(
    path: &Path,
    access: Access,
    body: impl FnOnce(&mut dyn Write) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let fail = |e: std::io::Error| CliError::io(path, &e, "write");
    let special = std::fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir());
    if special {
        let mut file = BufWriter::new(OpenOptions::new().write(true).open(path).map_err(fail)?);
        let value = body(&mut file)?;
        file.flush().map_err(fail)?;
        return Ok(value);
    }
    refuse_overwrite(path, access)?;
    let temporary = Temporary::create(path, access).map_err(fail)?;
    // A buffer would keep a copy of a secret in memory that nobody overwrites.
    let buffer = if access == Access::Secret { 0 } else { 1 << 20 };
    let mut file = BufWriter::with_capacity(buffer, &temporary.file);
    let value = body(&mut file)?;
    file.flush().map_err(fail)?;
    drop(file);
    temporary.file.sync_all().map_err(fail)?;
    refuse_overwrite(path, access)?;
    temporary.rename(path).map_err(fail)?;
    Ok(value)
}

/// Writes `bytes` as [`write_atomically`] does.
///
/// # Errors
/// When the file cannot be written.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    write_atomically(path, Access::Shared, |to| {
        to.write_all(bytes).map_err(|e| CliError::writing(path, FormatError::Io(e)))
    })
}

/// Fails where `path` could not be written later on: no such directory, or a secret file that
/// exists. Called before long work.
///
/// # Errors
/// As described.
pub fn check_target(path: &Path, access: Access) -> Result<(), CliError> {
    if path.is_dir() {
        return Err(CliError::new(Exit::Storage, "cannot write the file: it is a directory").at(path));
    }
    let parent = directory_of(path);
    if !parent.is_dir() {
        return Err(
            CliError::new(Exit::Storage, "cannot write the file: its directory does not exist").at(path)
        );
    }
    refuse_overwrite(path, access)
}

/// Opens a file of ours for reading.
///
/// # Errors
/// When it cannot be opened.
pub fn open(path: &Path) -> Result<BufReader<File>, CliError> {
    let fail = |e: std::io::Error| CliError::io(path, &e, "read");
    let file = File::open(path).map_err(fail)?;
    if file.metadata().map_err(fail)?.is_dir() {
        return Err(CliError::new(Exit::File, "cannot read the file: it is a directory").at(path));
    }
    Ok(BufReader::with_capacity(1 << 20, file))
}

/// Size of a file, 0 where it cannot be asked.
pub fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}

/// Whether the file starts as a container of ours.
pub fn is_ours(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == MAGIC
}

/// Removes a file that an aborted command would leave behind.
pub fn remove(path: &Path) {
    // The failure that brought us here is reported; this one would only hide it.
    let _ = std::fs::remove_file(path);
}

fn refuse_overwrite(path: &Path, access: Access) -> Result<(), CliError> {
    if access == Access::Secret && path.exists() {
        return Err(CliError::new(
            Exit::Storage,
            "a secret key is never overwritten, and this file exists already",
        )
        .at(path)
        .help("choose another place; whoever removes a key can never decrypt its results again"));
    }
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A file beside its target that disappears unless it is renamed.
struct Temporary {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl Temporary {
    fn create(target: &Path, access: Access) -> std::io::Result<Self> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = directory_of(target).join(format!(".{name}.{}.part", std::process::id()));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        if access == Access::Secret {
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        #[cfg(not(unix))]
        let _ = access;
        let file = options.open(&path)?;
        Ok(Self { path, file, kept: false })
    }

    fn rename(mut self, target: &Path) -> std::io::Result<()> {
        std::fs::rename(&self.path, target)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            remove(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(directory: &Path) -> usize {
        std::fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn failure_leaves_the_old_file_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.plan");
        write_bytes(&path, b"old").unwrap();
        let error = write_atomically(&path, Access::Shared, |to| {
            to.write_all(&[0; 100]).unwrap();
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            Err::<(), _>(CliError::writing(&path, full.into()))
        });
        assert!(error.unwrap_err().message.contains("the disk is full"));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(entries(directory.path()), 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_device_is_reported() {
        let error = write_bytes(Path::new("/dev/full"), &[0; 1 << 16]).unwrap_err();
        assert_eq!(error.exit, Exit::Storage);
        assert!(error.message.contains("the disk is full"), "{}", error.message);
    }

    #[test]
    fn secret_files_are_private_and_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret.key");
        let write = || {
            write_atomically(&path, Access::Secret, |to| {
                to.write_all(b"k").map_err(|_| CliError::interrupted())
            })
        };
        write().unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(write().unwrap_err().message.contains("never overwritten"));
        assert_eq!(entries(directory.path()), 1);
    }

    #[test]
    fn targets_are_checked_before_work() {
        let directory = tempfile::tempdir().unwrap();
        assert!(check_target(directory.path(), Access::Shared).is_err());
        assert!(check_target(&directory.path().join("no/such"), Access::Shared).is_err());
        assert!(check_target(&directory.path().join("new"), Access::Shared).is_ok());
    }
}
