//! The store in S3: that a write is done once, whatever becomes of requests and answers. `store_contract` asks the rest.

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ServerSideEncryption, ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration, ServerSideEncryptionRule,
};
use sshjob::adapter::aws::keys::S3Keys;
use sshjob::adapter::aws::s3::S3Store;
use sshjob::domain::layout::Key;
use sshjob::port::{KeyReadError, Keys as _, Store as _, Written};

use super::config;
use crate::support::detour::{Detour, Fate};
use crate::support::emulator::Emulator;
use crate::support::hook::{Answer, Hook};

/// A store in a bucket of a MiniStack of its own; none where that is not installed.
pub async fn bucket() -> Option<(Emulator, S3Store)> {
    let emulator = Emulator::ministack()?;
    let client = Client::new(&config(&emulator.url()).await);
    client.create_bucket().bucket("store").send().await.unwrap();
    let store = S3Store::parse("s3://store/prod", client).unwrap();
    Some((emulator, store))
}

/// The same in a bucket of a moto.
pub async fn other_bucket() -> Option<(Emulator, S3Store)> {
    let emulator = Emulator::moto()?;
    let client = Client::new(&config(&emulator.url()).await);
    client.create_bucket().bucket("store").send().await.unwrap();
    let store = S3Store::parse("s3://store/prod", client).unwrap();
    Some((emulator, store))
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

/// The same store by a way on which the first requests of each method fare as `fates` say; later ones pass.
async fn by_detour(emulator: &Emulator, method: &'static str, fates: Vec<Fate>) -> (Detour, S3Store) {
    let decide = move |number: usize, found: &str| match fates.get(number) {
        Some(fate) if found == method => *fate,
        _ => Fate::Passes,
    };
    let detour = Detour::to(emulator.address(), decide);
    let client = Client::new(&config(&detour.url()).await);
    (detour, S3Store::parse("s3://store/prod", client).unwrap())
}

#[tokio::test]
async fn create_whose_answer_is_lost_is_done_once() {
    let Some((emulator, direct)) = bucket().await else { return };
    let (detour, store) = by_detour(&emulator, "PUT", vec![Fate::Unanswered]).await;
    let Written::Done(version) = store.create(&key("a"), b"ours".to_vec()).await.unwrap() else {
        panic!("our own write is taken for another's")
    };
    let puts = detour.seen().iter().filter(|(method, _)| method == "PUT").count();
    assert_eq!(puts, 2, "it was tried again: {:?}", detour.seen());
    let object = direct.get(&key("a")).await.unwrap().unwrap();
    assert_eq!((object.bytes, object.version), (b"ours".to_vec(), version));
    // The same bytes, but not the same write.
    assert_eq!(store.create(&key("a"), b"ours".to_vec()).await.unwrap(), Written::Conflict);
}

#[tokio::test]
async fn swap_whose_answers_are_all_lost_is_done_once() {
    let Some((emulator, direct)) = bucket().await else { return };
    let Written::Done(first) = direct.create(&key("a"), b"first".to_vec()).await.unwrap() else { panic!() };
    let (_detour, store) = by_detour(&emulator, "PUT", vec![Fate::Unanswered; 4]).await;
    let Written::Done(version) = store.swap(&key("a"), &first, b"second".to_vec()).await.unwrap() else {
        panic!("our own write is taken for another's")
    };
    let object = direct.get(&key("a")).await.unwrap().unwrap();
    assert_eq!((object.bytes, object.version), (b"second".to_vec(), version));
    assert_eq!(store.swap(&key("a"), &first, b"third".to_vec()).await.unwrap(), Written::Conflict);
}

#[tokio::test]
async fn write_that_is_refused_for_a_while_is_done_or_said_not_to_be() {
    let Some((emulator, direct)) = bucket().await else { return };
    let (_detour, store) = by_detour(&emulator, "PUT", vec![Fate::Refused; 3]).await;
    assert!(matches!(store.create(&key("a"), b"a".to_vec()).await.unwrap(), Written::Done(_)));
    let (_detour, store) = by_detour(&emulator, "PUT", vec![Fate::Refused; 4]).await;
    let error = store.create(&key("b"), b"b".to_vec()).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot create `s3://store/prod/b`");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "`s3:PutObject` on `arn:aws:s3:::store/prod/b`: status 503");
    assert_eq!(direct.get(&key("b")).await.unwrap(), None);
}

/// Cause: a header that named S3's own key overrode what the bucket says.
#[tokio::test]
async fn object_is_encrypted_as_its_bucket_says() {
    let Some((emulator, store)) = other_bucket().await else { return };
    let client = Client::new(&config(&emulator.url()).await);
    let encryption = async |name: &str| {
        store.create(&key(name), b"a".to_vec()).await.unwrap();
        let found = client.head_object().bucket("store").key(format!("prod/{name}")).send().await.unwrap();
        (found.server_side_encryption, found.ssekms_key_id)
    };
    assert_ne!(encryption("a").await.0, Some(ServerSideEncryption::AwsKms));
    let kms = "arn:aws:kms:us-east-1:123456789012:key/0ea3fef3-80a7-4778-9d8c-1c0c6EXAMPLE";
    let rule =
        ServerSideEncryptionByDefault::builder().sse_algorithm(ServerSideEncryption::AwsKms).kms_master_key_id(kms);
    let rule =
        ServerSideEncryptionRule::builder().apply_server_side_encryption_by_default(rule.build().unwrap()).build();
    let rules = ServerSideEncryptionConfiguration::builder().rules(rule).build().unwrap();
    let request = client.put_bucket_encryption().bucket("store").server_side_encryption_configuration(rules);
    request.send().await.unwrap();
    assert_eq!(encryption("b").await, (Some(ServerSideEncryption::AwsKms), Some(kms.to_owned())));
}

#[tokio::test]
async fn object_that_is_too_large_is_refused_before_it_is_fetched() {
    let good = "200 OK\nETag: \"a\"";
    // One that says how large it is, and one that never ends.
    for answer in [Answer::Status(good, "x".repeat(1001)), Answer::EndlessBody("200 OK\r\nETag: \"a\"")] {
        let hook = Hook::start(answer);
        let store = S3Store::parse("s3://store", Client::new(&config(&hook.url("")).await)).unwrap();
        let error = store.get_at_most(&key("jobs/large.yaml"), 1000).await.unwrap_err();
        assert_eq!(error.to_string(), "`jobs/large.yaml` is damaged: it has more than 1000 bytes");
        assert_eq!(hook.received().len(), 1);
    }
}

/// Cause: S3 answers 403 also to who has expired or whose clock is wrong, and a run was given up as if its key were closed.
#[tokio::test]
async fn key_is_refused_for_want_of_a_permission_alone() {
    let cases = [
        ("AccessDenied", true, "hint: allow `s3:GetObject` on `arn:aws:s3:::keys/dev.pem`"),
        ("ExpiredToken", false, "hint: the credentials have expired: get new ones"),
        ("RequestTimeTooSkewed", false, "hint: is the clock of this machine right?"),
        ("SignatureDoesNotMatch", false, "SignatureDoesNotMatch: no"),
    ];
    for (code, is_refused, told) in cases {
        let body = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
        let hook = Hook::start(Answer::Status("403 Forbidden", body));
        let keys = S3Keys::new(Client::new(&config(&hook.url("")).await));
        let error = keys.read_key("keys", "dev.pem").await.unwrap_err();
        assert_eq!(matches!(error, KeyReadError::Refused(_)), is_refused, "{error}");
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[tokio::test]
async fn bucket_that_is_missing_is_said_to_be() {
    let Some((emulator, _)) = bucket().await else { return };
    let client = Client::new(&config(&emulator.url()).await);
    let store = S3Store::parse("s3://other", client).unwrap();
    for error in [
        store.get(&key("a")).await.unwrap_err(),
        store.create(&key("a"), Vec::new()).await.unwrap_err(),
        store.list("", None, 1).await.unwrap_err(),
    ] {
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert!(why.contains("NoSuchBucket") && why.contains("arn:aws:s3:::other"), "{why}");
    }
}

#[tokio::test]
async fn key_is_read_again_only_when_it_has_changed() {
    let Some((emulator, _)) = bucket().await else { return };
    let detour = Detour::to(emulator.address(), |_, _| Fate::Passes);
    let client = Client::new(&config(&detour.url()).await);
    let put = async |text: &'static str| {
        let request = client.put_object().bucket("store").key("keys/dev.pem");
        request.body(ByteStream::from_static(text.as_bytes())).send().await.unwrap();
    };
    let keys = S3Keys::new(client.clone());
    put("one").await;
    for _ in 0..2 {
        assert_eq!(keys.read_key("store", "keys/dev.pem").await.unwrap().as_slice(), b"one");
    }
    put("two").await;
    assert_eq!(keys.read_key("store", "keys/dev.pem").await.unwrap().as_slice(), b"two");
    let error = keys.read_key("store", "keys/none.pem").await.unwrap_err();
    let KeyReadError::Refused(why) = error else { panic!("{error:?}") };
    assert!(why.starts_with("the private key `s3://store/keys/none.pem` does not exist: `s3:GetObject` on "), "{why}");
    let large = client.put_object().bucket("store").key("large").body(ByteStream::from(vec![b'x'; 70_000]));
    large.send().await.unwrap();
    assert!(matches!(keys.read_key("store", "large").await.unwrap_err(), KeyReadError::Refused(_)));
}

#[test]
fn place_that_is_no_store_is_refused() {
    let config = aws_sdk_s3::Config::builder().behavior_version(aws_config::BehaviorVersion::latest()).build();
    let client = Client::from_conf(config);
    for place in ["store", "s3://", "s3://b", "s3://Store/x", "s3://store//x", "s3://store/a/../b", "s3://store/ä"] {
        assert!(S3Store::parse(place, client.clone()).is_err(), "{place}");
    }
    for place in ["s3://store", "s3://store/", "s3://store/a", "s3://store/a/b/"] {
        assert!(S3Store::parse(place, client.clone()).is_ok(), "{place}");
    }
}
