//! Flags that choose hosts, the same for every command that needs some, and what they match.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::exit::{Exit, Fail};
use super::launch::notice;
use super::project::{Workspace, shown};
use super::ssh_config::SshConfig;
use crate::adapter::hosts::HostsFile;
use crate::domain::diagnostic::{is_slip, listed, nearest, quoted};
use crate::domain::hostrange;
use crate::domain::id::InstanceId;
use crate::domain::instance::{AddressKind, Instance, InstanceState};
use crate::domain::job::resolve::Overrides;
use crate::domain::job::settings::{Origin, Settings, Settled, Sourced};
use crate::domain::job::{Job, Targets, User, read};
use crate::domain::plan;
use crate::domain::project::InventorySource;
use crate::domain::quantity::Amount;
use crate::domain::run::Target;
use crate::domain::selector::{HOST_SCOPE, Host, Mention, Selector, TagFilter, is_meant};
use crate::port::{Inventory, InventoryError};

/// The most words of `-x` that are held against every host's name.
const MOST_SLIPS: usize = 50;

/// How many values of a tag are told.
const MOST_TOLD: usize = 20;

/// Which hosts.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Selection")]
pub struct Select {
    /// Hosts whose tag K has value V: `K=A,B` (either), `K=web*`, `K!=V`, or `K` alone; repeat to ask for more
    #[arg(short, long, value_name = "K=V[,V]")]
    pub tag: Vec<TagFilter>,
    /// Hosts by name: `web-1`, `node[1-5],db1`, `root@10.0.0.5:2222`. A plain name that is an id in the inventory file is
    /// that instance; any other needs no inventory, and for it `~/.ssh/config` counts where nothing else says how to log
    /// in (`SSHJOB_SSH_CONFIG`: another file, or `none`)
    #[arg(short = 'w', long, value_name = "HOST[,HOST]")]
    pub host: Vec<String>,
    /// Leave these out: ids, addresses or names, with `*`, `?` and ranges; or hosts as `-w` names them
    #[arg(short = 'x', long, value_name = "HOST[,HOST]")]
    pub exclude: Vec<String>,
    /// At most this many of the matches, or this share of them; always the same ones
    #[arg(short, long, value_name = "N|N%", value_parser = |text: &str| read::word(text, read::positive_amount))]
    pub limit: Option<Amount>,
    /// Where hosts are looked up: `ec2`, or an inventory file [default: the project's]
    #[arg(long, value_name = "ec2|FILE", env = "SSHJOB_INVENTORY")]
    pub inventory: Option<PathBuf>,
    /// Which address to connect to [default: private, else public]
    #[arg(long, value_name = "private|public|ipv6|dns", value_parser = address_kind)]
    pub address: Option<AddressKind>,
    /// Count it as success when nothing matches
    #[arg(long)]
    pub allow_empty: bool,
}

impl Select {
    /// Whether the flags say which hosts; an exclusion or a limit alone does not.
    pub fn names_hosts(&self) -> bool {
        !self.tag.is_empty() || !self.host.is_empty()
    }

    /// What the flags say over a job: the rest of `request` stays as it is.
    ///
    /// # Errors
    /// A host or a range that is none, or `-t` and `-w` together.
    pub fn add_to(&self, request: &mut Overrides) -> Result<(), Fail> {
        let selector = self.selector()?;
        request.tags = selector.tags;
        request.hosts = selector.hosts;
        request.exclude = selector.exclude;
        request.limit = selector.limit;
        request.settings = self.settings().over(std::mem::take(&mut request.settings));
        Ok(())
    }

    /// The targets that the flags name without a job, and the settings that count for them.
    ///
    /// # Errors
    /// As [`Select::add_to`], and where the flags name nobody: that never means everybody.
    pub fn targets(&self, workspace: &Workspace) -> Result<(Targets, Settled), Fail> {
        let selector = self.selector()?;
        if selector.is_empty() {
            return Err(Fail::usage("no hosts are selected; that never means all of them")
                .hint("say which, as `-t Environment=Dev` or `-w web-1`"));
        }
        let settings = self.settings().over(workspace.environment.clone()).over(workspace.project.settings.clone());
        let settled = settings.settle();
        // A host that is named is reached by that name.
        let address = settled.address.value.filter(|_| selector.hosts.is_empty());
        Ok((Targets { selector, regions: settled.regions.value.clone(), address }, settled))
    }

