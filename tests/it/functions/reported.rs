//! What Lambda is told of an event that came to nothing, by the real runtime over its real API.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use lambda_runtime::tower::util::MapRequestLayer;
use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
use serde_json::{Value, json};
use sshjob::functions::event::Event;
use sshjob::functions::invocation::readable;
use sshjob::functions::log;
use sshjob::functions::refusal::Refusal;
use sshjob::port::StoreError;

/// Where a child finds that it is one.
const CHILD: &str = "functions::reported::function_that_is_not_well";

/// A function as ours are, but that it does nothing and fails as it is told. It runs in a process of its own, where Lambda's
/// variables are set.
#[tokio::test]
#[ignore = "a process of another test's"]
async fn function_that_is_not_well() {
    log::listen();
    let handler = service_fn(|event: LambdaEvent<Value>| async move {
        if let Err(refusal) = Event::read(event.payload.clone())
            && event.payload.get("fail").is_none()
        {
            log::refusal(&refusal);
            return Err(refusal);
        }
        let answer = match event.payload["fail"].as_str() {
            Some("not at all") => {
                tracing::warn!(target: "sshjob::engine", run = "x-20261123T120000Z", "its lease was not renewed");
                tracing::warn!(target: "hyper", "what went over the wire");
                tracing::info!(target: "sshjob::engine", "connected");
                Ok(json!("well"))
            }
            Some("by panic") => panic!("the {} has no bottom", "bucket"),
            Some("by error") => {
                let source = std::io::Error::other("the disk is full").into();
                let source = std::io::Error::new(std::io::ErrorKind::StorageFull, Wrapped(source));
                Err(StoreError::Unavailable { action: "write", at: "runs/x".to_owned(), source }.into())
            }
            _ => Ok(json!("well")),
        };
        answer.inspect_err(log::refusal) as Result<Value, Refusal>
    });
    let served: Result<(), Error> = Runtime::new(handler).layer(MapRequestLayer::new(readable)).run().await;
    served.unwrap();
}

/// An error that has a cause.
#[derive(Debug, thiserror::Error)]
#[error("the store is not well")]
struct Wrapped(#[source] Box<dyn std::error::Error + Send + Sync>);

/// The next request on `stream`: its first line, and its body.
fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).ok().filter(|read| *read > 0)?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        match line.trim_end().to_ascii_lowercase().split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    Some((first, String::from_utf8(body).unwrap()))
}

/// What a function posts for each of `events`, and what it logs.
fn posted(events: &[String]) -> (Vec<(String, Value)>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILD, "--ignored", "--nocapture"])
        .env("AWS_LAMBDA_RUNTIME_API", listener.local_addr().unwrap().to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", "worker")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env("AWS_LAMBDA_LOG_GROUP_NAME", "group")
        .env("AWS_LAMBDA_LOG_STREAM_NAME", "stream")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = child.stdout.take().unwrap();
    let (mut left, mut answers) = (events.iter(), Vec::new());
    // It may make a connection for each request, or one for all of them.
    'all: for stream in listener.incoming() {
        let mut stream = BufReader::new(stream.unwrap());
        while let Some((line, body)) = request(&mut stream) {
            let mut answer = |status: &str, body: &str| {
                let head = "Lambda-Runtime-Aws-Request-Id: 8476a536\r\nLambda-Runtime-Deadline-Ms: 4102444800000\r\n\
                    Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:eu-central-1:1:function:worker\r\n";
                let length = body.len();
                let text = format!("HTTP/1.1 {status}\r\n{head}Content-Length: {length}\r\n\r\n{body}");
                stream.get_mut().write_all(text.as_bytes()).unwrap();
            };
            if line.starts_with("GET /2018-06-01/runtime/invocation/next ") {
                let Some(event) = left.next() else { break 'all };
                answer("200 OK", event);
            } else {
                let path = line.split(' ').nth(1).unwrap().rsplit('/').next().unwrap().to_owned();
                answers.push((path, serde_json::from_str(&body).unwrap()));
                answer("202 Accepted", "{}");
            }
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut logged = String::new();
    said.read_to_string(&mut logged).unwrap();
    (answers, logged)
}

#[test]
fn failure_is_reported_with_all_its_causes_logged_once_and_is_not_the_end() {
    let [panic, error] = [json!({ "fail": "by panic" }), json!({ "fail": "by error" })];
    let fine = json!({ "fail": "not at all" });
    let garbage = "{oops".to_owned();
    let (answers, logged) = posted(&[panic.to_string(), error.to_string(), garbage, fine.to_string()]);
    let [panicked, failed, garbled, well] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!(panicked.0, "error");
    let why = panicked.1["errorMessage"].as_str().unwrap();
    assert!(why.contains("the bucket has no bottom"), "{why}");
    let why = "cannot write `runs/x`: the store is not well: the disk is full";
    assert_eq!(failed, &("error".to_owned(), json!({ "errorType": "StoreUnavailable", "errorMessage": why })));
    // Lambda lets no such thing pass; where it comes all the same it is an event like others that are refused.
    assert_eq!(garbled.1["errorType"], "InvalidEvent", "{garbled:?}");
    assert!(logged.lines().any(|line| line.contains(r#""errorType":"InvalidEvent""#)), "{logged}");
    assert_eq!(well, &("response".to_owned(), json!("well")));
    let lines: Vec<&str> = logged.lines().filter(|line| line.contains(why)).collect();
    let line = json!({ "level": "ERROR", "event": "refused", "errorType": "StoreUnavailable", "errorMessage": why });
    assert_eq!(lines.len(), 1, "{logged}");
    assert_eq!(serde_json::from_str::<Value>(lines[0]).unwrap(), line);
    // What the engine warns of is a line, too; what else is told is none.
    let told: Vec<Value> = logged.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let told: Vec<&Value> = told.iter().filter(|line| line["event"] == "engine").collect();
    let expected = json!({ "run": "x-20261123T120000Z", "message": "its lease was not renewed" });
    assert_eq!(told, [&json!({ "level": "WARN", "event": "engine", "told": expected })]);
    assert!(!logged.contains("the wire") && !logged.contains("connected"), "{logged}");
}
