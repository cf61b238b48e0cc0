//! The inventory of a YAML file.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::domain::diagnostic::{Faults, render};
use crate::domain::hosts_file::{self, LOCAL, MAX_HOSTS_FILE_BYTES};
use crate::domain::instance::Instance;
use crate::domain::yaml;
use crate::port::InventoryError;

/// An inventory file. It is read anew for every question, as its author may change it at any time.
#[derive(Debug, Clone)]
pub struct HostsFile {
    path: PathBuf,
    shown: String,
}

impl HostsFile {
    /// The inventory file at `path`, which errors call `shown`. Nothing is read yet.
    pub fn new(path: impl Into<PathBuf>, shown: impl Into<String>) -> Self {
        Self { path: path.into(), shown: shown.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What errors call it.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Every instance of the file that lies in one of `regions`, whatever its state; with no regions, all.
    ///
    /// An instance of which the file names no region lies in every one.
    ///
    /// # Errors
    /// [`InventoryError::Unavailable`] where the file cannot be read, [`InventoryError::Invalid`] with everything
    /// that is wrong with it.
    pub async fn instances(&self, regions: &[String]) -> Result<Vec<Instance>, InventoryError> {
        let this = self.clone();
        let read = tokio::task::spawn_blocking(move || this.read());
        let mut instances = read.await.map_err(|error| self.unavailable(error.to_string()))??;
        if !regions.is_empty() {
            instances.retain(|instance| instance.region == LOCAL || regions.contains(&instance.region));
        }
        Ok(instances)
    }

    fn read(&self) -> Result<Vec<Instance>, InventoryError> {
        let bytes = read_bounded(&self.path).map_err(|error| self.unavailable(error.to_string()))?;
        let faults = Faults::of(&self.shown);
        let text = yaml::text(&bytes, MAX_HOSTS_FILE_BYTES, &faults);
        let instances = faults.settle("", text).and_then(|text| hosts_file::parse(text, &self.shown));
        instances.map_err(|found| InventoryError::Invalid(render(found)))
    }

    fn unavailable(&self, why: String) -> InventoryError {
        InventoryError::Unavailable { at: self.shown.clone(), why }
    }
}

/// Reads a regular file, one byte beyond the limit at most: a device or a pipe could hold us for ever.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_HOSTS_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::Targets;

    const FILE: &str = "instances:\n\
        - { id: web-2, address: 10.0.0.2, region: eu-1, tags: { Environment: Dev } }\n\
        - { id: web-1, address: 10.0.0.1, tags: { Environment: Dev } }\n\
        - { id: web-3, address: 10.0.0.3, region: us-1, tags: { Environment: Dev } }\n\
        - { id: web-4, address: 10.0.0.4, state: stopped, tags: { Environment: Dev } }\n";

    fn written(text: &[u8]) -> (tempfile::TempDir, HostsFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts.yaml");
        std::fs::write(&path, text).unwrap();
        (folder, HostsFile::new(path, "hosts.yaml"))
    }

    fn targets(regions: &[&str]) -> Targets {
        let selector = crate::domain::selector::Selector {
            tags: vec!["Environment=Dev".parse().unwrap()],
            ..crate::domain::selector::Selector::default()
        };
        Targets { selector, regions: regions.iter().map(|region| (*region).to_owned()).collect(), address: None }
    }

    async fn ids(file: &HostsFile, regions: &[&str]) -> Vec<String> {
        let targets = targets(regions);
        let chosen = targets.selector.choose(file.instances(&targets.regions).await.unwrap());
        chosen.into_iter().map(|instance| instance.id.to_string()).collect()
    }

    #[tokio::test]
    async fn selection_is_sorted_running_and_in_the_regions() {
        let (_folder, file) = written(FILE.as_bytes());
        assert_eq!(ids(&file, &[]).await, ["web-1", "web-2", "web-3"]);
        assert_eq!(ids(&file, &["eu-1"]).await, ["web-1", "web-2"]);
    }

    #[tokio::test]
    async fn file_is_read_anew_for_every_question() {
        let (folder, file) = written(b"instances: []");
        assert!(ids(&file, &[]).await.is_empty());
        std::fs::write(folder.path().join("hosts.yaml"), FILE).unwrap();
        assert_eq!(ids(&file, &[]).await.len(), 3);
    }

    #[tokio::test]
    async fn file_that_cannot_be_used_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let error = |path: PathBuf| async move {
            HostsFile::new(path, "hosts.yaml").instances(&[]).await.unwrap_err().to_string()
        };
        assert_eq!(
            error(folder.path().join("none")).await,
            "cannot read the inventory `hosts.yaml`: No such file or directory (os error 2)"
        );
        assert_eq!(
            error(folder.path().to_owned()).await,
            "cannot read the inventory `hosts.yaml`: it is not a regular file"
        );
        let (_folder, file) = written(b"instances: \xff");
        assert_eq!(
            file.instances(&[]).await.unwrap_err().to_string(),
            "error: the file is not UTF-8 text: found the byte 0xff\n  --> hosts.yaml:1:12\nhint: save the file as UTF-8\n"
        );
    }
}