    fn selector(&self) -> Result<Selector, Fail> {
        if !self.tag.is_empty() && !self.host.is_empty() {
            return Err(Fail::usage("`--tag` and `--host` exclude each other: a host that is named has no tags")
                .hint("select by tags and leave hosts out with `-x`, or name every host with `-w`"));
        }
        Ok(Selector { tags: self.tag.clone(), hosts: self.hosts()?, exclude: self.exclusions()?, limit: self.limit })
    }

    /// The words of `-x`.
    fn exclusions(&self) -> Result<Vec<String>, Fail> {
        let mut words = Vec::new();
        for list in &self.exclude {
            words.extend(expand("--exclude", list)?);
        }
        Ok(words)
    }

    /// The hosts of `-w`, each once.
    fn hosts(&self) -> Result<Vec<Host>, Fail> {
        let refuse = |why: String| Fail::usage(format!("`--host`: {why}"));
        let (mut hosts, mut seen) = (Vec::new(), BTreeMap::<InstanceId, Option<String>>::new());
        for name in expand("--host", &self.host.join(","))? {
            let host: Host = name.parse().map_err(|error| refuse(format!("{error}")))?;
            let Some(id) = host.id() else { continue };
            match seen.get(&id) {
                None => {
                    seen.insert(id, host.user.clone());
                    hosts.push(host);
                }
                Some(user) if *user == host.user => {}
                Some(_) => return Err(refuse(format!("`{id}` is named twice, with different users"))),
            }
        }
        Ok(hosts)
    }

    fn settings(&self) -> Settings {
        Settings { address: self.address.map(|kind| Sourced::flag("--address", Some(kind))), ..Settings::default() }
    }

    /// Where instances are looked up: the flag, `SSHJOB_INVENTORY`, what the project file says, or EC2.
    fn source(&self, workspace: &Workspace) -> InventorySource {
        match (&self.inventory, &workspace.project.inventory) {
            (Some(word), _) if word.as_os_str() == "ec2" => InventorySource::Ec2,
            (Some(path), _) => InventorySource::File(path.clone()),
            (None, Some(source)) => match &source.value {
                InventorySource::File(path) => InventorySource::File(workspace.root.join(path)),
                InventorySource::Ec2 => InventorySource::Ec2,
            },
            (None, None) => InventorySource::Ec2,
        }
    }

    /// The instances that `targets`, of a job or of [`Select::targets`], matches in the inventory, sorted by id.
    ///
    /// Hosts that are named one by one need no inventory. `settled` says at which port hosts are where nobody else does.
    ///
    /// # Errors
    /// [`Exit::NothingMatched`] where there are none, unless `--allow-empty`; [`Exit::Unavailable`] or
    /// [`Exit::Usage`] where the inventory cannot answer.
    pub async fn find(
        &self,
        workspace: &Workspace,
        targets: &Targets,
        settled: &Settled,
    ) -> Result<Vec<Instance>, Fail> {
        let selector = &targets.selector;
        if !selector.hosts.is_empty() {
            let mut named = selector.instances_of_hosts();
            self.look_up(&mut named, workspace, settled).await?;
            let place = format!("the {} named", number(named.len(), "host"));
            let chosen = self.choose(selector, named.clone(), settled)?;
            return self.unless_empty(chosen, || {
                let fail = nothing_matched(selector, &place);
                match explain(selector, named) {
                    Some(why) => fail.hint(why),
                    None => fail,
                }
            });
        }
        let path = match self.source(workspace) {
            InventorySource::File(path) => path,
            InventorySource::Ec2 => {
                // Whom else the flags leave out is found out here, by the place where each host is reached.
                let everybody = Selector { exclude: Vec::new(), limit: None, ..selector.clone() };
                let all = workspace.aws.instances(&Targets { selector: everybody, ..targets.clone() }).await?;
                let chosen = self.choose(selector, all, settled)?;
                return self.unless_empty(chosen, || {
                    let place = match &*targets.regions {
                        [] => "the running instances of EC2".to_owned(),
                        regions => format!("the running instances of EC2 in {}", regions.join(", ")),
                    };
                    nothing_matched(selector, &place).hint(
                        "`--region` and `--profile` say where and as whom to look; only instances in the state `running` \
                         count",
                    )
                });
            }
        };
        let file = HostsFile::new(&path, shown_path(&path));
        let all = file.instances(&targets.regions).await?;
        let total = all.len();
        let chosen = self.choose(selector, all, settled)?;
        if !chosen.is_empty() || self.allow_empty {
            return Ok(chosen);
        }
        // Asked again only to say why, so that the ordinary case need not keep what it does not choose.
        let all = file.instances(&targets.regions).await?;
        let place = format!("the {} of `{}`", number(total, "instance"), file.shown());
        let fail = nothing_matched(selector, &place);
        Err(match explain(selector, all) {
            Some(why) => fail.hint(why),
            None => fail,
        })
    }

