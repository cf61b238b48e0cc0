//! A run as machines read it: one document at the end, or one object per event.

use std::sync::Arc;

use serde::Serialize;

use crate::domain::document::{TaskDocument, text};
use crate::domain::layout::Stream;
use crate::domain::run::{RunRecord, Target};
use crate::domain::task::TaskRecord;
use crate::engine::event::Head;
use crate::engine::records::Runs;
use crate::port::{Store, StoreError};

use super::console::Console;
use super::copy::head;
use super::print::{Finished, Scene};

/// Writes one value as one line.
pub fn line(console: &mut Console, value: &impl Serialize) {
    if let Ok(mut line) = serde_json::to_vec(value) {
        line.push(b'\n');
        console.out(line);
    }
}

/// A document that holds a list, written item by item: the list first, what is known only at the end last.
#[derive(Debug)]
pub struct Listing {
    name: &'static str,
    begun: bool,
}

impl Listing {
    /// A document whose list is called `name`.
    pub const fn of(name: &'static str) -> Self {
        Self { name, begun: false }
    }

    /// Writes an item, as one line.
    pub fn item(&mut self, console: &mut Console, item: &impl Serialize) {
        let mut bytes = if self.begun { b",\n".to_vec() } else { format!("{{\"{}\":[\n", self.name).into_bytes() };
        if serde_json::to_writer(&mut bytes, item).is_ok() {
            console.out(bytes);
            self.begun = true;
        }
    }

    /// Writes the rest of the document, an object with at least one key.
    pub fn finish(self, console: &mut Console, rest: &impl Serialize) {
        let Ok(rest) = serde_json::to_vec(rest) else { return };
        let head = if self.begun { "\n],\n".to_owned() } else { format!("{{\"{}\":[],\n", self.name) };
        let mut bytes = head.into_bytes();
        bytes.extend(rest.into_iter().skip(1));
        bytes.push(b'\n');
        console.out(bytes);
    }
}

/// The document of a task; the beginning of its output as the event brought it, else read from the store.
///
/// # Errors
/// Where the store cannot be read.
pub async fn document<S: Store>(
    runs: &Runs<S>,
    run: &RunRecord,
    target: &Target,
    record: &TaskRecord,
    brought: (Option<Head>, Option<Head>),
) -> Result<TaskDocument, StoreError> {
    let stdout = head(runs, &run.run, target, record, Stream::Out, brought.0).await?;
    let stderr = head(runs, &run.run, target, record, Stream::Err, brought.1).await?;
    // The record of a task that is lost counts nothing; what came is there all the same.
    let [stdout_bytes, stderr_bytes] = [&stdout, &stderr].map(|head| head.bytes.len() as u64);
    let text = |head: Head| text(&head.bytes, head.complete);
    let mut document = TaskDocument::new(&run.run, target, record, text(stdout), text(stderr));
    document.stdout_bytes = document.stdout_bytes.max(stdout_bytes);
    document.stderr_bytes = document.stderr_bytes.max(stderr_bytes);
    Ok(document)
}

/// The document of a task that has just finished; without output where the store cannot be read.
pub(super) async fn finished<S: Store>(scene: &mut Scene<S>, task: Finished) -> Option<TaskDocument> {
    let run = Arc::clone(scene.run.as_ref()?);
    let Finished { target, record, stdout, stderr } = task;
    match document(&scene.runs, &run, &target, &record, (stdout, stderr)).await {
        Ok(document) => Some(document),
        Err(error) => {
            scene.complain(error);
            Some(TaskDocument::new(&run.run, &target, &record, String::new(), String::new()))
        }
    }
}
