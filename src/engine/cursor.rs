//! Where the cursor is kept: how a tick reads and moves it while others do.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::records::Runs;
use crate::domain::cursor::{Cursor, Looked};
use crate::domain::id::JobName;
use crate::domain::layout;
use crate::port::{Store, StoreError, Version, Written};

/// The cursor as a tick has found it, as far as its clock believes it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) cursor: Cursor,
    version: Option<Version>,
}

/// Reads the cursor for the tick of `until`, which a clock makes that says `now`; at first it stands just before that.
///
/// # Errors
/// Where the store does not answer, or the cursor is damaged.
pub(super) async fn read<S: Store>(runs: &Runs<S>, now: Timestamp, until: Timestamp) -> Result<Held, StoreError> {
    let Some((cursor, version)) = runs.read::<Cursor>(&layout::cursor()).await? else {
        return Ok(Held { cursor: Cursor::at(just_before(until)), version: None });
    };
    let moved = cursor.for_clock(now, just_before(until));
    if let Some(moved) = &moved {
        tracing::warn!(cursor = %cursor.ticked, to = %moved.ticked, %now, "the clock that moved the cursor was wrong");
    }
    Ok(Held { cursor: moved.unwrap_or(cursor), version: Some(version) })
}

/// Moves the cursor over what was decided of the jobs that were looked at until `until`.
///
/// # Errors
/// As [`read`].
pub(super) async fn advance<S: Store>(
    runs: &Runs<S>,
    mut held: Held,
    now: Timestamp,
    until: Timestamp,
    looked: &[Looked<'_>],
) -> Result<(), StoreError> {
    loop {
        let next = held.cursor.moved(until, looked);
        if held.version.is_some() && next == held.cursor || write(runs, held.version.as_ref(), &next).await? {
            return Ok(());
        }
        // Another scheduler was quicker: what it found out counts too.
        held = read(runs, now, until).await?;
    }
}

/// Forgets these jobs, whose files were removed: should one come back it begins then, and nothing of the time in between
/// is made up for.
///
/// # Errors
/// Where the store does not answer, or the cursor is damaged.
pub async fn forget<S: Store>(runs: &Runs<S>, gone: &BTreeSet<JobName>) -> Result<(), StoreError> {
    if gone.is_empty() {
        return Ok(());
    }
    while let Some((cursor, version)) = runs.read::<Cursor>(&layout::cursor()).await? {
        let next = cursor.clone().without(gone);
        if next == cursor || write(runs, Some(&version), &next).await? {
            break;
        }
    }
    Ok(())
}

async fn write<S: Store>(runs: &Runs<S>, version: Option<&Version>, cursor: &Cursor) -> Result<bool, StoreError> {
    let written = match version {
        Some(version) => runs.swap(&layout::cursor(), version, cursor).await?,
        None => runs.create(&layout::cursor(), cursor).await?,
    };
    Ok(matches!(written, Written::Done(_)))
}

/// The last instant before `at`.
pub(super) fn just_before(at: Timestamp) -> Timestamp {
    at.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(at)
}
