//! From what every layer says to a complete job.

use std::collections::BTreeMap;

use super::file::JobFile;
use super::settings::{Origin, Settings, Settled};
use super::{HostKeyPolicy, Job, Login, Retries, Rollout, Schedule, Targets};
use crate::domain::diagnostic::Diagnostic;
use crate::domain::quantity::Amount;
use crate::domain::selector::{Host, Selector, TagFilter};

/// What a request says over a job file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Settings given by flags.
    pub settings: Settings,
    /// Filters on tags; these and `hosts` together replace what the job selects.
    pub tags: Vec<TagFilter>,
    /// Hosts named one by one; these and `tags` together replace what the job selects.
    pub hosts: Vec<Host>,
    /// Exclusions, added to the job's: what a job leaves out stays out.
    pub exclude: Vec<String>,
    /// A limit instead of the job's.
    pub limit: Option<Amount>,
    /// Variables, added to the job's or in place of them.
    pub env: BTreeMap<String, String>,
    /// Arguments instead of the job's.
    pub args: Option<Vec<String>>,
}

/// What is said elsewhere than in a job file, the strongest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layers {
    /// What the request says.
    pub request: Overrides,
    /// What the environment says.
    pub environment: Settings,
    /// What the project file says.
    pub project: Settings,
}

impl JobFile {
    /// When the job fires by itself; `settled` is what its settings come to.
    pub fn schedule(&self, settled: &Settled) -> Schedule {
        Schedule {
            expressions: self.schedule.iter().map(|expression| expression.value.clone()).collect(),
            timezone: settled.timezone.value.clone(),
            jitter: settled.jitter.value,
            paused: self.paused,
            blackout: self.blackout.clone(),
            on: self.on.clone(),
            overlap: settled.overlap.value,
            missed: settled.missed.value,
            deadline: settled.deadline.value,
        }
    }
}

impl Layers {
    /// What the settings of a job come to: flag, environment, job file, project file, default.
    pub fn settle(&self, job: &Settings) -> Settled {
        let layers = [&self.environment, job, &self.project];
        layers.into_iter().fold(self.request.settings.clone(), |upper, lower| upper.over(lower.clone())).settle()
    }

    /// Completes `job`.
    ///
    /// # Errors
    /// What the layers cannot mean together: nothing selected, a variable that is also a secret, a retry that cannot be.
    pub fn resolve(self, job: JobFile) -> Result<Job, Vec<Diagnostic>> {
        let settled = self.settle(&job.settings);
        let schedule = job.schedule(&settled);
        let request = self.request;
        let mut wrong: Vec<_> = job.check_retries(&settled).err().into_iter().collect();
        let (tags, hosts) = if request.tags.is_empty() && request.hosts.is_empty() {
            (job.targets.tags, job.targets.hosts)
        } else {
            (request.tags, request.hosts)
        };
        if !tags.is_empty() && !hosts.is_empty() {
            wrong.push(Diagnostic::of_request("tags and hosts exclude each other").hint("give `--tag` or `--host`"));
        }
        if tags.is_empty() && hosts.is_empty() {
            let nothing = Diagnostic::of_request("nothing is selected");
            wrong.push(nothing.hint("say where to run, as `-t Environment=Dev` or `-w web-1`; it is never all hosts"));
        }
        let mut env = job.env;
        env.extend(request.env);
        for name in env.keys().filter(|name| job.secrets.contains_key(*name)) {
            let both = Diagnostic::of_request(format!("`{name}` is a secret of job `{}`", job.name));
            wrong.push(both.hint("choose another name for the variable"));
        }
        wrong.extend(unasked_authorities(&settled));
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let mut exclude = job.targets.exclude;
        exclude.extend(request.exclude);
        // A host that is named is reached by that name.
        let address = settled.address.value.filter(|_| hosts.is_empty());
        let selector = Selector { tags, hosts, exclude, limit: request.limit.or(job.targets.limit) };
        Ok(Job {
            name: job.name,
            description: job.description,
            schedule,
            targets: Targets { selector, regions: settled.regions.value, address },
            source: job.source.value,
            args: request.args.unwrap_or(job.args),
            env,
            secrets: job.secrets,
            login: Login {
                user: settled.user.value,
                port: settled.port.value,
                keys: settled.key.value,
                jump: settled.jump.value,
                connect_timeout: settled.connect_timeout.value,
                host_key: settled.host_key.value,
                host_ca: settled.host_ca.value,
            },
            sudo: settled.sudo.value,
            mode: settled.mode.value,
            timeout: settled.timeout.value,
            ok_exit_codes: settled.ok_exit_codes.value,
            max_output: settled.max_output.value,
            retries: Retries {
                attempts: settled.attempts.value,
                delay: settled.retry_delay.value,
                on: settled.retry_on.value,
            },
            rollout: Rollout {
                max_concurrency: settled.max_concurrency.value,
                max_errors: settled.max_errors.value,
                canary: settled.canary.value,
            },
            hosts_per_worker: settled.hosts_per_worker.value,
            notify: settled.notify.value.map(Box::new),
        })
    }
}

/// Authorities that are named where nothing asks them: whoever named them took the host keys for vouched for.
fn unasked_authorities(settled: &Settled) -> Option<Diagnostic> {
    let (policy, authorities) = (&settled.host_key, &settled.host_ca);
    let is_meant = matches!(authorities.origin, Origin::Flag(_)) || policy.origin == Origin::Default;
    (policy.value != HostKeyPolicy::Ca && !authorities.value.is_empty() && is_meant).then(|| {
        let message = "`host_ca` names authorities, and `host_key` is not `ca`: nobody would ask them";
        authorities.diagnostic(message, Some("set `host_key: ca`, or `--host-key ca`"))
    })
}
