//! What people are sent, byte by byte, and what is said of servers that are down, slow, endless, wrong or elsewhere.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sshjob::adapter::notify::{Network, Roots};
use sshjob::domain::job::file::JobFile;
use sshjob::domain::job::notify::{Channel, Topic};
use sshjob::domain::job::resolve::Layers;
use sshjob::domain::job::{Job, Notify, SecretRef};
use sshjob::domain::location::Location;
use sshjob::domain::notice::Notice;
use sshjob::domain::run::{Carrier, RunRecord, RunState, SCHEMA, Target, Verdict};
use sshjob::domain::script::ScriptRef;
use sshjob::domain::task::{Counts, TaskRecord, TaskState};
use sshjob::port::{Notifier as _, NotifyError, Topics};
use zeroize::Zeroizing;

use crate::support::certificate::Vouched;
use crate::support::hook::{Answer, Hook};
use crate::support::mailhost::{MailHost, Manner};

/// The job `rotate-logs` with this `notify`.
pub fn job(notify: &str) -> Job {
    let text = format!("targets: {{ hosts: web-1 }}\nrun: echo hi\nnotify: {notify}\n");
    let file = JobFile::parse(&text, "rotate-logs.yaml", "rotate-logs").unwrap();
    Layers::default().resolve(file).unwrap()
}

/// A run of the job with this `notify`.
pub fn record(notify: &str) -> RunRecord {
    let job = job(notify);
    let script = ScriptRef { sha256: "0".repeat(64), bytes: 8, origin: "run".to_owned() };
    let started_at = "2026-11-22T22:15:01Z".parse().unwrap();
    RunRecord {
        schema: SCHEMA.to_owned(),
        run: "rotate-logs-20261122T221500Z".parse().unwrap(),
        job,
        script,
        actor: "up".to_owned(),
        retry_of: None,
        scheduled_for: Some("2026-11-22T22:15:00Z".parse().unwrap()),
        started_at,
        plan_before: started_at,
        carrier: Carrier::Caller,
        instance: None,
        skipped: None,
    }
}

fn rule(notify: &str) -> Notify {
    *job(notify).notify.unwrap()
}

fn target(instance: &str, name: Option<&str>) -> Target {
    Target {
        instance: instance.parse().unwrap(),
        account: "account".to_owned(),
        region: "region".to_owned(),
        name: name.map(str::to_owned),
        address: None,
        address_kind: None,
        port: 22,
        user: "root".to_owned(),
        jump: None,
        keys: Vec::<Location>::new(),
    }
}

fn verdict(state: RunState, counts: Counts) -> Verdict {
    let began_at = (state != RunState::Skipped).then(|| "2026-11-22T22:15:01Z".parse().unwrap());
    Verdict { state, reason: None, counts, began_at, finished_at: "2026-11-22T22:16:31Z".parse().unwrap() }
}

/// The end of a run of which `record` is the claim.
pub fn end(record: &RunRecord, state: RunState) -> Notice {
    let counts: Counts = match state {
        RunState::Skipped => Counts::default(),
        RunState::Succeeded => [TaskState::Succeeded; 3].into_iter().collect(),
        _ => [TaskState::Succeeded, TaskState::Failed, TaskState::Unreachable].into_iter().collect(),
    };
    let failed = TaskRecord { state: TaskState::Failed, exit_code: Some(3), ..TaskRecord::pending() };
    let why = "connect: <!channel> `refused`\r\nBcc: evil@example.com\u{202e}";
    let gone = TaskRecord { state: TaskState::Unreachable, reason: Some(why.to_owned()), ..TaskRecord::pending() };
    let (web, db) = (target("i-2", Some("db & <co>\r\nSubject: x")), target("web-1", None));
    let tasks = [(&web, &gone), (&db, &failed)];
    let tasks: &[_] = if state == RunState::Failed { &tasks } else { &[] };
    Notice::ended(
        record,
        &verdict(state, counts),
        tasks.iter().copied(),
        Some(RunState::Failed),
        Some(Duration::from_secs(40)),
    )
}

fn secret(secret: &SecretRef) -> Result<Zeroizing<String>, String> {
    match secret {
        SecretRef::Env(name) if name == "PASSWORD" => Ok(Zeroizing::new("hunter2".to_owned())),
        SecretRef::Env(name) if name == "WRONG" => Ok(Zeroizing::new("a-secret-that-is-no-address".to_owned())),
        SecretRef::Env(name) if name.starts_with("http") => Ok(Zeroizing::new(format!("{name}\n"))),
        other => Err(format!("`{}` is not set", String::from(other.clone()))),
    }
}

