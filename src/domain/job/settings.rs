//! Settings that may come from a flag, the environment, the job file or the project file: the first that says
//! something wins, and each value remembers where it came from.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::{Hop, HostKeyPolicy, Missed, Mode, Notify, Overlap, RetryOn, Sudo, User, notify, read};
use crate::domain::authority::Authority;
use crate::domain::decode::{At, Fields, Spanned};
use crate::domain::diagnostic::{Diagnostic, Faults, Place};
use crate::domain::instance::AddressKind;
use crate::domain::location::Location;
use crate::domain::quantity::{Amount, ByteSize, Span};
use crate::domain::yaml::{Node, Value};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag, as `--timeout`.
    Flag(&'static str),
    /// A variable of the environment, as `SSHJOB_TIMEOUT`.
    Env(&'static str),
    /// A job file or the project file.
    File {
        /// The file, as the person names it.
        file: String,
        /// Where in it.
        place: Place,
    },
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Env(name) => f.pad(name),
            Self::File { file, place } => f.pad(&format!("{file}:{}:{}", place.line, place.column)),
            Self::Default => f.pad("default"),
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub origin: Origin,
}

impl<T> Sourced<T> {
    /// A value given by the flag `name`.
    pub const fn flag(name: &'static str, value: T) -> Self {
        Self { value, origin: Origin::Flag(name) }
    }

    /// A value that nobody has named.
    pub const fn by_default(value: T) -> Self {
        Self { value, origin: Origin::Default }
    }

    /// A value that stands in `file`.
    pub fn in_file(file: &str, found: Spanned<T>) -> Self {
        Self { value: found.value, origin: Origin::File { file: file.to_owned(), place: found.place } }
    }

    /// Notes in the name of this value what is wrong with it.
    pub fn diagnostic(&self, message: impl Into<String>, hint: Option<&str>) -> Diagnostic {
        let (file, place) = match &self.origin {
            Origin::File { file, place } => (Some(file.clone()), Some(*place)),
            _ => (None, None),
        };
        Diagnostic { file, place, message: message.into(), hint: hint.map(str::to_owned) }
    }
}

macro_rules! settings {
    ($($(#[$doc:meta])* $field:ident: $type:ty, $key:literal, $default:expr;)*) => {
        /// What one layer says; `None` where it says nothing.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Settings {
            $($(#[$doc])* pub $field: Option<Sourced<$type>>,)*
        }

        /// What all layers together come to.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Settled {
            $($(#[$doc])* pub $field: Sourced<$type>,)*
        }

        impl Settings {
            /// What this layer says, and where it is silent what the `lower` one says.
            #[must_use]
            pub fn over(self, lower: Self) -> Self {
                Self { $($field: self.$field.or(lower.$field),)* }
            }

            /// Fills in the defaults.
            pub fn settle(self) -> Settled {
                Settled {
                    $($field: self.$field.unwrap_or_else(|| Sourced { value: $default, origin: Origin::Default }),)*
                }
            }
        }

        impl Settled {
            /// Every setting in the order in which people look for them: its key, its value, where it came from.
            pub fn rows(&self) -> Vec<(&'static str, serde_json::Value, &Origin)> {
                vec![$(($key, shown(&self.$field.value), &self.$field.origin),)*]
            }
        }
    };
}

settings! {
    /// The login user, or the tag that tells it.
    user: User, "user", User::Name("ec2-user".to_owned());
    /// The SSH port where the inventory names none.
    port: u16, "port", 22;
    /// Private keys in the order in which they are tried; none means the usual ones of whoever connects.
    key: Vec<Location>, "key", Vec::new();
    /// Hosts to go through, in order.
    jump: Vec<Hop>, "jump", Vec::new();
    /// How a host key comes to be trusted.
    host_key: HostKeyPolicy, "host_key", HostKeyPolicy::Pinned;
    /// Whose host certificates are believed, where only certificates are.
    host_ca: Vec<Authority>, "host_ca", Vec::new();
    /// TCP, SSH handshake and authentication together.
    connect_timeout: Span, "connect_timeout", seconds(10);
    /// Which address to connect to; none means private, else public.
    address: Option<AddressKind>, "address", None;
    /// The AWS regions to look in; none means the SDK's.
    regions: Vec<String>, "regions", Vec::new();
    /// Whom to become on the host.
    sudo: Sudo, "sudo", Sudo::No;
    /// Whether the process ends with the SSH channel.
    mode: Mode, "mode", Mode::Attached;
    /// Longest time that the script may run on one host.
    timeout: Span, "timeout", Span(Duration::from_mins(5));
    /// The exit statuses that count as success.
    ok_exit_codes: BTreeSet<u8>, "ok_exit_codes", BTreeSet::from([0]);
    /// How much of each output stream of a task is kept.
    max_output: ByteSize, "max_output", ByteSize(1 << 30);
    /// Attempts in all, the first included.
    attempts: u32, "retries.attempts", 1;
    /// The pause between two attempts.
    retry_delay: Span, "retries.delay", seconds(10);
    /// After which ends another attempt is made.
    retry_on: Vec<RetryOn>, "retries.on", vec![RetryOn::Unreachable];
    /// How many tasks run at a time.
    max_concurrency: Amount, "rollout.max_concurrency", Amount::Count(50);
    /// How many tasks may end without success before no more are started; none means all may.
    max_errors: Option<Amount>, "rollout.max_errors", None;
    /// How many hosts go first, alone.
    canary: Amount, "rollout.canary", Amount::Count(0);
    /// How many hosts one worker invocation is handed.
    hosts_per_worker: u32, "hosts_per_worker", 50;
    /// IANA name of the time zone that schedules are read in.
    timezone: String, "timezone", "UTC".to_owned();
    /// A stable delay per job, at most this.
    jitter: Span, "jitter", seconds(0);
    /// What a firing does while an earlier run is active.
    overlap: Overlap, "overlap", Overlap::Skip;
    /// What becomes of firings that nobody was awake for.
    missed: Missed, "missed", Missed::Latest;
    /// A firing later than this is missed, not late.
    deadline: Span, "deadline", Span(Duration::from_mins(10));
    /// Who is told.
    notify: Option<Notify>, "notify", None;
}

const fn seconds(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}

fn shown(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

impl Settings {
    /// Reads what stands in a job file or the project file, `targets` of a job file excepted.
    pub(in crate::domain) fn read(fields: &mut Fields<'_>, file: &str) -> Self {
        let mut settings = Self::default();
        macro_rules! take {
            ($from:expr, $($field:ident: $key:literal, $read:expr;)*) => {
                $(settings.$field = $from.get($key, $read).map(|found| Sourced::in_file(file, found));)*
            };
        }
        take! { fields,
            user: "user", read::user;
            port: "port", |at| at.integer(1..=u16::MAX);
            key: "key", read::keys;
            jump: "jump", read::jump;
            sudo: "sudo", read::sudo;
            mode: "mode", read::mode;
            timeout: "timeout", read::duration;
            connect_timeout: "connect_timeout", read::duration;
            ok_exit_codes: "ok_exit_codes", read::exit_codes;
            max_output: "max_output", read::size;
            hosts_per_worker: "hosts_per_worker", |at| at.integer(1..=1000);
            timezone: "timezone", read::timezone;
            jitter: "jitter", read::pause;
            overlap: "overlap", At::choice;
            missed: "missed", At::choice;
            deadline: "deadline", read::duration;
            notify: "notify", |at| notify::notify(at).map(Some);
        }
        fields.get("retries", |at| {
            let mut retries = at.fields("a map such as `{ attempts: 2, delay: 10s }`")?;
            take! { retries,
                attempts: "attempts", |at| at.integer(1..=100);
                retry_delay: "delay", read::pause;
                retry_on: "on", |at| at.one_or_many(At::choice);
            }
            retries.finish();
            Some(())
        });
        fields.get("rollout", |at| {
            let mut rollout = at.fields("a map such as `{ max_concurrency: 25%, max_errors: 10% }`")?;
            take! { rollout,
                max_concurrency: "max_concurrency", read::positive_amount;
                max_errors: "max_errors", |at| read::amount(at).map(Some);
                canary: "canary", read::amount;
            }
            rollout.finish();
            Some(())
        });
        settings
    }

    /// Reads where instances are looked for and reached.
    pub(in crate::domain) fn read_reach(&mut self, fields: &mut Fields<'_>, file: &str) {
        let regions = fields.get("regions", read::regions);
        self.regions = regions.map(|found| Sourced::in_file(file, found));
        let address = fields.get("address", |at| at.choice().map(Some));
        self.address = address.map(|found| Sourced::in_file(file, found));
    }

    /// Reads how host keys come to be trusted.
    pub(in crate::domain) fn read_trust(&mut self, fields: &mut Fields<'_>, file: &str) {
        self.host_key = fields.get("host_key", At::choice).map(|found| Sourced::in_file(file, found));
        self.host_ca = fields.get("host_ca", read::authorities).map(|found| Sourced::in_file(file, found));
    }

    /// Reads the environment: `SSHJOB_` and the key in capitals. An empty variable says nothing.
    ///
    /// # Errors
    /// One diagnostic per variable that holds what its key does not allow.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<Diagnostic>> {
        let mut settings = Self::default();
        let mut wrong = Vec::new();
        macro_rules! take {
            ($($field:ident: $name:literal, $read:expr;)*) => {
                $(if let Some(text) = variable($name).filter(|text| !text.is_empty()) {
                    let node = Node { place: Place::START, value: Value::Scalar { text, plain: true } };
                    let faults = Faults::of($name);
                    let value = At::root(&node, &faults).map($read);
                    match faults.settle(concat!("`", $name, "`: "), value) {
                        Ok(value) => settings.$field = Some(Sourced { value, origin: Origin::Env($name) }),
                        Err(found) => {
                            wrong.extend(found.into_iter().map(|fault| Diagnostic { file: None, place: None, ..fault }));
                        }
                    }
                })*
            };
        }
        take! {
            user: "SSHJOB_USER", read::user;
            port: "SSHJOB_PORT", |at| at.integer(1..=u16::MAX);
            key: "SSHJOB_KEY", read::keys;
            jump: "SSHJOB_JUMP", read::jump;
            host_key: "SSHJOB_HOST_KEY", At::choice;
            host_ca: "SSHJOB_HOST_CA", read::authorities;
            connect_timeout: "SSHJOB_CONNECT_TIMEOUT", read::duration;
            address: "SSHJOB_ADDRESS", |at| at.choice().map(Some);
            regions: "SSHJOB_REGION", read::regions;
            sudo: "SSHJOB_SUDO", read::sudo;
            timeout: "SSHJOB_TIMEOUT", read::duration;
            max_output: "SSHJOB_MAX_OUTPUT", read::size;
            max_concurrency: "SSHJOB_MAX_CONCURRENCY", read::positive_amount;
            max_errors: "SSHJOB_MAX_ERRORS", |at| read::amount(at).map(Some);
            timezone: "SSHJOB_TIMEZONE", read::timezone;
        }
        if wrong.is_empty() { Ok(settings) } else { Err(wrong) }
    }
}