    /// Puts what the inventory file knows in the place of each of the `named` hosts of `-w` that has the id of one of its
    /// instances, and nothing more said of it.
    ///
    /// # Errors
    /// Where the file cannot be read: what has a name there would else be sought, and trusted, elsewhere.
    async fn look_up(&self, named: &mut [Instance], workspace: &Workspace, settled: &Settled) -> Result<(), Fail> {
        let is_plain = |instance: &Instance| instance.user.is_none() && instance.port.is_none();
        let InventorySource::File(path) = self.source(workspace) else { return Ok(()) };
        if self.host.is_empty() || !named.iter().any(is_plain) {
            return Ok(());
        }
        let found = HostsFile::new(&path, shown_path(&path)).instances(&[]).await?;
        let mut found: HashMap<InstanceId, Instance> =
            found.into_iter().map(|instance| (instance.id.clone(), instance)).collect();
        for host in named.iter_mut().filter(|host| is_plain(host)) {
            let Some(mut instance) = found.remove(&host.id) else { continue };
            instance.addresses = instance.addresses.only(settled.address.value);
            *host = instance;
        }
        Ok(())
    }

    /// What `selector` chooses of `all`: before it limits them, those are left out that an exclusion means by the place
    /// where they are in the end reached. Says which words of `-x` mean nobody.
    fn choose(&self, selector: &Selector, all: Vec<Instance>, settled: &Settled) -> Result<Vec<Instance>, Fail> {
        if selector.exclude.is_empty() {
            return Ok(selector.choose(all));
        }
        let config = if self.host.is_empty() { None } else { SshConfig::load()? };
        let mut exclusions: Vec<(&str, Mention, bool)> =
            selector.exclude.iter().map(|word| (word.as_str(), Mention::new(word), false)).collect();
        let typed = self.exclusions()?;
        // Who is left out already by something else is no slip; of very many words none is looked at.
        let is_elsewhere = |word: &&String| {
            let mention = Mention::new(word);
            typed.len() > MOST_SLIPS || all.iter().any(|instance| is_meant(instance, &mention))
        };
        let elsewhere: BTreeSet<&str> = typed.iter().filter(is_elsewhere).map(String::as_str).collect();
        let everybody = Selector { exclude: Vec::new(), limit: None, ..selector.clone() };
        let mut candidates = everybody.choose(all);
        let total = candidates.len();
        candidates.retain(|instance| {
            let place = match &config {
                Some(config) if is_bare(instance) => config.place(instance, settled),
                _ => instance
                    .address(None)
                    .map(|(address, _)| (address.to_owned(), instance.port.unwrap_or(settled.port.value))),
            };
            let mut is_out = false;
            for (_, mention, means) in &mut exclusions {
                let is_at = place.as_ref().is_some_and(|(address, port)| mention.is_at(address, *port));
                if is_at || is_meant(instance, mention) {
                    (*means, is_out) = (true, true);
                }
            }
            !is_out
        });
        // What a job leaves out in general may well be absent today; what was typed just now is a slip.
        let typed: BTreeSet<&str> = typed.iter().map(String::as_str).collect();
        let idle: Vec<&str> = exclusions.iter().filter(|(.., means)| !means).map(|(word, ..)| *word).collect();
        let idle: Vec<&str> = idle.into_iter().filter(|word| typed.contains(word)).collect();
        let slip = idle.iter().filter(|word| !elsewhere.contains(*word)).find_map(|word| {
            let names = candidates.iter().flat_map(|instance| [Some(instance.id.as_str()), instance.name()]);
            Some((*word, names.flatten().find(|name| is_slip(word, name))?))
        });
        if let Some((word, meant)) = slip {
            let why = format!("`-x {word}` excludes none of the {}", number(total, "host"));
            return Err(Fail::usage(why).hint(format!("did you mean {}? It is still among them", quoted(meant))));
        }
        if !idle.is_empty() && total > 0 {
            let words =
                describe(&Selector { exclude: idle.into_iter().map(str::to_owned).collect(), ..Selector::default() });
            notice(&format!("warning: {words} excludes none of the {}", number(total, "host")));
        }
        Ok(selector.choose(candidates))
    }