/// How secrets are found.
type Find = fn(&SecretRef) -> Result<Zeroizing<String>, String>;

fn network(authorities: Vec<Vec<u8>>) -> Network<Find> {
    Network::new(secret, Roots::given(authorities))
}

async fn send(notify: &str, channel: Channel, state: RunState) -> Result<(), String> {
    let rule = rule(notify);
    let sent = network(vec![]).send(&end(&record(notify), state), &rule, channel).await;
    sent.map_err(|error| error.to_string())
}

#[tokio::test]
async fn webhook_is_sent_one_json_document_per_run() {
    let hook = Hook::start(Answer::ok());
    let notify = format!("{{ on: [failure], webhook: \"{}\" }}", hook.url("/T0/secret"));
    send(&notify, Channel::Webhook, RunState::Failed).await.unwrap();
    let received = hook.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].line, "POST /T0/secret HTTP/1.1");
    assert_eq!(received[0].header("content-type"), Some("application/json"));
    let document: serde_json::Value = serde_json::from_str(&received[0].body).unwrap();
    assert_eq!(received[0].header("idempotency-key"), document["id"].as_str());
    super::schema::assert_valid("notice", &document);
    insta::assert_snapshot!(format!("{document:#}"));
}

#[tokio::test]
async fn slack_is_sent_text_in_which_hosts_can_call_nobody() {
    let hook = Hook::start(Answer::ok());
    let notify =
        format!("{{ on: [failure], slack: \"env:{}\" }}", hook.url("/services/T0/B0/x").replace("//", "//me:hunter2@"));
    send(&notify, Channel::Slack, RunState::Failed).await.unwrap();
    let document: serde_json::Value = serde_json::from_str(&hook.received()[0].body).unwrap();
    assert_eq!(hook.paths(), ["/services/T0/B0/x"]);
    assert_eq!(hook.received()[0].header("authorization"), Some("Basic bWU6aHVudGVyMg=="));
    insta::assert_snapshot!(document["text"].as_str().unwrap());
}

#[tokio::test]
async fn ping_joins_the_start_and_the_end_of_a_run_by_one_uuid() {
    let hook = Hook::start(Answer::ok());
    let notify = format!("{{ ping: \"{}\" }}", hook.url("/5f1b/?create=1"));
    let (rule, record) = (rule(&notify), record(&notify));
    let notices = [
        Notice::started(&record),
        end(&record, RunState::Succeeded),
        end(&record, RunState::Failed),
        end(&record, RunState::Cancelled),
    ];
    for notice in &notices {
        network(vec![]).send(notice, &rule, Channel::Ping).await.unwrap();
    }
    // Python: `uuid.uuid5(uuid.UUID(bytes=b"sshjob run ids/1"), "rotate-logs-20261122T221500Z")`.
    let rid = "rid=ad37cfda-3136-5ed4-a52c-886bfc97067a";
    let expected = ["/5f1b/start", "/5f1b", "/5f1b/fail", "/5f1b/fail"].map(|path| format!("{path}?create=1&{rid}"));
    assert_eq!(hook.paths(), expected);
    hook.answer(Answer::Status("200 OK", "OK (not found)".to_owned()));
    let unknown = network(vec![]).send(&notices[0], &rule, Channel::Ping).await.unwrap_err();
    assert_eq!(unknown.to_string(), "the server knows no check of this address");
}

#[tokio::test]
async fn mail_is_one_message_whose_headers_hosts_cannot_touch() {
    let host = MailHost::start(Manner::Plain);
    let notify = format!(
        "{{ on: failure, email: {{ to: [ops@example.com, a@b.example], from: sshjob@example.com, server: \
         \"smtp://127.0.0.1:{}\" }} }}",
        host.port()
    );
    send(&notify, Channel::Email, RunState::Failed).await.unwrap();
    insta::assert_snapshot!(host.said().join("\n"));
}

