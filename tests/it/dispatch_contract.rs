//! What every dispatcher promises, asked of each of them in the same words: an order arrives whole, or it is said.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use sshjob::adapter::local::Local;
use sshjob::domain::id::RunId;
use sshjob::domain::order::{Action, Order};
use sshjob::port::Dispatcher;

/// Whoever takes orders in at the other end: those that have come, once `expected` of them have.
pub trait Workers {
    async fn taken(&mut self, expected: usize) -> Vec<Order>;
}

impl Workers for tokio::sync::mpsc::Receiver<Order> {
    async fn taken(&mut self, expected: usize) -> Vec<Order> {
        let mut orders = Vec::new();
        while orders.len() < expected {
            orders.push(self.recv().await.unwrap());
        }
        orders
    }
}

fn order(action: Action, batch: u32) -> Order {
    let run = RunId::of_firing(&"hello".parse().unwrap(), "2026-11-23T09:30:00Z".parse().unwrap());
    Order::new(action, &run, batch, "2026-11-23T09:31:00Z".parse().unwrap())
}

/// Of any number of orders that are handed over at once, each arrives once, as it was.
async fn orders_arrive_whole(dispatcher: impl Dispatcher, mut workers: impl Workers) {
    let actions = [Action::Run, Action::Collect, Action::Cancel];
    let orders: Vec<Order> =
        actions.into_iter().flat_map(|action| (0..20).map(move |batch| order(action, batch))).collect();
    let handing_over = join_all(orders.iter().map(|order| dispatcher.dispatch(order.clone())));
    let (handed_over, taken) = tokio::join!(handing_over, workers.taken(orders.len()));
    assert!(handed_over.iter().all(Result::is_ok), "{handed_over:?}");
    let written = |orders: &[Order]| -> BTreeSet<String> {
        orders.iter().map(|order| serde_json::to_string(order).unwrap()).collect()
    };
    assert_eq!((taken.len(), written(&taken)), (orders.len(), written(&orders)));
}

/// An order that nobody takes is an error, which names it.
async fn order_that_nobody_takes_is_an_error(dispatcher: impl Dispatcher) {
    let error = dispatcher.dispatch(order(Action::Run, 7)).await.unwrap_err();
    assert_eq!((error.run.as_str(), error.batch), ("hello-20261123T093000Z", 7));
    assert!(error.to_string().starts_with("cannot hand batch 7 of `hello-20261123T093000Z` to a worker: "), "{error}");
}

#[tokio::test]
async fn local_orders_arrive_whole() {
    let (dispatcher, workers) = Local::new();
    orders_arrive_whole(dispatcher, workers).await;
}

#[tokio::test]
async fn local_order_that_nobody_takes_is_an_error() {
    let (dispatcher, workers) = Local::new();
    drop(workers);
    order_that_nobody_takes_is_an_error(dispatcher).await;
}

#[cfg(feature = "aws")]
mod lambda {
    use crate::aws::dispatcher;
    use crate::support::hook::{Answer, Hook};

    use super::*;

    impl Workers for Hook {
        async fn taken(&mut self, expected: usize) -> Vec<Order> {
            // What has been accepted has been written down.
            tokio::time::timeout(std::time::Duration::from_mins(1), async {
                while self.received().len() < expected {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            })
            .await
            .unwrap();
            self.received().iter().map(|request| serde_json::from_str(&request.body).unwrap()).collect()
        }
    }

    #[tokio::test]
    async fn lambda_orders_arrive_whole() {
        let hook = Hook::start(Answer::Status("202 Accepted", String::new()));
        orders_arrive_whole(dispatcher(&hook).await, hook).await;
    }

    #[tokio::test]
    async fn lambda_order_that_nobody_takes_is_an_error() {
        let gone = "404 Not Found\nx-amzn-errortype: ResourceNotFoundException";
        let hook = Hook::start(Answer::Status(gone, r#"{"Message":"Function not found"}"#.to_owned()));
        order_that_nobody_takes_is_an_error(dispatcher(&hook).await).await;
    }
}
