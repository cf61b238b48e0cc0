//! The JSON Schema of job files, by which editors check and complete them.
//!
//! It says what [`super::file`] reads, key by key, for people who type; the file is read by the decoder alone.

use std::collections::BTreeMap;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

use super::{Event, Missed, NotifyOn, Overlap, RetryOn};
use crate::domain::instance::AddressKind;

/// The schema as a document.
pub fn job_file() -> Value {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<JobFile>().to_value();
    forbid_null(&mut schema);
    schema
}

/// An optional key may be left out, but one that is there has a value.
fn forbid_null(schema: &mut Value) {
    match schema {
        Value::Object(keys) => {
            for choices in ["type", "anyOf"].map(|key| keys.get(key).cloned()).into_iter().flatten() {
                let Value::Array(mut kept) = choices else { continue };
                let before = kept.len();
                kept.retain(|choice| *choice != json!("null") && *choice != json!({ "type": "null" }));
                if kept.len() < before {
                    let is_type = kept.first().is_some_and(Value::is_string);
                    let (key, value) = match kept.pop() {
                        Some(only) if is_type && kept.is_empty() => ("type", only),
                        last => {
                            kept.extend(last);
                            (if is_type { "type" } else { "anyOf" }, Value::Array(kept))
                        }
                    };
                    keys.insert(key.to_owned(), value);
                }
            }
            keys.values_mut().for_each(forbid_null);
        }
        Value::Array(items) => items.iter_mut().for_each(forbid_null),
        _ => {}
    }
}

/// What a script runs, where and when. One job per file, in `jobs/`.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(title = "sshjob job", deny_unknown_fields)]
#[schemars(extend("oneOf" = json!([{ "required": ["script"] }, { "required": ["run"] }])))]
struct JobFile {
    /// Identifies the job. Default: the file's name without `.yaml`.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9-]{0,62}$"))]
    name: Option<String>,
    /// One line for people.
    description: Option<String>,
    /// When it fires: five-field crontab, `@daily` and the like, or AWS's `cron(…)`, `rate(…)`, `at(…)`.
    /// None: on demand only.
    #[schemars(example = "*/15 * * * *", example = "@daily")]
    schedule: Option<OneOrMany<String>>,
    /// IANA name of the time zone that the schedule is read in. Default: `UTC`.
    #[schemars(example = "Europe/Berlin")]
    timezone: Option<String>,
    /// A stable delay per job, at most this.
    jitter: Option<Duration>,
    /// Whether firings are suspended.
    paused: Option<bool>,
    /// Local date or time ranges without firings.
    #[schemars(example = "2026-12-24/2026-12-26")]
    blackout: Option<OneOrMany<String>>,
    /// Events that also fire the job.
    on: Option<OneOrMany<Event>>,
    /// Which instances it runs on. An empty selector is an error, never "all".
    targets: Targets,
    /// A script file, relative to the folder that holds `jobs/`.
    script: Option<String>,
    /// The text of a script.
    run: Option<String>,
    /// Arguments; they reach the script byte for byte.
    args: Option<Vec<Word>>,
    /// Configuration that the script sees in its environment. It may be stored.
    #[schemars(extend("propertyNames" = variable_name()))]
    env: Option<BTreeMap<String, Word>>,
    /// Where the secrets are that the script sees in its environment: `env:NAME`, `file:PATH` or `ssm:/path`.
    /// Never stored or logged.
    #[schemars(extend("propertyNames" = variable_name()))]
    secrets: Option<BTreeMap<String, Secret>>,
    /// The login user. Default: the project's, else `ec2-user`.
    user: Option<User>,
    /// The SSH port where the inventory names none. Default: 22.
    #[schemars(range(min = 1))]
    port: Option<u16>,
    /// The private key: `s3://bucket/path`, a file, or `agent`; a list while keys rotate.
    key: Option<OneOrMany<String>>,
    /// Hosts to go through, in order: `[user@]host[:port]`, or with keys of its own `{ host: …, key: … }`.
    jump: Option<OneOrMany<Hop>>,
    /// Whom to become on the host: `true` for the super-user, or a user name.
    sudo: Option<Sudo>,
    /// Whether the process ends with the SSH channel, or outlives it under a supervisor on the host.
    mode: Option<Mode>,
    /// Longest time that the script may run on one host. Default: `5m`.
    timeout: Option<Duration>,
    /// TCP, SSH handshake and authentication together. Default: `10s`.
    connect_timeout: Option<Duration>,
    /// The exit statuses that count as success. Default: `[0]`.
    #[schemars(length(min = 1))]
    ok_exit_codes: Option<Vec<u8>>,
    /// How much of each output stream of a task is kept. Default: `1GiB`.
    max_output: Option<Size>,
    /// What is tried again.
    retries: Option<Retries>,
    /// How the run spreads over its hosts.
    rollout: Option<Rollout>,
    /// How many hosts one worker invocation is handed. Default: 50.
    #[schemars(range(min = 1, max = 1000))]
    hosts_per_worker: Option<u32>,
    /// What a firing does while an earlier run of the job is active, be it a firing or one that somebody asked for. Default:
    /// `skip`. Who asks for a run, by `sshjob run` or `retry`, has it at once.
    overlap: Option<Overlap>,
    /// What becomes of firings that nobody was awake for. Default: `latest`.
    missed: Option<Missed>,
    /// A firing later than this is missed, not late. Default: `10m`.
    deadline: Option<Duration>,
    /// Who is told of a run, and of what.
    notify: Option<Notify>,
}

