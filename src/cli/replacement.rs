//! Replaces a file as a whole: the new content is written beside the file, made durable, and gets
//! its name.
//!
//! A reader finds the old content or the new one, also after a crash. The new file has the owner
//! and the permissions of the old one. [`destination`](super::destination) writes exports and
//! manual pages this way, and `florin cdc` its cursor. Not covered: access control lists and
//! extended attributes.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Maximum symbolic links followed, as in Linux.
const LINKS_MAX: usize = 40;
/// Permissions of a file that replaces another one, until it has those of the old file.
const MODE_PRIVATE: u32 = 0o600;
/// Permissions of the group.
const MODE_GROUP: u32 = 0o070;
/// Permissions that a new file takes over: it does not run as its owner or group.
const MODE_KEPT: u32 = 0o777;

/// The path at the end of all symbolic links, whether a file exists there or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    path: PathBuf,
}

impl Target {
    /// Follows symbolic links; `None` if the path leads through the descriptors below `/proc`.
    ///
    /// # Errors
    ///
    /// If the folder does not exist, too many links are found, or the path names a directory.
    pub fn find(path: &Path) -> io::Result<Option<Target>> {
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            let folder = folder_of(&path).to_owned();
            if fs::canonicalize(&folder)?.starts_with("/proc") {
                return Ok(None);
            }
            match fs::symlink_metadata(&path) {
                Ok(facts) if facts.is_symlink() => path = folder.join(fs::read_link(&path)?),
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ if path.file_name().is_none() || names_folder(&path) => {
                    return Err(io::Error::from(ErrorKind::IsADirectory));
                }
                _ => return Ok(Some(Target { path })),
            }
        }
        Err(io::Error::from_raw_os_error(libc::ELOOP))
    }

    /// Returns the path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of a file that belongs to this one: in the same folder, with the name
    /// extended by a suffix.
    ///
    /// # Panics
    ///
    /// Never: the path has a name.
    #[must_use]
    pub fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.file_name().expect("checked when it was found").to_owned();
        name.push(suffix);
        folder_of(&self.path).join(name)
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn names_folder(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// The new content of a file, until it has the file's name. Dropping it removes it.
#[derive(Debug)]
pub struct Replacement {
    file: File,
    part: PathBuf,
    path: PathBuf,
    /// `None` if the caller may not read the folder: then the name is not made durable.
    folder: Option<File>,
    is_complete: bool,
}

impl Replacement {
    /// Creates an empty file beside the target.
    ///
    /// # Errors
    ///
    /// If the target exists and is not a regular file that the caller can write, or the new file
    /// exists or cannot be created.
    pub fn create(target: &Target, suffix: &str) -> io::Result<Replacement> {
        let path = target.path.clone();
        let old = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            facts => Some(facts?),
        };
        let mut options = OpenOptions::new();
        options.write(true);
        if let Some(old) = &old {
            if !old.is_file() {
                return Err(io::Error::other("it is not a regular file"));
            }
            // A file that the caller cannot write must not be replaced either.
            options.clone().custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path)?;
            options.mode(MODE_PRIVATE);
        }
        let folder = match File::open(folder_of(&path)) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
            folder => Some(folder?),
        };
        let part = target.beside(suffix);
        let file = options.create_new(true).open(&part)?;
        let replacement = Replacement { file, part, path, folder, is_complete: false };
        if let Some(old) = &old {
            take_over(&replacement.file, old)?;
        }
        Ok(replacement)
    }

    /// Returns the handle to write to.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the new content the name of the old one, durably.
    ///
    /// # Errors
    ///
    /// If the content or the name cannot be made durable, or the name cannot be given.
    pub fn complete(mut self) -> io::Result<()> {
        // With the handle that wrote: another one may miss the error of a write.
        self.file.sync_all()?;
        fs::rename(&self.part, &self.path)?;
        self.is_complete = true;
        match self.folder.as_ref().map(File::sync_all) {
            // Some file systems cannot sync folders.
            Some(Err(error)) if error.kind() != ErrorKind::InvalidInput => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.is_complete {
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// Gives a file that the caller has just created the owner and the permissions of another one.
///
/// # Errors
///
/// If the permissions cannot be changed.
pub fn take_over(file: &File, old: &Metadata) -> io::Result<()> {
    let (owner, group) = (Some(old.uid()), Some(old.gid()));
    // Only root can change the owner; otherwise the new file belongs to the caller.
    let is_grouped = fchown(file, owner, group).or_else(|_| fchown(file, None, group)).is_ok();
    let mode = old.permissions().mode() & MODE_KEPT;
    // The permissions of one group are not for another one.
    let mode = if is_grouped { mode } else { mode & !MODE_GROUP };
    file.set_permissions(Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    fn folder(name: &str) -> PathBuf {
        let name = format!("florin-test-replacement-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        folder
    }

    fn replace(path: &Path, text: &str) {
        let target = Target::find(path).unwrap().unwrap();
        let replacement = Replacement::create(&target, ".part").unwrap();
        replacement.file().write_all(text.as_bytes()).unwrap();
        replacement.complete().unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    /// Goal: a file that only its owner can write to, and nobody can read, is replaced.
    #[test]
    fn files_that_cannot_be_read() {
        let folder = folder("unreadable");
        let path = folder.join("x");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o200)).unwrap();
        replace(&path, "new");
        assert_eq!(mode(&path), 0o200);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        fs::remove_dir_all(&folder).unwrap();
    }

    /// Goal: the new content never has more permissions than the old one, and root leaves the owner
    /// as it was.
    #[test]
    fn owner_and_permissions() {
        let folder = folder("owner");
        let path = folder.join("x");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let is_root = std::os::unix::fs::chown(&path, Some(12_345), Some(23_456)).is_ok();
        let target = Target::find(&path).unwrap().unwrap();
        let replacement = Replacement::create(&target, ".part").unwrap();
        assert_eq!(mode(&target.beside(".part")), 0o640);
        replacement.complete().unwrap();
        let facts = fs::metadata(&path).unwrap();
        assert_eq!(facts.permissions().mode() & 0o777, 0o640);
        if is_root {
            assert_eq!((facts.uid(), facts.gid()), (12_345, 23_456));
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    /// Goal: a target that stops being a regular file is not replaced, and nothing is left beside
    /// it; a file that is in the way is left alone.
    #[test]
    fn refusals() {
        let folder = folder("refusals");
        let path = folder.join("x");
        let target = Target::find(&path).unwrap().unwrap();
        symlink("y", &path).unwrap();
        let error = Replacement::create(&target, ".part").unwrap_err();
        assert_eq!(error.to_string(), "it is not a regular file");
        fs::remove_file(&path).unwrap();
        fs::write(target.beside(".part"), "of others").unwrap();
        let error = Replacement::create(&target, ".part").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(target.beside(".part")).unwrap(), "of others");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        for name in ["new/", "..", "/"] {
            let error = Target::find(&folder.join(name)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::IsADirectory, "{name}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
