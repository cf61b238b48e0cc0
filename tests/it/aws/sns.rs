//! That a message reaches whoever has subscribed to its topic, in the topic's region, and that it is said where it does
//! not.

use aws_sdk_sns::Client;
use sshjob::adapter::aws::sns::SnsTopics;
use sshjob::domain::job::notify::Topic;
use sshjob::port::{NotifyError, Topics as _};

use super::config;
use crate::support::emulator::Emulator;
use crate::support::hook::{Answer, Hook};

fn topic(region: &str) -> Topic {
    format!("arn:aws:sns:{region}:123456789012:ops").try_into().unwrap()
}

async fn topics(url: &str) -> SnsTopics {
    SnsTopics::new(Client::new(&config(url).await))
}

/// Asks the queues of `emulator` something, without an SDK of theirs.
fn ask_queues(emulator: &Emulator, path: &str, question: &str) -> String {
    let url = format!("{}{path}", emulator.url());
    let scope = "AWS4-HMAC-SHA256 Credential=AKIATEST/20261123/eu-central-1/sqs/aws4_request";
    let request = ureq::post(url).header("Authorization", format!("{scope}, SignedHeaders=host, Signature=0"));
    let request = request.header("Content-Type", "application/x-www-form-urlencoded");
    request.send(format!("{question}&Version=2012-11-05")).unwrap().body_mut().read_to_string().unwrap()
}

#[tokio::test]
async fn message_reaches_who_has_subscribed_in_the_region_of_the_topic() {
    let Some(emulator) = Emulator::moto() else { return };
    ask_queues(&emulator, "/", "Action=CreateQueue&QueueName=people");
    let here = config(&emulator.url()).await.to_builder().region(aws_config::Region::new("eu-central-1")).build();
    let client = Client::new(&here);
    let arn = client.create_topic().name("ops").send().await.unwrap().topic_arn.unwrap();
    let queue = "arn:aws:sqs:eu-central-1:123456789012:people";
    client.subscribe().topic_arn(&arn).protocol("sqs").endpoint(queue).send().await.unwrap();
    let topics = topics(&emulator.url()).await;
    topics.publish(&Topic::try_from(arn).unwrap(), "[sshjob] so", "a\nb <&> \u{e4}\n").await.unwrap();
    let arrived = ask_queues(&emulator, "/123456789012/people", "Action=ReceiveMessage");
    let arrived = arrived.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let arrived = arrived.split_once("<Body>").unwrap().1.split_once("</Body>").unwrap().0;
    let arrived: serde_json::Value = serde_json::from_str(arrived).unwrap();
    assert_eq!((arrived["Subject"].as_str(), arrived["Message"].as_str()), (Some("[sshjob] so"), Some("a\nb <&> ä\n")));
    let gone = topics.publish(&topic("us-west-2"), "so", "so").await.unwrap_err().to_string();
    let expected = "`sns:Publish` on `arn:aws:sns:us-west-2:123456789012:ops`: NotFound: ";
    assert!(gone.starts_with(expected), "{gone}");
}

#[tokio::test]
async fn message_is_signed_for_the_region_of_the_topic_and_says_no_more_than_it_should() {
    let answer = "<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>";
    let hook = Hook::start(Answer::Status("200 OK", answer.to_owned()));
    let topics = topics(&hook.url("")).await;
    for region in ["eu-west-1", "ap-south-1"] {
        topics.publish(&topic(region), "so & so", "it is").await.unwrap();
    }
    for (request, region) in hook.received().iter().zip(["eu-west-1", "ap-south-1"]) {
        assert!(request.header("authorization").unwrap().contains(&format!("/{region}/sns/aws4_request")));
        assert_eq!(
            request.body,
            format!(
                "Action=Publish&Version=2010-03-31&TopicArn=arn%3Aaws%3Asns%3A{region}%3A123456789012%3Aops\
                 &Message=it%20is&Subject=so%20%26%20so"
            )
        );
    }
    assert_eq!(hook.received().len(), 2);
}

#[tokio::test]
async fn message_that_may_not_be_published_names_the_permission() {
    let denied = "<ErrorResponse><Error><Code>AuthorizationError</Code><Message>no</Message></Error></ErrorResponse>";
    let hook = Hook::start(Answer::Status("403 Forbidden", denied.to_owned()));
    let error = topics(&hook.url("")).await.publish(&topic("us-east-1"), "so", "so").await;
    let arn = "arn:aws:sns:us-east-1:123456789012:ops";
    let why = format!(
        "`sns:Publish` on `{arn}`: AuthorizationError: no; allow `sns:Publish` on `{arn}` to whoever this runs as"
    );
    assert_eq!(error, Err(NotifyError(why)));
    assert_eq!(hook.received().len(), 1);
}
