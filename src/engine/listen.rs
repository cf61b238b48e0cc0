//! Delivers a script over a channel and listens to the host until the script has ended or is given up.
//!
//! Our input stays open while the script runs: it is the lifeline that a watchdog on the host holds. Ending it is how
//! a script is ended, whether it ran too long or somebody cancelled it.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::gate::Gate;
use crate::adapter::ssh::{self, Broken, Channel, Input, Message};
use crate::domain::delivery::reply::{DeliveryError, Reader};
use crate::domain::delivery::{Parcel, Token};
use crate::domain::job::Job;
use crate::domain::layout::Stream;
use crate::domain::task::TaskState;

/// A host that has not started the script in time is told that nothing more comes; what waits for input, as a login
/// file that reads, then goes on at once, and it is certain that nothing was started.
const LAST_CHANCE: Duration = Duration::from_secs(5);

/// After its lifeline ends a script gets TERM, and 10 s later KILL; by then its status must have come.
const END_WITHIN: Duration = Duration::from_secs(15);

/// A background process that holds the output open after the script's end is listened to while it prints, and this
/// much longer.
const TRAIL: Duration = Duration::from_secs(2);

/// But no longer than this.
const TRAIL_AT_MOST: Duration = Duration::from_secs(30);

/// What waits in memory is stored this often, so that others can follow it.
const FLUSH_EVERY: Duration = Duration::from_secs(2);

/// A delivery may take this many times `connect_timeout`, and a second more for each [`DELIVERY_BYTES_PER_SECOND`]:
/// the login shell has its own files to read first.
const DELIVERY: u32 = 3;

/// The slowest link that a delivery is planned for.
const DELIVERY_BYTES_PER_SECOND: u64 = 32 * 1024;

/// How a process ended, in the host's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Status {
    /// With this exit status.
    Code(u32),
    /// By this signal.
    Signal(String),
}

/// Why a host does not start a script, in its own words.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It lacks the program or the interpreter: what a shell would say with status 127.
    NoProgram(String),
    /// Anything else.
    Other(String),
}

impl From<DeliveryError> for Refusal {
    fn from(error: DeliveryError) -> Self {
        match error {
            DeliveryError::Program(_) => Self::NoProgram(error.to_string()),
            other => Self::Other(other.to_string()),
        }
    }
}

/// Who has the word before anything of ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Speaker {
    /// The login shell, or what the host runs in its place.
    #[default]
    LoginShell,
    /// sudo, which the login shell has asked.
    Sudo,
}

/// Why there may be more output than was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// A background process held the output open when we stopped listening.
    Held,
    /// The connection broke before the output had ended.
    Cut,
}

/// What was heard of a script until the channel was done or given up.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// All bytes of the delivery were handed over: the host may have what it needs to start.
    pub(super) delivered: bool,
    /// The host said that it is about to start the script.
    pub(super) started: bool,
    /// The host said why it will not start the script.
    pub(super) failure: Option<Refusal>,
    /// How the process ended.
    pub(super) status: Option<Status>,
    /// Why we gave up waiting for the host to say anything that counts.
    pub(super) given_up: Option<String>,
    /// We ended it, for a task that is now `timed_out` or `cancelled`.
    pub(super) ending: Option<TaskState>,
    /// Why there may be more output of a process that has ended.
    pub(super) missing: Option<Missing>,
    /// The end of what was printed before anything of ours.
    pub(super) noise: String,
    /// Who printed it.
    pub(super) speaker: Speaker,
}

impl Heard {
    /// Notes that time is up; tells how much longer to wait for the host to say that it is over.
    fn is_late(&mut self, patience: Duration) -> Duration {
        if self.started {
            self.ending = Some(TaskState::TimedOut);
            return END_WITHIN;
        }
        let waited = patience.as_secs();
        let who = if self.speaker == Speaker::Sudo { "sudo" } else { "a login file" };
        self.given_up = Some(format!("no word of the script within {waited}s: does {who} hang?"));
        LAST_CHANCE
    }