/// What chooses instances, and where they are reached.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(deny_unknown_fields)]
#[schemars(extend("oneOf" = json!([{ "required": ["tags"] }, { "required": ["hosts"] }])))]
struct Targets {
    /// Tags that an instance must have, every one: a value, a list of values (either), `"web*"` (wildcard),
    /// `"!Prod"` (not), `""` (the tag is present).
    #[schemars(extend("minProperties" = 1))]
    tags: Option<BTreeMap<String, OneOrMany<Word>>>,
    /// Hosts named one by one, with ranges as `node[1-5]`. They need no inventory.
    hosts: Option<OneOrMany<String>>,
    /// Ids, addresses or `Name` globs that are left out.
    exclude: Option<OneOrMany<String>>,
    /// At most this many or this share of the matches, a stable pick.
    limit: Option<Amount>,
    /// The AWS regions to look in. Default: the SDK's.
    regions: Option<OneOrMany<String>>,
    /// Which address to connect to. Default: private, else public.
    address: Option<AddressKind>,
}

/// What is tried again, and how often.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(deny_unknown_fields)]
struct Retries {
    /// Attempts in all, the first included. Default: 1.
    #[schemars(range(min = 1, max = 100))]
    attempts: Option<u32>,
    /// The pause between two attempts. Default: `10s`.
    delay: Option<Duration>,
    /// After which ends another attempt is made. Default: `[unreachable]`.
    on: Option<OneOrMany<RetryOn>>,
}

/// How a run spreads over its hosts.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(deny_unknown_fields)]
struct Rollout {
    /// How many tasks run at a time. Default: 50.
    max_concurrency: Option<Amount>,
    /// How many tasks may end without success before no more are started. Default: all may.
    max_errors: Option<Amount>,
    /// How many hosts go first, alone. Default: 0.
    canary: Option<Amount>,
}

/// Who is told of a run, and of what.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(deny_unknown_fields)]
#[schemars(extend("anyOf" = json!([
    { "required": ["on", "webhook"] }, { "required": ["on", "slack"] }, { "required": ["on", "email"] },
    { "required": ["on", "sns"] }, { "required": ["ping"] },
])))]
struct Notify {
    /// Of what they are told; `ping` is told of every run.
    on: Option<OneOrMany<NotifyOn>>,
    /// When a run is slow: a factor of what the last runs took (their median), or a duration. Default: `2x`.
    #[schemars(example = "2x", example = "10m", regex(pattern = "^[0-9]"))]
    slow_after: Option<String>,
    /// An address that is sent JSON.
    webhook: Option<Endpoint>,
    /// An incoming webhook of Slack, or of what understands the same.
    slack: Option<Endpoint>,
    /// Who gets mail, and through which server.
    email: Option<Email>,
    /// A dead-man's switch in the form of Healthchecks: told of every start and every end.
    ping: Option<Endpoint>,
    /// The ARN of an SNS topic.
    #[schemars(regex(pattern = "^arn:aws(-[a-z0-9-]+)?:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}$"))]
    sns: Option<String>,
}

/// An address that is posted to, or where it is found: `env:NAME`, `file:PATH` or `ssm:/path`.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(example = "https://hooks.example.com/disk-space", example = "env:SLACK_URL")]
struct Endpoint(
    #[schemars(regex(pattern = "^(https?://|env:|file:|ssm:/)"))]
    String,
);

/// Who gets mail, and through which server.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(deny_unknown_fields)]
struct Email {
    /// Who gets it.
    to: OneOrMany<String>,
    /// Whom it is from.
    from: String,
    /// `smtps://host[:port]`: TLS from the first byte. `smtp://host[:port]`: `STARTTLS` where it is offered; where there
    /// is a password it must be.
    #[schemars(regex(pattern = "^smtps?://"))]
    server: String,
    /// The user there, where it wants one.
    user: Option<String>,
    /// Where the user's password is found.
    password: Option<Secret>,
}

/// One, or a list of several.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

/// Text; a number or truth value counts as what is written.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(untagged)]
enum Word {
    Text(String),
    Number(f64),
    Truth(bool),
}

/// A duration: `500ms`, `90s`, `1h30m`, `7d`.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(example = "90s", example = "1h30m")]
struct Duration(
    #[schemars(regex(pattern = "^(0|(?=[0-9])([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$"))] String,
);