#[tokio::test]
async fn password_is_sent_to_a_known_server_over_tls_alone() {
    let vouched = Vouched::new();
    for (manner, scheme) in [
        (Manner::Tls(vouched.served.clone()), "smtps"),
        (Manner::StartTls(vouched.served.clone()), "smtp"),
        (Manner::Plain, "smtp"),
    ] {
        let is_plain = matches!(manner, Manner::Plain);
        let host = MailHost::start(manner);
        let notify = format!(
            "{{ on: failure, email: {{ to: a@b.example, from: c@d.example, user: me, password: \"env:PASSWORD\", \
             server: \"{scheme}://localhost:{}\" }} }}",
            host.port()
        );
        let (rule, notice) = (rule(&notify), end(&record(&notify), RunState::Failed));
        let stranger = network(vec![Vouched::new().authority]).send(&notice, &rule, Channel::Email).await.unwrap_err();
        assert!(host.said().iter().all(|line| !line.starts_with("AUTH")), "{:?}", host.said());
        let known = network(vec![vouched.authority.clone()]).send(&notice, &rule, Channel::Email).await;
        let auths = host.said().iter().filter(|line| line.starts_with("AUTH")).count();
        if is_plain {
            let why = "the server offers no TLS, and a password is not sent without; use `smtps://`";
            assert_eq!((known.unwrap_err().to_string(), auths), (why.to_owned(), 0));
        } else {
            assert!(stranger.to_string().contains("invalid peer certificate"), "{stranger}");
            known.unwrap();
            assert_eq!(auths, 1);
        }
    }
}

#[tokio::test]
async fn password_that_a_server_repeats_is_not_told() {
    let vouched = Vouched::new();
    let host = MailHost::start(Manner::Forbids(vouched.served.clone()));
    let notify = format!(
        "{{ on: failure, email: {{ to: a@b.example, from: c@d.example, user: me, password: \"env:PASSWORD\", server: \
         \"smtps://localhost:{}\" }} }}",
        host.port()
    );
    let network = network(vec![vouched.authority]);
    let sent = network.send(&end(&record(&notify), RunState::Failed), &rule(&notify), Channel::Email).await;
    assert_eq!(sent.unwrap_err().to_string(), "the server refuses the user and the password (535)");
    let hook = Hook::start(Answer::Status("401 No", "not me:hunter2".to_owned()));
    let url = hook.url("/").replace("//", "//me:hunter2@");
    let told = send(&format!("{{ on: failure, webhook: \"env:{url}\" }}"), Channel::Webhook, RunState::Failed).await;
    assert_eq!(told, Err("status 401".to_owned()));
    hook.answer(Answer::Status("302 Found\nLocation: https://me:hunter2@elsewhere.example/", String::new()));
    let told = send(&format!("{{ on: failure, webhook: \"env:{url}\" }}"), Channel::Webhook, RunState::Failed).await;
    assert_eq!(told, Err("it redirects (status 302), and is not followed".to_owned()));
}

/// Topics that write down what is published to them.
#[derive(Clone, Default)]
struct Board(Arc<Mutex<Vec<[String; 3]>>>);

impl Topics for Board {
    async fn publish(&self, topic: &Topic, subject: &str, text: &str) -> Result<(), NotifyError> {
        self.0.lock().unwrap().push([topic.region(), subject, text].map(str::to_owned));
        Ok(())
    }
}

#[tokio::test]
async fn topic_is_published_to_as_a_mail_and_needs_aws() {
    let notify = "{ on: failure, sns: \"arn:aws:sns:eu-central-1:123456789012:ops\" }";
    let (notice, board) = (end(&record(notify), RunState::Failed), Board::default());
    network(vec![]).publishing(board.clone()).send(&notice, &rule(notify), Channel::Sns).await.unwrap();
    let published = ["eu-central-1".to_owned(), notice.subject(), notice.plain()];
    assert_eq!(*board.0.lock().unwrap(), [published]);
    let without = send(notify, Channel::Sns, RunState::Failed).await;
    let why = "publishing to `arn:aws:sns:eu-central-1:123456789012:ops` needs a build with AWS";
    assert_eq!(without, Err(why.to_owned()));
}

