//! Dispatch within this process: batches go to workers over a channel.

use tokio::sync::mpsc;

use crate::domain::order::Order;
use crate::port::{DispatchError, Dispatcher};

/// Hands orders to the workers of this process.
#[derive(Debug, Clone)]
pub struct Local {
    orders: mpsc::Sender<Order>,
}

impl Local {
    /// A dispatcher, and the end from which workers take orders.
    pub fn new() -> (Self, mpsc::Receiver<Order>) {
        // One waits while one is being let through the gate: batches are claimed when their turn comes, not before.
        let (orders, taken) = mpsc::channel(1);
        (Self { orders }, taken)
    }
}

impl Dispatcher for Local {
    async fn dispatch(&self, order: Order) -> Result<(), DispatchError> {
        self.orders.send(order).await.map_err(|mpsc::error::SendError(order)| DispatchError {
            run: order.run,
            batch: order.batch,
            why: "the workers of this process have ended".to_owned(),
        })
    }
}