/// A size: `512B`, `64KiB`, `1GiB`, `10MB`.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(example = "64KiB", example = "1GiB")]
struct Size(#[schemars(regex(pattern = "^[0-9]+(B|KiB|MiB|GiB|TiB|KB|MB|GB)?$"))] String);

/// A number of hosts, or a share of them: `5` or `10%`.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(untagged)]
enum Amount {
    Count(u32),
    Share(#[schemars(regex(pattern = "^[0-9]+%?$"))] String),
}

/// Where a secret is: `env:NAME`, `file:PATH` or `ssm:/path`.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
struct Secret(#[schemars(regex(pattern = "^(env:.|file:.|ssm:/)"))] String);

/// The login user: a name, or the tag that tells it.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(untagged)]
enum User {
    Name(String),
    Tag(UserTag),
}

/// The tag that tells the login user.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(deny_unknown_fields)]
struct UserTag {
    /// The tag's key.
    tag: String,
    /// The user where the tag is absent.
    default: String,
}

/// A host to go through.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(untagged)]
enum Hop {
    Word(String),
    Map(HopMap),
}

/// A host to go through, with keys of its own.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(deny_unknown_fields)]
struct HopMap {
    /// `[user@]host[:port]`.
    host: String,
    /// The private key for it; a list while keys rotate. Default: the job's.
    key: Option<OneOrMany<String>>,
}

/// Whom to become on the host.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(untagged)]
enum Sudo {
    Flag(bool),
    User(String),
}

/// Whether the process ends with the SSH channel.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(untagged)]
enum Mode {
    Word(ModeWord),
    Map(ModeMap),
}

/// `attached`: it ends with the channel; `detached`: it outlives the channel under a supervisor on the host.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(rename_all = "lowercase")]
enum ModeWord {
    Attached,
    Detached,
}

/// Detached, with settings.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(deny_unknown_fields)]
struct ModeMap {
    /// It outlives the channel under a supervisor on the host.
    detached: Detached,
}

/// How a detached process is kept.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is there for its schema")]
#[schemars(deny_unknown_fields)]
struct Detached {
    /// As a transient systemd unit. Default: false.
    unit: Option<bool>,
    /// How long its directory is kept on the host. Default: `7d`.
    keep: Option<Duration>,
}

fn variable_name() -> Value {
    json!({ "pattern": "^(?!SSHJOB_)[A-Za-z_][A-Za-z0-9_]*$" })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::job::file;

    /// Follows references and drops the null of optional keys.
    fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/definitions/")) {
            return resolve(root, &root["definitions"][name]);
        }
        let choices = schema["anyOf"].as_array().or(schema["allOf"].as_array());
        let map = choices.and_then(|choices| {
            choices.iter().map(|choice| resolve(root, choice)).find(|choice| choice["properties"].is_object())
        });
        map.unwrap_or(schema)
    }

    /// The keys that the decoder names when it finds one that it does not know.
    fn decoder_keys(text: &str) -> BTreeSet<String> {
        let wrong = file::JobFile::parse(text, "x.yaml", "x").unwrap_err();
        let hint = wrong.iter().find_map(|fault| fault.hint.as_deref()?.strip_prefix("known keys are ")).unwrap();
        hint.split(", ").map(|key| key.trim_matches('`').to_owned()).collect()
    }

    #[test]
    fn schema_and_decoder_know_the_same_keys() {
        let schema = job_file();
        for (path, text) in [
            (&[][..], "zzzzzzzz: 1"),
            (&["targets"], "targets: { zzzzzzzz: 1 }"),
            (&["retries"], "retries: { zzzzzzzz: 1 }"),
            (&["rollout"], "rollout: { zzzzzzzz: 1 }"),
            (&["notify"], "notify: { zzzzzzzz: 1 }"),
            (&["notify", "email"], "notify: { email: { zzzzzzzz: 1 } }"),
            (&["user"], "user: { zzzzzzzz: 1 }"),
            (&["jump"], "jump: { zzzzzzzz: 1 }"),
            (&["mode"], "mode: { zzzzzzzz: 1 }"),
            (&["mode", "detached"], "mode: { detached: { zzzzzzzz: 1 } }"),
        ] {
            let at = path.iter().fold(&schema, |at, key| resolve(&schema, &at["properties"][*key]));
            let keys: BTreeSet<String> = at["properties"].as_object().unwrap().keys().cloned().collect();
            assert_eq!(keys, decoder_keys(text), "{path:?}");
            assert_eq!(at["additionalProperties"], json!(false), "{path:?}");
        }
    }

    #[test]
    fn every_key_is_described() {
        let schema = job_file();
        for (key, value) in schema["properties"].as_object().unwrap() {
            assert!(value["description"].is_string(), "{key}");
        }
    }
}