    /// Where tasks of `job` on `instances` connect to; hosts that are named one by one as `~/.ssh/config` says, where
    /// nothing more particular was `settled`.
    ///
    /// # Errors
    /// Where that file cannot be read, or asks for what is not supported.
    pub fn reach(&self, job: &Job, settled: &Settled, instances: Vec<Instance>) -> Result<Vec<Target>, Fail> {
        // Whoever types a user means it now; the inventory says whom one is to be in general.
        let is_typed = matches!(settled.user.origin, Origin::Flag(_) | Origin::Env(_));
        let config = if self.host.is_empty() { None } else { SshConfig::load()? };
        // One after the other: an instance is three times its target, and there may be many.
        let target = |instance: Instance| {
            let mut target = plan::target(job, &instance);
            match (&config, &job.login.user) {
                (Some(config), _) if is_bare(&instance) => config.apply(&mut target, &instance, settled)?,
                (_, User::Name(name)) if is_typed && !is_bare(&instance) => target.user.clone_from(name),
                _ => {}
            }
            Ok(target)
        };
        instances.into_iter().map(target).collect()
    }

    fn unless_empty(&self, chosen: Vec<Instance>, fail: impl FnOnce() -> Fail) -> Result<Vec<Instance>, Fail> {
        if chosen.is_empty() && !self.allow_empty { Err(fail()) } else { Ok(chosen) }
    }
}

/// Where the jobs of a project find their instances when nobody types flags.
#[derive(Debug, Clone)]
pub struct ProjectInventory {
    workspace: Arc<Workspace>,
    select: Select,
}

impl ProjectInventory {
    /// The inventory of the project; `named` comes before what the project file says.
    pub fn new(workspace: Arc<Workspace>, named: Option<PathBuf>) -> Self {
        Self { workspace, select: Select { inventory: named, allow_empty: true, ..Select::default() } }
    }

    /// The inventory file, where it is one.
    pub fn file(&self) -> Option<HostsFile> {
        match self.select.source(&self.workspace) {
            InventorySource::File(path) => Some(HostsFile::new(&path, shown_path(&path))),
            InventorySource::Ec2 => None,
        }
    }
}

impl Inventory for ProjectInventory {
    async fn select(&self, job: &Job) -> Result<Vec<Instance>, InventoryError> {
        // All that counts of the settings here is the port that an exclusion may name.
        let port = Some(Sourced::flag("--port", job.login.port));
        let settled = Settings { port, ..Settings::default() }.settle();
        let found = self.select.find(&self.workspace, &job.targets, &settled).await;
        found.map_err(|fail| InventoryError::Invalid(fail.text()))
    }
}

impl From<InventoryError> for Fail {
    fn from(error: InventoryError) -> Self {
        match error {
            InventoryError::Unavailable { .. } => Self::new(Exit::Unavailable, error.to_string()),
            InventoryError::Invalid(found) => Self::usage(found),
        }
    }
}

/// Whether all that is known of an instance is what `-w` says.
fn is_bare(instance: &Instance) -> bool {
    (instance.account.as_str(), instance.region.as_str()) == (HOST_SCOPE, HOST_SCOPE)
}

fn expand(flag: &str, list: &str) -> Result<Vec<String>, Fail> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    hostrange::expand(list).map_err(|error| Fail::usage(format!("`{flag}`: {error}")))
}

fn address_kind(text: &str) -> Result<AddressKind, String> {
    match text {
        "private" => Ok(AddressKind::Private),
        "public" => Ok(AddressKind::Public),
        "ipv6" => Ok(AddressKind::Ipv6),
        "dns" => Ok(AddressKind::Dns),
        _ => Err("`private`, `public`, `ipv6` or `dns`".to_owned()),
    }
}

