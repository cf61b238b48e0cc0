//! The records of runs in a store, typed: JSON in, JSON out, and a damaged object named by its key.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::id::RunId;
use crate::domain::layout::{Key, RunKeys, active};
use crate::domain::run::{Active, BatchTargets, Claim, Control, Outcomes, Plan, RunRecord, SCHEMA, Trouble, Verdict};
use crate::domain::script::MAX_SCRIPT_BYTES;
use crate::port::{Store, StoreError, Version, Written};

/// The largest record that is read or written. The largest there can be is a `run.json` whose job holds its script as
/// text; JSON spends up to two bytes on a byte of what people write in scripts, and this leaves room for twice that.
pub const MAX_RECORD_BYTES: usize = 4 * MAX_SCRIPT_BYTES;

/// The most tasks that a run may have: so far beyond any fleet that only a damaged plan has more.
pub const MAX_TASKS: u32 = 1_000_000;

/// The runs in a store.
#[derive(Debug, Clone)]
pub struct Runs<S> {
    store: S,
}

impl<S: Store> Runs<S> {
    /// The runs in `store`.
    pub const fn new(store: S) -> Self {
        Self { store }
    }

    /// The store itself: for blobs, pieces of output and lists of keys.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// Reads a record and the version that a swap of it must name; `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where the object is too large or is not such a record.
    pub async fn read<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<(T, Version)>, StoreError> {
        let Some(object) = self.store.get(key).await? else { return Ok(None) };
        if object.bytes.len() > MAX_RECORD_BYTES {
            let why = format!("it has {} bytes; a record has at most {MAX_RECORD_BYTES}", object.bytes.len());
            return Err(damaged(key, why));
        }
        let record = serde_json::from_slice(&object.bytes).map_err(|error| damaged(key, error.to_string()))?;
        Ok(Some((record, object.version)))
    }

    /// Writes a record that does not exist yet.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], with nothing written, where the record is too large to be read again.
    pub async fn create<T: Serialize + Sync>(&self, key: &Key, record: &T) -> Result<Written, StoreError> {
        let bytes = encode(key, record)?;
        self.store.create(key, bytes).await
    }

    /// Replaces a record that still has the version `expected`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], with nothing written, where the record is too large to be read again.
    pub async fn swap<T: Serialize + Sync>(
        &self,
        key: &Key,
        expected: &Version,
        record: &T,
    ) -> Result<Written, StoreError> {
        let bytes = encode(key, record)?;
        self.store.swap(key, expected, bytes).await
    }

    /// The claim of `run`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] also where it is the claim of another run or of another format.
    pub async fn run(&self, run: &RunId) -> Result<Option<RunRecord>, StoreError> {
        let key = RunKeys::new(run).run();
        let Some((record, _)) = self.read::<RunRecord>(&key).await? else { return Ok(None) };
        if record.schema != SCHEMA {
            let found = quote(&record.schema);
            return Err(damaged(&key, format!("its schema is {found}; this program reads `{SCHEMA}`")));
        }
        if record.run != *run || record.job.name.as_str() != run.job_name() {
            return Err(damaged(&key, format!("it is the claim of `{}`, a run of `{}`", record.run, record.job.name)));
        }
        Ok(Some(record))
    }

    /// The plan of `run`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] also where its sizes cannot be true.
    pub async fn plan(&self, run: &RunId) -> Result<Option<Plan>, StoreError> {
        let key = RunKeys::new(run).plan();
        let Some((plan, _)) = self.read::<Plan>(&key).await? else { return Ok(None) };
        let tasks: u64 = plan.batches.iter().copied().map(u64::from).sum();
        if tasks > u64::from(MAX_TASKS) || plan.batches.len() > MAX_TASKS as usize {
            let batches = plan.batches.len();
            return Err(damaged(&key, format!("{tasks} tasks in {batches} batches; a run has at most {MAX_TASKS}")));
        }
        Ok(Some(plan))
    }

    /// The tasks of batch `n` of `run`.
    ///
    /// # Errors
    /// As [`Runs::read`].
    pub async fn targets(&self, run: &RunId, n: u32) -> Result<Option<BatchTargets>, StoreError> {
        Ok(self.read(&RunKeys::new(run).targets(n)).await?.map(|(targets, _)| targets))
    }

    /// Who works on batch `n` of `run`.
    ///
    /// # Errors
    /// As [`Runs::read`].
    pub async fn claim(&self, run: &RunId, n: u32) -> Result<Option<(Claim, Version)>, StoreError> {
        self.read(&RunKeys::new(run).claim(n)).await
    }

    /// What has become of the tasks of batch `n` of `run`.
    ///
    /// # Errors
    /// As [`Runs::read`].
    pub async fn outcomes(&self, run: &RunId, n: u32) -> Result<Option<(Outcomes, Version)>, StoreError> {
        self.read(&RunKeys::new(run).outcomes(n)).await
    }

    /// What someone asked of `run`.
    ///
    /// # Errors
    /// As [`Runs::read`].
    pub async fn control(&self, run: &RunId) -> Result<Option<(Control, Version)>, StoreError> {
        self.read(&RunKeys::new(run).control()).await
    }

    /// The verdict of `run`; `None` while it is not finished.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] also where its state is not final or its counts cannot be true.
    pub async fn verdict(&self, run: &RunId) -> Result<Option<Verdict>, StoreError> {
        let key = RunKeys::new(run).result();
        let Some((verdict, _)) = self.read::<Verdict>(&key).await? else { return Ok(None) };
        if !verdict.state.is_final() {
            return Err(damaged(&key, format!("a verdict cannot be `{}`", verdict.state.as_str())));
        }
        let tasks: u64 = verdict.counts.iter().map(|(_, count)| u64::from(count)).sum();
        if tasks > u64::from(MAX_TASKS) {
            return Err(damaged(&key, format!("it counts {tasks} tasks; a run has at most {MAX_TASKS}")));
        }
        Ok(Some(verdict))
    }

    /// What has last kept worker functions from the batches of `run`.
    ///
    /// # Errors
    /// As [`Runs::read`].
    pub async fn trouble(&self, run: &RunId) -> Result<Option<(Trouble, Version)>, StoreError> {
        self.read(&RunKeys::new(run).trouble()).await
    }

    /// The mark that `run` is not finished.
    ///
    /// # Errors
    /// As [`Runs::read`].
    pub async fn active(&self, run: &RunId) -> Result<Option<(Active, Version)>, StoreError> {
        self.read(&active(run)).await
    }
}

/// The record as one line of JSON.
fn encode<T: Serialize>(key: &Key, record: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = serde_json::to_vec(record).map_err(|error| damaged(key, error.to_string()))?;
    bytes.push(b'\n');
    if bytes.len() > MAX_RECORD_BYTES {
        return Err(damaged(
            key,
            format!("it would have {} bytes; a record has at most {MAX_RECORD_BYTES}", bytes.len()),
        ));
    }
    Ok(bytes)
}

/// The object at `key` does not hold what it should.
pub(crate) fn damaged(key: &Key, why: impl Into<String>) -> StoreError {
    StoreError::Damaged { at: key.to_string(), why: why.into() }
}

/// Text from a store, fit for a message: short, and without control characters.
fn quote(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).take(40).collect();
    format!("`{text}`")
}
