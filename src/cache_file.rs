//! A file in the user's cache that is believed only if it is whole, ours, and made for the same key.
//!
//! Its contents go to a driver that may trust them, so nothing is handed out that others could have written: the folder
//! and the file belong to this user and nobody else may write to them, links are not followed, and a header with
//! version, key, length and checksum is checked first. Whatever is wrong, there is no cache then; it is never an error.
//!
//! Several processes may use a folder. Files are replaced by renaming, so a reader sees an old one or a new one, never a
//! half; of two that write at the same time, the last wins.

use crate::os::{self, secure_variable};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable that says where cache files are; `off` or nothing: nowhere.
const FOLDER_VARIABLE: &str = "GRILLY_CACHE_DIR";

const MAGIC: [u8; 8] = *b"grillyPC";
const VERSION: u32 = 1;
/// Magic, version, length of the key, length of the contents, checksum of all else.
const HEADER_BYTES: usize = 8 + 4 + 4 + 8 + 8;
/// No file is larger, contents alone.
const MOST_BYTES: u64 = 64 << 20;
/// The folder keeps so many files: one for each device, driver and version of this library.
const MOST_FILES: usize = 16;
const EXTENSION: &str = "grillycache";

/// Where a cache file may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CacheFolder {
    /// What `GRILLY_CACHE_DIR` names, else `libgrilly/pipelines` in the user's cache folder. None of that for a process
    /// that runs with rights that its caller lacks.
    #[default]
    Usual,
    /// Nowhere: nothing is read or written.
    Off,
    /// This folder, made if it is missing.
    At(PathBuf),
}

impl CacheFolder {
    /// The folder, if there is to be one.
    fn path(&self) -> Option<PathBuf> {
        match self {
            CacheFolder::Off => None,
            CacheFolder::At(path) => Some(path.clone()),
            CacheFolder::Usual => usual(|name| secure_variable(name).map(PathBuf::from)),
        }
    }
}

/// As the XDG base directory specification has it: relative paths do not count.
fn usual(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(named) = variable(FOLDER_VARIABLE) {
        return Some(named).filter(|named| named.is_absolute());
    }
    let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
    let base = if cfg!(windows) {
        absolute("LOCALAPPDATA")
    } else {
        absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))
    };
    base.map(|base| base.join("libgrilly").join("pipelines"))
}

/// A file for one key.
pub struct CacheFile {
    path: PathBuf,
    key: Vec<u8>,
}

