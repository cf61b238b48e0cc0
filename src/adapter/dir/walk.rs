//! Listing keys in byte order.

use std::fs;
use std::io;
use std::path::Path;

use crate::domain::layout::Key;
use crate::port::StoreError;

use super::files::unavailable;

/// Lists the keys below `root` that start with `prefix` and come after `after`, at most `limit`.
///
/// Reads only the folders that can hold one. What is no object (temporary files, locks, symbolic links, names that
/// no key can have) is passed over.
pub(super) fn list(root: &Path, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
    let folder = prefix.rfind('/').and_then(|end| prefix.get(..=end)).unwrap_or_default();
    // A prefix that no key can start with must not lead anywhere either: `../` least of all.
    if !folder.is_empty() && Key::parse(folder.trim_end_matches('/')).is_none() {
        return Ok(Vec::new());
    }
    let mut walk = Walk { root, prefix, after: after.map_or("", Key::as_str), limit, keys: Vec::new() };
    walk.enter(folder)?;
    Ok(walk.keys)
}

struct Walk<'a> {
    root: &'a Path,
    prefix: &'a str,
    after: &'a str,
    limit: usize,
    keys: Vec<Key>,
}

impl Walk<'_> {
    /// Collects what is below `folder`, which is empty (the root) or ends with `/`.
    ///
    /// A key is at most 1024 bytes long, which bounds the depth.
    fn enter(&mut self, folder: &str) -> Result<(), StoreError> {
        let path = self.root.join(folder);
        let mut names = match names(&path, folder) {
            Ok(names) => names,
            // Removed or pruned meanwhile, or not a folder at all: nothing is below it.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(unavailable("list", &path, error)),
        };
        names.retain(|name| self.wants(name));
        names.sort_unstable();
        for name in names {
            if self.keys.len() >= self.limit {
                break;
            }
            if name.ends_with('/') {
                self.enter(&name)?;
            } else if let Some(key) = Key::parse(&name) {
                self.keys.push(key);
            }
        }
        Ok(())
    }

    /// Whether `name`, a key or a folder with its final `/`, can lead to a wanted key.
    fn wants(&self, name: &str) -> bool {
        if name.ends_with('/') {
            (name.starts_with(self.prefix) || self.prefix.starts_with(name))
                && (name > self.after || self.after.starts_with(name))
        } else {
            name.starts_with(self.prefix) && name > self.after
        }
    }
}

/// The keys and folders right below `path`; a folder with its final `/`, so that names sort as the keys below them.
fn names(path: &Path, folder: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let name = format!("{folder}{name}");
        if Key::parse(&name).is_none() {
            continue;
        }
        // Of the entry itself: a symbolic link is neither.
        let kind = entry.file_type()?;
        if kind.is_dir() {
            names.push(name + "/");
        } else if kind.is_file() {
            names.push(name);
        }
    }
    Ok(names)
}
