//! Where everything is in a store: the same keys on S3 and on disk.
//!
//! ```text
//! sshjob.yaml  jobs/<file>  scripts/<file>             what `push` uploads
//! blobs/<sha256>                                       the frozen script of a run
//! active/<job>/<run>                                   exists while the run is not finished
//! runs/<job>/<run>/run.json                            the claim
//! runs/<job>/<run>/selected.<k>.json                   the targets that its planners agree on, part by part
//! runs/<job>/<run>/plan.json                           waves, batches, counts
//! runs/<job>/<run>/batches/<n>.targets.json            the tasks of one batch
//! runs/<job>/<run>/batches/<n>.claim                   who works on it
//! runs/<job>/<run>/batches/<n>.json                    outcomes
//! runs/<job>/<run>/control.json                        pause, cancel
//! runs/<job>/<run>/output/<instance>/<attempt>.<out|err>.<offset>
//! runs/<job>/<run>/result.json                         the verdict
//! runs/<job>/<run>/told.json                           that people were told of its end
//! runs/<job>/<run>/trouble.json                        what has last kept worker functions from their work
//! trust/<account>/<region>/<instance>.json             pinned host keys
//! state/requests/<sha256>                              which run a request became
//! state/cursor.json                                    up to when firings are decided
//! state/jobs/<job>.json                                what became of a job's firings
//! outbox/<run>.json                                    what people are still to be told of a run
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::{InstanceId, JobName, RunId};

/// The name of an object in a store: segments of safe characters, joined by `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    /// Reads a key that a store listed; `None` where a segment could leave its folder.
    #[inline]
    pub fn parse(text: &str) -> Option<Self> {
        let safe = |segment: &str| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment.len() <= 255
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:%@+=,".contains(&b))
        };
        (text.len() <= 1024 && text.split('/').all(safe)).then(|| Self(text.to_owned()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Which output stream of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Stream {
    /// `out` or `err`, as in the names of output pieces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Err => "err",
        }
    }
}

/// The frozen script with this SHA-256.
pub fn blob(sha256: &str) -> Key {
    Key(format!("blobs/{sha256}"))
}

/// The mark that a run is not finished.
pub fn active(run: &RunId) -> Key {
    Key(format!("active/{}/{run}", run.job_name()))
}

/// Which run a request with this hash became.
pub fn request(sha256: &str) -> Key {
    Key(format!("state/requests/{sha256}"))
}

/// Up to when firings are decided.
pub fn cursor() -> Key {
    Key("state/cursor.json".to_owned())
}

/// What became of the firings of `job`.
pub fn job_state(job: &JobName) -> Key {
    Key(format!("state/jobs/{job}.json"))
}

/// The project file, as `push` uploads it.
pub fn project() -> Key {
    Key("sshjob.yaml".to_owned())
}

/// What the keys of the job files that `push` uploads begin with.
pub const JOBS: &str = "jobs/";

/// What the keys of the scripts that `push` uploads begin with.
pub const SCRIPTS: &str = "scripts/";

/// What the marks of all unfinished runs begin with.
pub const ACTIVE: &str = "active/";

/// The run that the mark `key` is of.
pub fn run_of_mark(key: &Key) -> Option<RunId> {
    let (job, run) = key.as_str().strip_prefix(ACTIVE)?.split_once('/')?;
    run.parse().ok().filter(|run: &RunId| run.job_name() == job)
}

/// What the keys of everything that people are still to be told start with.
pub const OUTBOX: &str = "outbox/";

/// What people are still to be told of a run.
pub fn outbox(run: &RunId) -> Key {
    Key(format!("{OUTBOX}{run}.json"))
}

/// The keys of one run.
#[derive(Debug, Clone)]
pub struct RunKeys {
    prefix: String,
}

impl RunKeys {
    /// The keys of `run`.
    pub fn new(run: &RunId) -> Self {
        Self { prefix: format!("runs/{}/{run}", run.job_name()) }
    }

    /// The prefix under which everything of the run lies, with its final `/`.
    pub fn prefix(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// The claim.
    pub fn run(&self) -> Key {
        Key(format!("{}/run.json", self.prefix))
    }

    /// The plan.
    pub fn plan(&self) -> Key {
        Key(format!("{}/plan.json", self.prefix))
    }

    /// Part `k` of the targets that the run is planned with.
    pub fn selected(&self, k: u32) -> Key {
        Key(format!("{}/selected.{k}.json", self.prefix))
    }

    /// The tasks of batch `n`.
    pub fn targets(&self, n: u32) -> Key {
        Key(format!("{}/batches/{n}.targets.json", self.prefix))
    }

    /// Who works on batch `n`.
    pub fn claim(&self, n: u32) -> Key {
        Key(format!("{}/batches/{n}.claim", self.prefix))
    }

    /// The outcomes of batch `n`.
    pub fn outcomes(&self, n: u32) -> Key {
        Key(format!("{}/batches/{n}.json", self.prefix))
    }

    /// Pause and cancel.
    pub fn control(&self) -> Key {
        Key(format!("{}/control.json", self.prefix))
    }

    /// The verdict.
    pub fn result(&self) -> Key {
        Key(format!("{}/result.json", self.prefix))
    }

    /// That people were told of the run's end.
    pub fn told(&self) -> Key {
        Key(format!("{}/told.json", self.prefix))
    }

    /// What has last kept worker functions from their work.
    pub fn trouble(&self) -> Key {
        Key(format!("{}/trouble.json", self.prefix))
    }

    /// The piece of output that starts at byte `offset` of `stream`; offsets are padded so that names sort by them.
    pub fn output(&self, instance: &InstanceId, attempt: u32, stream: Stream, offset: u64) -> Key {
        Key(format!("{}{offset:020}", self.output_prefix(instance, attempt, stream)))
    }

    /// What the names of all pieces of one stream start with.
    pub fn output_prefix(&self, instance: &InstanceId, attempt: u32, stream: Stream) -> String {
        format!("{}/output/{instance}/{attempt}.{}.", self.prefix, stream.as_str())
    }
}

/// The pinned host key of an instance. Each part may only hold what [`InstanceId`] may; other characters become `_`.
pub fn trust(account: &str, region: &str, instance: &InstanceId) -> Key {
    let safe = |part: &str| {
        let text: String =
            part.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' }).collect();
        if text.is_empty() { "_".to_owned() } else { text }
    };
    Key(format!("trust/{}/{}/{instance}.json", safe(account), safe(region)))
}