impl CacheFile {
    /// The file of a key, whether or not it exists; `None` where there is to be none.
    pub fn new(folder: &CacheFolder, key: &[u8]) -> Option<CacheFile> {
        let name = format!("{:016x}.{EXTENSION}", checksum(&[key]));
        Some(CacheFile { path: folder.path()?.join(name), key: key.to_vec() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was last written for this key.
    ///
    /// # Errors
    /// Says why there is nothing.
    pub fn read(&self) -> Result<Vec<u8>, String> {
        let folder = self.path.parent().ok_or("it has no folder")?;
        os::check_private(&fs::symlink_metadata(folder).map_err(text)?, true)?;
        let mut file = os::open_no_link(&self.path).map_err(text)?;
        let found = file.metadata().map_err(text)?;
        os::check_private(&found, false)?;
        let most = MOST_BYTES + (HEADER_BYTES + self.key.len()) as u64;
        if found.len() > most {
            return Err(format!("it has {} bytes, more than the {most} that are read", found.len()));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(found.len() as usize).map_err(text)?;
        // It may have grown since; what is beyond its length shows as a wrong length.
        (&mut file).take(most).read_to_end(&mut bytes).map_err(text)?;
        let contents = contents(&bytes, &self.key)?.len();
        bytes.drain(..bytes.len() - contents);
        Ok(bytes)
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// Says why it was not; the old one is still there.
    pub fn write(&self, contents: &[u8]) -> Result<(), String> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        if contents.len() as u64 > MOST_BYTES {
            return Err(format!("{} bytes are more than the {MOST_BYTES} that are kept", contents.len()));
        }
        let folder = self.path.parent().ok_or("it has no folder")?;
        os::create_private_folder(folder).map_err(text)?;
        os::check_private(&fs::symlink_metadata(folder).map_err(text)?, true)?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let draft = folder.join(format!("{}-{count}.draft", std::process::id()));
        let written = os::create_private(&draft).and_then(|mut file| {
            file.write_all(&header(&self.key, contents))?;
            file.write_all(&self.key)?;
            file.write_all(contents)
        });
        written.and_then(|()| fs::rename(&draft, &self.path)).map_err(|error| {
            // One of an ended process with our number may be in the way, too.
            let _ = fs::remove_file(&draft);
            text(error)
        })?;
        bound(folder, &self.path);
        Ok(())
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Removes the oldest files beyond those that a folder keeps, and drafts of processes that ended too soon.
fn bound(folder: &Path, keep: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let with = |entry: &fs::DirEntry, extension: &str| entry.path().extension().is_some_and(|found| found == extension);
    let mut files = Vec::new();
    for entry in entries.flatten() {
        let Some(changed) = entry.metadata().ok().and_then(|found| found.modified().ok()) else { continue };
        let hours = changed.elapsed().map_or(0, |age| age.as_secs() / 3600);
        if with(&entry, "draft") && hours > 0 {
            let _ = fs::remove_file(entry.path());
        } else if with(&entry, EXTENSION) && entry.path() != keep {
            files.push((changed, entry.path()));
        }
    }
    files.sort();
    let surplus = (files.len() + 1).saturating_sub(MOST_FILES);
    for (_, path) in files.iter().take(surplus) {
        let _ = fs::remove_file(path);
    }
}

fn header(key: &[u8], contents: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&(key.len() as u32).to_le_bytes());
    header[16..24].copy_from_slice(&(contents.len() as u64).to_le_bytes());
    let sum = checksum(&[&header[..24], key, contents]);
    header[24..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// The contents of a file that is whole and was written for this key.
fn contents<'a>(file: &'a [u8], key: &[u8]) -> Result<&'a [u8], String> {
    let (found, rest) = file.split_at_checked(HEADER_BYTES).ok_or("it ends within its header")?;
    if found[..8] != MAGIC || found[8..12] != VERSION.to_le_bytes() {
        return Err("it is no cache file of this version".into());
    }
    let (found_key, contents) = rest.split_at_checked(key.len()).ok_or("it ends within its key")?;
    if found[12..16] != (key.len() as u32).to_le_bytes() || found_key != key {
        return Err("it was written for another device, driver or version of this library".into());
    }
    if found[16..24] != (contents.len() as u64).to_le_bytes() {
        return Err("it is shorter or longer than it says".into());
    }
    if *found != header(key, contents) {
        return Err("its checksum is wrong".into());
    }
    Ok(contents)
}

/// Of all bytes in order, lengths included. It finds damage; against malice stands who may write to the folder. Each
/// step is invertible in the state and in the word, so that one changed word always changes the sum.
fn checksum(parts: &[&[u8]]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325u64;
    let mut step = |word: u64| {
        state = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state ^= state >> 29;
    };
    for part in parts {
        let (words, rest) = part.as_chunks::<8>();
        words.iter().for_each(|word| step(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        step(u64::from_le_bytes(last));
        step(part.len() as u64);
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of the test's own, removed with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("grilly-cache-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Folder(path)
        }

        fn file(&self, key: &[u8]) -> CacheFile {
            CacheFile::new(&CacheFolder::At(self.0.clone()), key).expect("it is not off")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_written_is_read_and_replaced() {
        let folder = Folder::new("replaced");
        let file = folder.file(b"key");
        assert!(file.read().is_err(), "there is none yet");
        for contents in [&b"first"[..], b"", b"another, longer one"] {
            file.write(contents).expect("written");
            assert_eq!(file.read().expect("whole"), contents);
        }
        assert_eq!(fs::read_dir(&folder.0).expect("a folder").count(), 1, "no drafts are left");
    }

    #[test]
    fn every_changed_byte_and_every_length_is_noticed() {
        let folder = Folder::new("damage");
        let file = folder.file(b"a key");
        file.write(b"contents of some bytes").expect("written");
        let whole = fs::read(file.path()).expect("there");
        for at in 0..whole.len() {
            for bit in [1, 0x80] {
                let mut damaged = whole.clone();
                damaged[at] ^= bit;
                fs::write(file.path(), damaged).expect("written");
                assert!(file.read().is_err(), "byte {at}");
            }
            fs::write(file.path(), &whole[..at]).expect("written");
            assert!(file.read().is_err(), "cut at {at}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        fs::write(file.path(), longer).expect("written");
        assert!(file.read().is_err(), "a byte too many");
        fs::write(file.path(), whole).expect("written");
        assert!(file.read().is_ok());
    }

    #[test]
    fn a_file_of_another_key_is_not_read() {
        let folder = Folder::new("key");
        let (mine, other) = (folder.file(b"mine"), folder.file(b"their"));
        assert_ne!(mine.path(), other.path());
        other.write(b"theirs").expect("written");
        fs::rename(other.path(), mine.path()).expect("moved");
        assert!(mine.read().unwrap_err().contains("another device"));
    }

    #[test]
    fn files_beyond_the_bound_are_neither_written_nor_read() {
        let folder = Folder::new("size");
        let file = folder.file(b"key");
        assert!(file.write(&vec![0; MOST_BYTES as usize + 1]).unwrap_err().contains("more than"));
        file.write(b"small").expect("written");
        fs::OpenOptions::new().write(true).open(file.path()).expect("there").set_len(MOST_BYTES * 2).expect("sparse");
        assert!(file.read().unwrap_err().contains("more than"));
    }

    #[test]
    fn a_folder_keeps_a_few_files() {
        let folder = Folder::new("count");
        let files: Vec<_> = (0..MOST_FILES as u8 + 5).map(|key| folder.file(&[key])).collect();
        for file in &files {
            file.write(b"contents").expect("written");
        }
        assert_eq!(fs::read_dir(&folder.0).expect("a folder").count(), MOST_FILES);
        assert!(files.last().expect("some").read().is_ok(), "the newest is kept");
    }

    /// The test runs itself: with this set, it is one of the writers.
    const WRITER: &str = "GRILLY_TEST_CACHE_WRITER";
    const WRITERS: u8 = 3;

    /// What a writer writes: of its own length and value each time.
    fn is_whole(contents: &[u8]) -> bool {
        contents.first().is_some_and(|first| {
            let (writer, round) = (usize::from(first / 64), usize::from(first % 64));
            contents.len() == 10_000 * (writer + 1) + 100 * round && contents.iter().all(|byte| byte == first)
        })
    }

    #[test]
    fn processes_that_write_at_the_same_time_leave_whole_files() {
        if let Ok(writer) = std::env::var(WRITER) {
            let (writer, folder) = writer.split_once(' ').expect("a number and a folder");
            let writer: u8 = writer.parse().expect("a number");
            let file = CacheFile::new(&CacheFolder::At(folder.into()), b"key").expect("it is not off");
            for round in 0..64u8 {
                let contents = vec![64 * writer + round; 10_000 * (usize::from(writer) + 1) + 100 * usize::from(round)];
                file.write(&contents).expect("written");
                assert!(is_whole(&file.read().expect("whole")), "round {round}");
            }
            return;
        }
        let folder = Folder::new("processes");
        let file = folder.file(b"key");
        file.write(&vec![0; 10_000]).expect("written");
        let this = std::env::current_exe().expect("a program");
        let name = "cache_file::tests::processes_that_write_at_the_same_time_leave_whole_files";
        let mut writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                std::process::Command::new(&this)
                    .args(["--exact", name])
                    .env(WRITER, format!("{writer} {}", folder.0.display()))
                    .stdout(std::process::Stdio::null())
                    .spawn()
                    .expect("it starts")
            })
            .collect();
        let mut seen = std::collections::HashSet::new();
        while writers.iter_mut().any(|writer| writer.try_wait().expect("a child").is_none()) {
            let contents = file.read().expect("whole at any time");
            assert!(is_whole(&contents));
            seen.insert(contents[0]);
        }
        for mut writer in writers {
            assert!(writer.wait().expect("a child").success());
        }
        assert!(seen.len() > 1, "it was read while they wrote");
        assert_eq!(fs::read_dir(&folder.0).expect("a folder").count(), 1, "no drafts are left");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told() {
        let folder = Folder::new("blocked");
        fs::write(&folder.0, b"a file in its place").expect("written");
        let file = folder.file(b"key");
        assert!(file.write(b"contents").is_err());
        assert!(file.read().is_err());
        fs::remove_file(&folder.0).expect("ours");
    }

    #[cfg(unix)]
    #[test]
    fn what_others_may_write_and_links_are_not_believed() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
        let folder = Folder::new("others");
        let file = folder.file(b"key");
        file.write(b"contents").expect("written");
        let modes = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((modes(&folder.0), modes(file.path())), (0o700, 0o600), "for this user alone");

        mode(&folder.0, 0o770);
        assert!(file.read().is_err() && file.write(b"contents").is_err(), "others may write to the folder");
        mode(&folder.0, 0o700);
        mode(file.path(), 0o602);
        assert!(file.read().is_err(), "others may write to the file");
        mode(file.path(), 0o600);
        assert!(file.read().is_ok());

        let elsewhere = folder.0.join("elsewhere");
        fs::rename(file.path(), &elsewhere).expect("moved");
        symlink(&elsewhere, file.path()).expect("linked");
        assert!(file.read().is_err(), "a link is not followed");
        file.write(b"new").expect("a link is replaced");
        assert_eq!(file.read().expect("whole"), b"new");
        assert_ne!(fs::read(&elsewhere).expect("there"), b"new", "and what it led to is as it was");

        fs::remove_file(file.path()).expect("ours");
        let path = std::ffi::CString::new(file.path().to_str().expect("text")).expect("text");
        // SAFETY: the path is a C string.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        assert!(file.read().is_err(), "a pipe is refused, not waited for");
    }

    #[test]
    fn the_environment_says_where_and_whether() {
        let of = |set: &[(&str, &str)]| {
            usual(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| PathBuf::from(value)))
        };
        assert_eq!(of(&[]), None);
        for off in ["", "off", "relative/path"] {
            assert_eq!(of(&[(FOLDER_VARIABLE, off), ("HOME", "/home/a"), ("LOCALAPPDATA", "C:\\a")]), None);
        }
        #[cfg(unix)]
        {
            let ours = |base: &str| Some(PathBuf::from(base).join("libgrilly/pipelines"));
            assert_eq!(of(&[("HOME", "/home/a")]), ours("/home/a/.cache"));
            assert_eq!(of(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/c")]), ours("/c"));
            assert_eq!(of(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "c")]), ours("/home/a/.cache"));
            assert_eq!(of(&[(FOLDER_VARIABLE, "/d"), ("HOME", "/home/a")]), Some("/d".into()));
        }
    }
}