/// A file of the working directory as it was typed, any other as people best find it.
fn shown_path(path: &Path) -> String {
    if path.is_absolute() { shown(path) } else { path.display().to_string() }
}

fn number(count: usize, what: &str) -> String {
    super::output::words::number(count, what)
}

fn nothing_matched(selector: &Selector, place: &str) -> Fail {
    Fail::new(Exit::NothingMatched, format!("{} matches none of {place}", describe(selector)))
}

/// The selector as flags would say it.
fn describe(selector: &Selector) -> String {
    let mut text = String::from("`");
    let tags = selector.tags.iter().map(|filter| format!("-t {filter}"));
    let hosts: Vec<String> = selector.hosts.iter().map(Host::to_string).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let exclude: Vec<&str> = selector.exclude.iter().map(String::as_str).collect();
    let lists = [("-w", hosts), ("-x", exclude)].into_iter().filter(|(_, names)| !names.is_empty());
    let mut words: Vec<String> =
        tags.chain(lists.map(|(flag, names)| format!("{flag} {}", hostrange::fold(&names)))).collect();
    words.extend(selector.limit.map(|limit| format!("-l {limit}")));
    // Cut, for a list of a thousand hosts tells nobody anything.
    for (count, c) in words.join(" ").chars().filter(|c| !c.is_control()).enumerate() {
        if count == 200 {
            text.push('…');
            break;
        }
        text.push(c);
    }
    text + "`"
}

/// Which values the tag of `filter` has, where none of them is one that it wants.
fn unknown_value(filter: &TagFilter, all: &[Instance]) -> Option<String> {
    let [value] = filter.any_of.as_slice() else { return None };
    let wanted = TagFilter { none_of: Vec::new(), ..filter.clone() };
    let wanted = Selector { tags: vec![wanted], ..Selector::default() };
    let awake = all.iter().map(|instance| Instance { state: InstanceState::Running, ..instance.clone() }).collect();
    if !wanted.choose(awake).is_empty() {
        return None;
    }
    let values = all.iter().filter_map(|instance| instance.tags.get(&filter.key));
    let values: BTreeSet<&str> = values.map(String::as_str).collect();
    let near = nearest(value, values.iter().copied()).filter(|_| !value.contains(['*', '?']));
    let more = values.len().saturating_sub(MOST_TOLD);
    let mut why = format!("no instance has that value of `{}`", filter.key);
    // Writing to a String cannot fail.
    let _ = match near {
        Some(near) => write!(why, "; did you mean {}?", quoted(near)),
        None => write!(why, "; its values are {}", listed(values.iter().copied().take(MOST_TOLD))),
    };
    if near.is_none() && more > 0 {
        let _ = write!(why, " and {more} more");
    }
    Some(why)
}

/// Why nothing of `all` matched, where one cause stands out.
fn explain(selector: &Selector, all: Vec<Instance>) -> Option<String> {
    if all.is_empty() {
        return None;
    }
    let keys: BTreeSet<&str> = all.iter().flat_map(|instance| instance.tags.keys().map(String::as_str)).collect();
    let wanted = selector.tags.iter().filter(|filter| !filter.any_of.is_empty() || filter.none_of.is_empty());
    for filter in wanted {
        if keys.contains(filter.key.as_str()) {
            continue;
        }
        let mut why = format!("no instance has the tag `{}`", filter.key);
        // Writing to a String cannot fail.
        let _ = match nearest(&filter.key, keys.iter().copied()) {
            Some(near) => write!(why, "; did you mean {}?", quoted(near)),
            None if keys.is_empty() => Ok(()),
            None => write!(why, "; tags are {}", listed(keys.iter().copied().take(20))),
        };
        return Some(why);
    }
    if let Some(why) = selector.tags.iter().find_map(|filter| unknown_value(filter, &all)) {
        return Some(why);
    }
    let asleep: Vec<Instance> = all.into_iter().filter(|instance| instance.state != InstanceState::Running).collect();
    let awake = asleep.into_iter().map(|instance| Instance { state: InstanceState::Running, ..instance }).collect();
    match selector.choose(awake).len() {
        0 => None,
        count => Some(format!(
            "{} would match and {} not running",
            number(count, "instance"),
            if count == 1 { "is" } else { "are" }
        )),
    }
}
