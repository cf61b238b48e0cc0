//! `--group`: identical outputs once, under the hosts that gave them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::domain::layout::Stream;
use crate::domain::run::Target;
use crate::domain::task::{TaskRecord, TaskState};
use crate::engine::event::Head;
use crate::engine::history::kept;
use crate::engine::pieces::{Piece, Pieces};
use crate::port::{Store, StoreError};

use super::copy::{copy, is_silent, warn_if_cut};
use super::lines::{Lines, clean};
use super::print::{Finished, Scene};
use super::words::{Style, ending, fold, number};

/// Hosts whose outputs are the same. The output itself is in the store; the first host's is shown.
#[derive(Debug)]
struct Same {
    target: Arc<Target>,
    record: TaskRecord,
    hosts: Vec<String>,
}

/// The groups so far: a hash and the names of hosts each, however much they wrote.
#[derive(Debug, Default)]
pub(super) struct Groups {
    outputs: BTreeMap<[u8; 32], Same>,
    troubles: BTreeMap<(TaskState, String, String), Vec<String>>,
}

impl Groups {
    /// Takes in a finished task.
    pub(super) async fn add<S: Store>(&mut self, scene: &mut Scene<S>, task: Finished) {
        let Finished { target, record, stdout, stderr } = task;
        let host = target.instance.to_string();
        if record.state != TaskState::Succeeded {
            let reason = record.reason.as_deref().map(clean).unwrap_or_default();
            self.troubles.entry((record.state, ending(&record), reason)).or_default().push(host.clone());
        }
        let mut hash = Sha256::new();
        let mut bytes = 0;
        for (stream, head) in [(Stream::Out, stdout), (Stream::Err, stderr)] {
            match digest(scene, &target, &record, stream, head, &mut hash).await {
                Ok(length) => bytes += length,
                Err(error) => return scene.complain(error),
            }
            // The length ends the stream: else a byte could move from one stream to the other.
            hash.update(bytes.to_be_bytes());
        }
        if bytes > 0 {
            let same = Same { target, record, hosts: Vec::new() };
            self.outputs.entry(hash.finalize().into()).or_insert(same).hosts.push(host);
        }
    }

    /// Writes every group, the largest first; then what went wrong.
    pub(super) async fn show<S: Store>(&mut self, scene: &mut Scene<S>) {
        let mut groups: Vec<Same> = std::mem::take(&mut self.outputs).into_values().collect();
        for group in &mut groups {
            group.hosts.sort();
        }
        groups.sort_by(|a, b| (Reverse(a.hosts.len()), &a.hosts).cmp(&(Reverse(b.hosts.len()), &b.hosts)));
        for group in &groups {
            for stream in [Stream::Out, Stream::Err] {
                if let Err(error) = group.show(scene, stream).await {
                    scene.complain(error);
                }
            }
        }
        for ((state, ending, reason), hosts) in &std::mem::take(&mut self.troubles) {
            let word = Style::of_task(*state).paint(state.as_str(), scene.console.err_color());
            let line = format!("{}  {word}  {ending}  {reason}", title(hosts));
            scene.console.err(format!("{}\n", line.trim_end()));
        }
    }
}

impl Same {
    /// Writes one stream of the group below the names of its hosts.
    async fn show<S: Store>(&self, scene: &mut Scene<S>, stream: Stream) -> Result<(), StoreError> {
        let Some(run) = &scene.run else { return Ok(()) };
        if is_silent(&self.record, stream) || !scene.console.is_open() {
            return Ok(());
        }
        let console = &mut scene.console;
        let header = format!("--- {} ---\n", title(&self.hosts));
        let guarded = match stream {
            Stream::Out => {
                console.out(header);
                console.out_is_terminal()
            }
            Stream::Err => {
                console.err(header);
                console.err_is_terminal()
            }
        };
        let expected = kept(&self.record, stream, run.job.max_output);
        let pieces = Pieces::new(&scene.runs, &run.run, &self.target.instance, self.record.attempt, stream);
        copy(pieces, expected, Lines::new("", guarded), console, stream).await?;
        warn_if_cut(console, &fold(&self.hosts), &self.record, stream, run.job.max_output);
        Ok(())
    }
}

/// `web-[1-8] (8 hosts)`.
fn title(hosts: &[String]) -> String {
    format!("{} ({})", fold(hosts), number(hosts.len(), "host"))
}

/// Adds a whole stream to `hash`, read from the store where the event did not bring all of it; returns its length.
async fn digest<S: Store>(
    scene: &Scene<S>,
    target: &Target,
    record: &TaskRecord,
    stream: Stream,
    head: Option<Head>,
    hash: &mut Sha256,
) -> Result<u64, StoreError> {
    if let Some(head) = head.filter(|head| head.complete) {
        hash.update(&head.bytes);
        return Ok(head.bytes.len() as u64);
    }
    let Some(run) = scene.run.as_ref().filter(|_| !is_silent(record, stream)) else { return Ok(0) };
    let mut pieces = Pieces::new(&scene.runs, &run.run, &target.instance, record.attempt, stream);
    while let Some(piece) = pieces.next().await? {
        match piece {
            Piece::Bytes { bytes, .. } => hash.update(&bytes),
            // What is not all there is like nothing else.
            Piece::Missing { .. } => hash.update(target.instance.as_str()),
        }
    }
    Ok(pieces.end())
}
