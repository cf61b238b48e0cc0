//! Looks that are under way, for whoever lives from one tick to the next.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, SelectAll};

use super::tick::{Look, Ticker};
use crate::domain::id::RunId;
use crate::port::{Inventory, Scripts, Store};

/// Looks at unfinished runs that nobody waits for: whoever ticks takes what they find as it comes.
#[derive(Default)]
pub struct Looks {
    under_way: SelectAll<BoxStream<'static, Look>>,
    runs: HashSet<RunId>,
}

impl Looks {
    /// Begins to look at those of `runs` that are not being looked at: one whose inventory does not answer is not asked
    /// for once more at every tick.
    pub fn begin<S, I, C>(&mut self, ticker: Ticker<S, I, C>, mut runs: Vec<RunId>)
    where
        S: Store,
        I: Inventory + 'static,
        C: Scripts + 'static,
    {
        runs.retain(|run| self.runs.insert(run.clone()));
        if !runs.is_empty() {
            self.under_way.push(Arc::new(ticker).look(runs).boxed());
        }
    }

    /// The next look that comes to its end; none where none is under way.
    pub async fn next(&mut self) -> Option<Look> {
        let look = self.under_way.next().await?;
        self.runs.remove(&look.0);
        Some(look)
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}
