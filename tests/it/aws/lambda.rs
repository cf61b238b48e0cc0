//! That an order is sent as one event, and what is said where it is not taken. `dispatch_contract` asks the rest.

use std::time::Duration;

use aws_sdk_lambda::config::timeout::TimeoutConfig;
use sshjob::adapter::aws::lambda::{LambdaDispatcher, Refused, ask};
use sshjob::domain::id::RunId;
use sshjob::domain::order::{Action, Order};
use sshjob::port::Dispatcher as _;

use super::config;
use crate::support::hook::{Answer, Hook};

pub fn order() -> Order {
    let run = RunId::of_firing(&"hello".parse().unwrap(), "2026-11-23T09:30:00Z".parse().unwrap());
    Order::new(Action::Run, &run, 7, "2026-11-23T09:31:00Z".parse().unwrap())
}

/// Who sends orders to the function `worker` at `hook`.
pub async fn dispatcher(hook: &Hook) -> LambdaDispatcher {
    LambdaDispatcher::new(aws_sdk_lambda::Client::new(&config(&hook.url("")).await), "worker")
}

#[tokio::test]
async fn order_is_sent_as_an_event_of_the_function() {
    let hook = Hook::start(Answer::Status("202 Accepted", String::new()));
    dispatcher(&hook).await.dispatch(order()).await.unwrap();
    let received = hook.received();
    let [request] = received.as_slice() else { panic!("{received:?}") };
    assert_eq!(request.line, "POST /2015-03-31/functions/worker/invocations HTTP/1.1");
    assert_eq!(request.header("x-amz-invocation-type"), Some("Event"));
    assert_eq!(request.body, serde_json::to_string(&order()).unwrap());
}

#[tokio::test]
async fn order_that_is_throttled_is_tried_again_and_then_an_error() {
    let throttled = "429 Too Many Requests\nx-amzn-errortype: TooManyRequestsException";
    let hook = Hook::start(Answer::Status(throttled, r#"{"message":"Rate exceeded"}"#.to_owned()));
    let error = dispatcher(&hook).await.dispatch(order()).await.unwrap_err();
    assert_eq!(hook.received().len(), 4);
    assert_eq!(
        error.to_string(),
        "cannot hand batch 7 of `hello-20261123T093000Z` to a worker: `lambda:InvokeFunction` on `worker`: \
         TooManyRequestsException: Rate exceeded"
    );
}

#[tokio::test]
async fn order_that_may_not_be_sent_names_the_permission() {
    let denied = "403 Forbidden\nx-amzn-errortype: AccessDeniedException";
    let hook = Hook::start(Answer::Status(denied, r#"{"Message":"no"}"#.to_owned()));
    let error = dispatcher(&hook).await.dispatch(order()).await.unwrap_err();
    assert_eq!(hook.received().len(), 1);
    let hint = "\nhint: allow `lambda:InvokeFunction` on `worker` to whoever this runs as";
    assert!(error.to_string().ends_with(&format!("AccessDeniedException: no{hint}")), "{error}");
}

/// Cause: the trigger may take minutes; whoever waited for ten seconds asked again while it was at it, and gave up.
#[tokio::test]
async fn function_that_takes_long_is_waited_for_and_asked_once() {
    let late = Answer::Late(Duration::from_millis(1500), "200 OK", r#"{"run":"hello-20261123T093000Z"}"#.to_owned());
    let hook = Hook::start(late);
    let hasty =
        TimeoutConfig::builder().read_timeout(Duration::from_millis(100)).operation_timeout(Duration::from_secs(1));
    let config = aws_sdk_lambda::config::Builder::from(&config(&hook.url("")).await).timeout_config(hasty.build());
    let client = aws_sdk_lambda::Client::from_conf(config.build());
    let said = ask(&client, "trigger", &serde_json::json!({ "job": "hello" })).await.unwrap();
    assert_eq!(said["run"], "hello-20261123T093000Z");
    assert_eq!(hook.received().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn function_that_never_answers_is_given_up_after_its_time_and_asked_once() {
    let hook = Hook::start(Answer::Silence);
    let client = aws_sdk_lambda::Client::new(&config(&hook.url("")).await);
    let begun = tokio::time::Instant::now();
    let refused = ask(&client, "trigger", &serde_json::json!({})).await.unwrap_err();
    assert!(matches!(&refused, Refused::Unavailable(why) if why.contains("`lambda:InvokeFunction`")), "{refused:?}");
    let took = begun.elapsed().as_secs();
    assert!((300..=330).contains(&took), "{took} s");
    // It may not even have read what it was asked: its time is not ours.
    assert!(hook.received().len() <= 1, "{:?}", hook.received());
}

/// What `ask` makes of a function that ended with `payload`.
async fn refused(payload: &str) -> Refused {
    let hook = Hook::start(Answer::Status("200 OK\nx-amz-function-error: Unhandled", payload.to_owned()));
    let client = aws_sdk_lambda::Client::new(&config(&hook.url("")).await);
    ask(&client, "trigger", &serde_json::json!({ "job": "hello" })).await.unwrap_err()
}

#[tokio::test]
async fn what_a_function_says_steers_no_terminal_and_has_an_end() {
    let said = format!(
        r#"{{"errorType":"Invalid\u001b[2JJob","errorMessage":"no\u001b]0;x\u0007\nhint{}"}}"#,
        "!".repeat(9000)
    );
    let Refused::Answered { kind, why } = refused(&said).await else { panic!() };
    assert_eq!(kind, "Invalid[2JJob");
    assert_eq!(why, format!("no]0;x\nhint{}", "!".repeat(4000 - "no]0;x\nhint".len())));
}

#[tokio::test]
async fn function_that_was_ended_has_not_answered() {
    for (payload, expected) in [
        (
            r#"{"errorType":"Sandbox.Timedout","errorMessage":"Task timed out after 3.00 seconds"}"#,
            "`trigger` ended: Task timed out after 3.00 seconds",
        ),
        (
            r#"{"errorMessage":"RequestId: 1 Error: signal: killed"}"#,
            "`trigger` ended: RequestId: 1 Error: signal: killed",
        ),
        ("<html>", "`trigger` ended without an answer: Unhandled"),
    ] {
        let found = refused(payload).await;
        assert!(matches!(&found, Refused::Unavailable(why) if why == expected), "{found:?}");
    }
}