#[tokio::test]
async fn mail_servers_that_are_not_well_are_told_in_their_words_and_hold_up_nobody() {
    for (manner, expected) in [
        (Manner::KnowsNobody, Some("permanent error (550): no such user here")),
        (Manner::Silent, Some("no answer in time")),
        (Manner::Endless, Some("network error: the server talks without end")),
        (Manner::NoGoodbye, None),
    ] {
        let host = MailHost::start(manner);
        let notify = format!(
            "{{ on: failure, email: {{ to: a@b.example, from: c@d.example, server: \"smtp://127.0.0.1:{}\" }} }}",
            host.port()
        );
        let deadline = if expected.is_some_and(|why| why.ends_with("time")) { 300 } else { 60_000 };
        let network = network(vec![]).within(Duration::from_millis(deadline));
        let sent = network.send(&end(&record(&notify), RunState::Failed), &rule(&notify), Channel::Email).await;
        assert_eq!(sent.err().map(|error| error.to_string()).as_deref(), expected);
    }
}

#[tokio::test]
async fn web_servers_that_are_not_well_are_told_and_hold_up_nobody() {
    let gone = Hook::start(Answer::ok());
    let refused = gone.url("/secret");
    drop(gone);
    let status = |status, body: &str| Answer::Status(status, body.to_owned());
    let elsewhere = "307 Temporary Redirect\nLocation: https://elsewhere.example/secret-token";
    let file = "302 Found\nLocation: file:///etc/passwd";
    let answers = [
        (status("500 Oops", "out\r\nof\u{1b}[2J order"), Some("status 500: out of [2J order")),
        (status("404 Not Found", "Cannot POST /secret-token"), Some("status 404")),
        (status("410 Gone", ""), Some("status 410")),
        (status(elsewhere, ""), Some("it redirects to `https://elsewhere.example/` (status 307), and is not followed")),
        (status(file, ""), Some("it redirects to `file:///` (status 302), and is not followed")),
        (status("204 No Content", ""), None),
        (Answer::EndlessBody("200 OK"), None),
        (Answer::EndlessHeader, Some("the answer is not HTTP")),
        (Answer::HangsUp, Some("the connection was closed")),
        (Answer::Silence, Some("no answer in time")),
    ];
    for (answer, expected) in answers {
        let deadline = if matches!(answer, Answer::Silence) { 300 } else { 60_000 };
        let hook = Hook::start(answer.clone());
        let notify = format!("{{ on: failure, webhook: \"{}\" }}", hook.url("/secret-token"));
        let network = network(vec![]).within(Duration::from_millis(deadline));
        let sent = network.send(&end(&record(&notify), RunState::Failed), &rule(&notify), Channel::Webhook).await;
        assert_eq!(sent.err().map(|error| error.to_string()).as_deref(), expected, "{answer:?}");
        assert_eq!(hook.received().len(), 1, "{answer:?}");
    }
    let notify = format!("{{ on: failure, webhook: \"{refused}\" }}");
    assert_eq!(send(&notify, Channel::Webhook, RunState::Failed).await, Err("connection refused".to_owned()));
}

#[tokio::test]
async fn web_server_is_believed_when_a_known_authority_vouches_for_it() {
    let vouched = Vouched::new();
    let hook = Hook::start_tls(Answer::ok(), vouched.served);
    let notify = |host: &str| format!("{{ on: failure, webhook: \"https://{host}:{}/x\" }}", hook.port());
    let (good, other) = (rule(&notify("localhost")), rule(&notify("127.0.0.1")));
    let notice = end(&record(&notify("localhost")), RunState::Failed);
    let known = network(vec![vouched.authority]);
    known.send(&notice, &good, Channel::Webhook).await.unwrap();
    assert_eq!(hook.paths(), ["/x"]);
    let stranger = network(vec![Vouched::new().authority]).send(&notice, &good, Channel::Webhook).await;
    for refused in [stranger, known.send(&notice, &other, Channel::Webhook).await] {
        let why = refused.unwrap_err().to_string();
        assert!(why.contains("invalid peer certificate"), "{why}");
    }
    let nobody = network(vec![]).send(&notice, &good, Channel::Webhook).await.unwrap_err();
    assert_eq!(nobody.to_string(), "this machine knows no certificate authorities; install `ca-certificates`");
    assert_eq!(hook.paths(), ["/x"]);
}

#[tokio::test]
async fn address_that_cannot_be_had_is_told_without_what_was_found() {
    let webhook = |reference: &str| format!("{{ on: failure, webhook: \"{reference}\" }}");
    let told = |reference: &'static str| async move {
        send(&webhook(reference), Channel::Webhook, RunState::Failed).await.unwrap_err()
    };
    assert_eq!(told("env:WRONG").await, "what `env:WRONG` holds is not an address");
    assert_eq!(told("env:NOTHING").await, "`env:NOTHING` is not set");
}
