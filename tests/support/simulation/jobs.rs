//! The jobs of a simulated world, and what each scheduler makes of their files.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use sshjob::domain::job::file::JobFile;
use sshjob::domain::job::resolve::Layers;
use sshjob::domain::job::{Job, Overlap};
use sshjob::domain::schedule::Calendar;
use sshjob::engine::fire::Scheduled;

use super::State;
use super::rng::Rng;

/// The settings that a job of the simulation is made of.
static KINDS: LazyLock<Vec<Job>> = LazyLock::new(|| {
    let mut rng = Rng::new(1);
    let mut pick = |from: &[&'static str]| from[rng.below(from.len())];
    let kinds = (0..100).map(|_| {
        let text = format!(
            "targets: {{ tags: {{ Group: {} }} }}\nrun: x\nschedule: '{}'\ntimezone: {}\noverlap: {}\nmissed: {}\n\
             deadline: {}\ntimeout: 3m\nmode: {}\nretries: {{ attempts: {}, delay: 5s, on: [unreachable, failed] }}\n\
             rollout: {{ max_concurrency: {}, canary: {}{} }}\nhosts_per_worker: {}\n{}{}{}{}",
            pick(&["'0'", "'1'", "'2'", "'3'", "'0'", "'1'", "'2'", "['1', '2']", "['0', '1', '2', '3']"]),
            pick(&["* * * * *", "*/2 * * * *", "*/3 * * * *", "rate(2 minutes)", "rate(4 minutes)", "0-59/5 * * * *"]),
            pick(&["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
            pick(&["skip", "queue", "replace", "allow"]),
            pick(&["skip", "latest", "all"]),
            pick(&["1m", "3m", "10m"]),
            pick(&["attached", "attached", "detached"]),
            pick(&["1", "2", "3"]),
            pick(&["3", "10", "25%", "100%"]),
            pick(&["0", "0", "1"]),
            pick(&["", "", ", max_errors: 1", ", max_errors: 20%"]),
            pick(&["3", "10", "50"]),
            pick(&["", "", "", "paused: true\n"]),
            pick(&["", "", "jitter: 90s\n", "jitter: 5m\n"]),
            // One is soon in each epoch, in one zone or another; most are of another time.
            pick(&["", "", BLACKOUT]),
            pick(&["", "notify: { WEBHOOK }\n", "notify: { WEBHOOK, ping: 'env:B' }\n"]),
        );
        // What runs detached is tried again only where it never started.
        let is_detached = text.contains("mode: detached");
        let text = if is_detached { text.replace("[unreachable, failed]", "[unreachable]") } else { text };
        let text = text.replace("WEBHOOK", "on: [failure, success, missed], webhook: 'env:A'");
        Layers::default().resolve(JobFile::parse(&text, "sim.yaml", "sim").unwrap()).unwrap()
    });
    kinds.collect()
});

/// Just after each of the epochs, on some clock.
const BLACKOUT: &str = "blackout: ['2026-03-29T00:59/2026-03-29T01:00', '2026-03-29T03:00/2026-03-29T03:01', \
                        '2026-10-25T00:59/2026-10-25T01:00', '2026-10-25T02:59/2026-10-25T03:00', \
                        '2026-10-03T15:29/2026-10-03T15:30', '2026-10-03T17:30/2026-10-03T17:31', \
                        '2026-11-22T12:01/2026-11-22T12:03', '2026-11-22T13:02/2026-11-22T13:03']\n";

/// A job, and its file before it was edited: other policies for the same times.
pub(crate) struct Edited {
    pub(crate) now: Scheduled,
    pub(crate) before: Scheduled,
}

impl Edited {
    fn new(n: usize, rng: &mut Rng) -> Self {
        let kind = rng.below(KINDS.len());
        let mut job = KINDS[kind].clone();
        job.name = format!("job-{n}").parse().unwrap();
        let calendar = calendar(kind, n, &job);
        let mut before = job.clone();
        let other = &KINDS[rng.below(KINDS.len())].schedule;
        before.schedule.overlap = other.overlap;
        before.schedule.missed = other.missed;
        before.schedule.deadline = other.deadline;
        before.schedule.paused = other.paused;
        Self { now: Scheduled { job, calendar: calendar.clone() }, before: Scheduled { job: before, calendar } }
    }

    /// Either reading of the job.
    pub(crate) fn either(&self, is: impl Fn(&Job) -> bool) -> bool {
        is(&self.now.job) || is(&self.before.job)
    }

    /// Whether runs of it may be under way at the same time.
    pub(crate) fn may_overlap(&self) -> bool {
        self.either(|job| job.schedule.overlap == Overlap::Allow)
    }
}

/// The calendar of the job number `n` of this kind; the same in every world, and read once.
fn calendar(kind: usize, n: usize, job: &Job) -> Calendar {
    static READ: Mutex<BTreeMap<(usize, usize), Calendar>> = Mutex::new(BTreeMap::new());
    let new = || Calendar::new(&job.name, &job.schedule).unwrap();
    READ.lock().unwrap().entry((kind, n)).or_insert_with(new).clone()
}

pub(crate) fn jobs(count: usize, rng: &mut Rng) -> Vec<Edited> {
    (0..count).map(|n| Edited::new(n, rng)).collect()
}

/// What a scheduler that starts now makes of the files of `jobs`.
pub(crate) fn read(jobs: &[Edited], state: &mut State) -> Vec<Scheduled> {
    let mut known = Vec::new();
    for job in jobs {
        if state.strikes(100, || "a job file was broken".to_owned()) {
            continue;
        }
        let is_old = state.strikes(100, || "a job file was older".to_owned());
        known.push(if is_old { job.before.clone() } else { job.now.clone() });
    }
    known
}
