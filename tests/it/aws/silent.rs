//! Servers that never answer: every client gives up in its time, and says so.

use std::time::Duration;

use sshjob::adapter::aws::ec2::Ec2Inventory;
use sshjob::adapter::aws::keys::S3Keys;
use sshjob::adapter::aws::parameters::SsmParameters;
use sshjob::adapter::aws::s3::S3Store;
use sshjob::adapter::aws::sns::SnsTopics;
use sshjob::domain::layout::Key;
use sshjob::port::{
    Dispatcher as _, Inventory as _, KeyReadError, Keys as _, Parameters as _, Store as _, Topics as _,
};
use tokio::time::Instant;

use super::{config, dispatcher};
use crate::support::hook::{Answer, Hook};

/// How long one operation may take with all its tries, and some.
const OPERATION: Duration = Duration::from_secs(31);

#[tokio::test(start_paused = true)]
async fn server_that_never_answers_is_given_up_by_every_client_in_its_time() {
    let hook = Hook::start(Answer::Silence);
    let config = config(&hook.url("")).await;
    let store = S3Store::parse("s3://store", aws_sdk_s3::Client::new(&config)).unwrap();
    let key = Key::parse("a").unwrap();
    let begun = Instant::now();
    assert!(store.get(&key).await.is_err());
    assert!(begun.elapsed() < OPERATION, "get: {:?}", begun.elapsed());
    let begun = Instant::now();
    assert!(store.list("", None, 1).await.is_err());
    assert!(begun.elapsed() < OPERATION, "list: {:?}", begun.elapsed());
    // Whether it was written is asked once more.
    let begun = Instant::now();
    assert!(store.create(&key, b"a".to_vec()).await.is_err());
    assert!(begun.elapsed() < 2 * OPERATION, "create: {:?}", begun.elapsed());

    let begun = Instant::now();
    let unread = S3Keys::new(aws_sdk_s3::Client::new(&config)).read_key("keys", "dev.pem").await.unwrap_err();
    assert!(matches!(unread, KeyReadError::Unavailable(_)) && begun.elapsed() < OPERATION, "{unread}");
    let begun = Instant::now();
    let unread = SsmParameters::new(aws_sdk_ssm::Client::new(&config)).read_parameter("/a").await.unwrap_err();
    assert!(matches!(unread, KeyReadError::Unavailable(_)) && begun.elapsed() < OPERATION, "{unread}");

    let begun = Instant::now();
    let inventory = Ec2Inventory::new(aws_sdk_ec2::Client::new(&config));
    assert!(inventory.select(&super::ec2::job(&["Role=web"])).await.is_err());
    assert!(begun.elapsed() < OPERATION, "select: {:?}", begun.elapsed());
    let begun = Instant::now();
    assert!(dispatcher(&hook).await.dispatch(super::lambda::order()).await.is_err());
    assert!(begun.elapsed() < OPERATION, "dispatch: {:?}", begun.elapsed());
    let begun = Instant::now();
    let topic = "arn:aws:sns:us-east-1:123456789012:ops".to_owned().try_into().unwrap();
    assert!(SnsTopics::new(aws_sdk_sns::Client::new(&config)).publish(&topic, "so", "so").await.is_err());
    assert!(begun.elapsed() < OPERATION, "publish: {:?}", begun.elapsed());
}