    /// Notes why nothing is started; tells whether that is all there is to hear.
    fn is_refused(&mut self, refusal: DeliveryError) -> bool {
        let ours = refusal == DeliveryError::Noise;
        // Our own limit is not the host's word: what was handed over may start all the same.
        if ours && self.delivered {
            self.given_up = Some(refusal.to_string());
        } else {
            self.failure = Some(refusal.into());
        }
        ours
    }
}

enum Phase {
    /// The script is on its way.
    Delivering,
    /// The script runs.
    Running,
    /// We have cut the lifeline.
    Ending,
    /// The script has ended, its output is still open; this is when we stop listening at the latest.
    Trailing { limit: Instant },
}

/// Listens to both streams.
struct Ears {
    out: Reader,
    err: Reader,
}

impl Ears {
    /// Tells what of `bytes` the script printed, and notes what the host says of its start; `None` where nothing more
    /// is worth listening to. `sending` says that not all of the delivery is on its way yet.
    fn hear<'a>(&mut self, stream: Stream, bytes: &'a [u8], sending: bool, heard: &mut Heard) -> Option<&'a [u8]> {
        let reader = if stream == Stream::Out { &mut self.out } else { &mut self.err };
        let printed = match reader.feed(bytes) {
            Ok(printed) => printed,
            Err(refusal) => return (!heard.is_refused(refusal)).then_some(&[]),
        };
        if reader.started() && sending {
            // What is not all on its way cannot run; what the host says of it is not true.
            let lie = "the host claims that it started before all of it was sent";
            heard.failure = Some(Refusal::Other(lie.to_owned()));
            return None;
        }
        heard.started |= reader.started();
        if self.out.asked_sudo() {
            heard.speaker = Speaker::Sudo;
        }
        Some(printed)
    }

    fn noise(&self) -> String {
        [self.err.noise(), self.out.noise()].into_iter().find(|noise| !noise.is_empty()).unwrap_or_default()
    }
}

/// Takes what a script prints.
pub trait Sink {
    /// Takes what the host sent on `stream`; returns when there is room for more.
    fn write(&mut self, stream: Stream, bytes: &[u8]) -> impl Future<Output = ()> + Send;

    /// Lets others see what was taken.
    fn flush(&mut self) -> impl Future<Output = ()> + Send;
}

/// How long a delivery of so many bytes may take.
pub(super) const fn patience(connect_timeout: Duration, bytes: u64) -> Duration {
    let extra = Duration::from_secs(bytes / DELIVERY_BYTES_PER_SECOND);
    connect_timeout.saturating_mul(DELIVERY).saturating_add(extra)
}

/// How far a delivery is.
#[derive(Debug, Default)]
struct Sent {
    /// The host has been asked to run something.
    asked: AtomicBool,
    /// Nothing is left but the last piece, which may have been handed over.
    nearly: AtomicBool,
}

/// Sends all of it. After the end of our input it is polled no more unless its last piece was on its way by then: the SSH
/// library drops what comes later, and says that it was sent.
async fn deliver(input: &Input, parcel: &Parcel, sent: &Sent) -> Result<(), Broken> {
    input.exec(&parcel.command).await?;
    sent.asked.store(true, Relaxed);
    let (first, last) = match &parcel.script[..] {
        [] => (&[][..], &parcel.head[..]),
        script => (&parcel.head[..], script),
    };
    input.send(first).await?;
    let (most, last) = last.split_at(ssh::before_the_last_piece(last));
    input.send(most).await?;
    sent.nearly.store(true, Relaxed);
    input.send(last).await
}

/// Delivers and listens. Bounded in time by the delivery's size, `timeout`, and the constants above.
pub(super) async fn listen<S: Sink>(
    channel: Channel,
    token: &Token,
    parcel: &Parcel,
    job: &Job,
    gate: &Gate,
    sink: &mut S,
) -> Heard {
    let Channel { input, mut output } = channel;
    let mut ears = Ears { out: Reader::new(token), err: Reader::new(token) };
    let mut heard = Heard::default();
    let mut phase = Phase::Delivering;
    let patience = patience(job.login.connect_timeout.0, (parcel.head.len() + parcel.script.len()) as u64);
    let mut deadline = Instant::now() + patience;
    let mut flush_at = Instant::now() + FLUSH_EVERY;
    let mut eof = false;
    let sent = Sent::default();
    let delivery = deliver(&input, parcel, &sent);
    tokio::pin!(delivery);
    let (mut sending, mut is_cut) = (true, false);
    loop {
        tokio::select! {
            biased;
            () = gate.ending(), if matches!(phase, Phase::Delivering | Phase::Running) => {
                heard.ending = Some(TaskState::Cancelled);
                if !sent.asked.load(Relaxed) { break }
                (phase, is_cut) = (Phase::Ending, !sent.nearly.load(Relaxed));
                deadline = Instant::now() + END_WITHIN;
                input.end().await;
            }
            handed_over = &mut delivery, if sending && !is_cut => {
                // Where it broke the host may still say why; the channel's end tells when it has.
                sending = false;
                heard.delivered = handed_over.is_ok();
            }
            // Before what the host says: one that never pauses must not talk its way past a deadline.
            () = sleep_until(deadline) => match phase {
                Phase::Ending => break,
                Phase::Trailing { .. } => {
                    heard.missing = Some(Missing::Held);
                    break;
                }
                Phase::Delivering | Phase::Running => {
                    deadline = Instant::now() + heard.is_late(patience);
                    (phase, is_cut) = (Phase::Ending, !sent.nearly.load(Relaxed));
                    input.end().await;
                }
            },
            () = sleep_until(flush_at) => {
                sink.flush().await;
                flush_at = Instant::now() + FLUSH_EVERY;
            }
            message = output.next() => match message {
                None => {
                    heard.missing = heard.status.is_some().then_some(Missing::Cut);
                    break;
                }
                Some(Message::Closed) => break,
                Some(Message::Data(stream, bytes)) => {
                    let had_started = heard.started;
                    let Some(printed) = ears.hear(stream, &bytes, sending, &mut heard) else { break };
                    sink.write(stream, printed).await;
                    if heard.started && !had_started {
                        if matches!(phase, Phase::Delivering) {
                            phase = Phase::Running;
                            deadline = Instant::now() + job.timeout.0;
                        } else if heard.given_up.is_some() {
                            // Too late: the end of our input, which it has, ends it.
                            heard.ending = Some(TaskState::TimedOut);
                            deadline = Instant::now() + END_WITHIN;
                        }
                    }
                    if let Phase::Trailing { limit } = phase {
                        deadline = limit.min(Instant::now() + TRAIL);
                    }
                }
                Some(Message::Refused) => {
                    heard.failure = Some(Refusal::Other("the host refuses to run commands".to_owned()));
                    break;
                }
                Some(Message::Eof) => {
                    eof = true;
                    if heard.status.is_some() { break }
                }
                // The first counts: a host that sends a second one is not to be believed more, nor waited for longer.
                Some(Message::ExitStatus(_) | Message::ExitSignal(_)) if heard.status.is_some() => {}
                Some(message @ (Message::ExitStatus(_) | Message::ExitSignal(_))) => {
                    heard.status = Some(match message {
                        Message::ExitSignal(signal) => Status::Signal(signal),
                        Message::ExitStatus(code) => Status::Code(code),
                        _ => continue,
                    });
                    if eof { break }
                    let now = Instant::now();
                    phase = Phase::Trailing { limit: now + TRAIL_AT_MOST };
                    deadline = now + TRAIL;
                }
            },
        }
    }
    heard.noise = ears.noise();
    input.close().await;
    heard
}
