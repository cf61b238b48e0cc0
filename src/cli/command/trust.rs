//! `sshjob trust`: Manage pinned host keys.

use std::path::PathBuf;

use clap::Subcommand;
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::context::{Format, Global};
use crate::cli::exit::{Exit, Fail};
use crate::cli::known_hosts;
use crate::cli::launch::program;
use crate::cli::output::console::Console;
use crate::cli::output::json;
use crate::cli::output::lines::clean;
use crate::cli::output::table::{Cell, table};
use crate::cli::output::words::{instant, number};
use crate::cli::store;
use crate::domain::diagnostic::nearest;
use crate::domain::document::Schema;
use crate::domain::id::InstanceId;
use crate::domain::known_hosts::{KnownHosts, PublicKey};
use crate::domain::selector::{HOST_SCOPE, Host};
use crate::engine::clock::Clock;
use crate::engine::pins::{self, Imported, Place};
use crate::engine::records::Runs;
use crate::port::Store;

/// Manage pinned host keys
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the pinned host keys
    List,
    /// Forget pinned host keys: the next key of these instances is trusted on first use again
    Forget(Forget),
    /// Pin the keys of a `known_hosts` file or of `ssh-keyscan`, for which you vouch
    ///
    /// Without --instance each line belongs to the host that it names, as `-w` names it. An inventory's instances have
    /// ids instead of names: their keys are imported one instance at a time.
    Import(Import),
}

/// Which pins to forget.
#[derive(Debug, clap::Args)]
struct Forget {
    /// Instances as `trust list` names them
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "INSTANCE")]
    instances: Vec<String>,
    /// All of them
    #[arg(long)]
    all: bool,
    /// Only those of this account
    #[arg(long)]
    account: Option<String>,
    /// Only those of this region
    #[arg(long)]
    region: Option<String>,
}

/// What to import.
#[derive(Debug, clap::Args)]
struct Import {
    /// The file; `-` is standard input
    file: PathBuf,
    /// The instance that all of its keys belong to
    #[arg(long, value_name = "ID")]
    instance: Option<InstanceId>,
    /// The instance's account [default: local, as in an inventory file]
    #[arg(long, requires = "instance", default_value = "local", hide_default_value = true)]
    account: String,
    /// The instance's region [default: local, as in an inventory file]
    #[arg(long, requires = "instance", default_value = "local", hide_default_value = true)]
    region: String,
}

/// Does it.
///
/// # Errors
/// What kept it from being done.
pub async fn run(args: Args, global: Global) -> Result<Exit, Fail> {
    let runs = store::open_here(&global).await?;
    let mut console = Console::new(global.color);
    match args.what {
        What::List => list(&runs, &global, &mut console).await?,
        What::Forget(which) => forget(&which, &runs, &global, &mut console).await?,
        What::Import(what) => {
            let file = known_hosts::load(&what.file)?;
            import(&what, &file, &runs, &global, &mut console, Clock::System.now()).await?;
        }
    }
    Ok(if console.has_failed() { Exit::Unavailable } else { Exit::Success })
}

/// The pins as machines read them.
#[derive(Debug, Serialize)]
struct PinsDocument {
    schema: Schema,
    pins: Vec<PinRow>,
}

#[derive(Debug, Serialize)]
struct PinRow {
    instance: InstanceId,
    account: String,
    region: String,
    address: String,
    first_seen: Timestamp,
    origin: String,
    keys: Vec<KeyRow>,
}

#[derive(Debug, Serialize)]
struct KeyRow {
    key: String,
    fingerprint: String,
}

async fn list<S: Store>(runs: &Runs<S>, global: &Global, console: &mut Console) -> Result<(), Fail> {
    let mut pins = Vec::new();
    for place in pins::places(runs).await? {
        match pins::read(runs, &place).await {
            Ok(None) => {}
            Ok(Some((pin, keys))) => {
                let key = |key: &PublicKey| KeyRow { key: key.as_str().into(), fingerprint: key.fingerprint().into() };
                pins.push(PinRow {
                    instance: place.instance,
                    account: place.account,
                    region: place.region,
                    address: pin.address,
                    first_seen: pin.first_seen,
                    origin: pin.origin,
                    keys: keys.iter().map(key).collect(),
                });
            }
            // One that is damaged must not hide the others; the host itself stays rejected.
            Err(error @ crate::port::StoreError::Damaged { .. }) => {
                console.err(format!("warning: {}\n", clean(&error.to_string())));
                let program = program(global).unwrap_or_else(|| "sshjob".to_owned());
                console.err(format!("hint: `{program} trust forget {}` removes it\n", place.instance));
            }
            Err(error) => return Err(error.into()),
        }
    }
    if global.output == Format::Text {
        let text = text(&pins, console.out_color());
        console.out(text);
        if pins.is_empty() && !global.quiet {
            console.err("no host key is pinned\n");
        }
    } else {
        json::line(console, &PinsDocument { schema: Schema::V1, pins });
    }
    Ok(())
}

fn text(pins: &[PinRow], color: bool) -> String {
    let mut rows: Vec<[Cell<'_>; 7]> = Vec::new();
    for pin in pins {
        // What is the same for most is left out: an account and region say nothing of a host of `-w`.
        let scope = |text: &str| if pin.account == HOST_SCOPE { String::new() } else { text.to_owned() };
        for key in &pin.keys {
            rows.push([
                pin.instance.as_str().into(),
                scope(&pin.account).into(),
                scope(&pin.region).into(),
                clean(&pin.address).into(),
                key.fingerprint.as_str().into(),
                clean(&pin.origin).into(),
                instant(pin.first_seen).into(),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    table(["INSTANCE", "ACCOUNT", "REGION", "ADDRESS", "FINGERPRINT", "ORIGIN", "SINCE"], &rows, color)
}

async fn forget<S: Store>(which: &Forget, runs: &Runs<S>, global: &Global, console: &mut Console) -> Result<(), Fail> {
    let mut all = pins::places(runs).await?;
    all.retain(|place| {
        which.account.as_ref().is_none_or(|account| *account == place.account)
            && which.region.as_ref().is_none_or(|region| *region == place.region)
    });
    let chosen = if which.all { all } else { choose(&which.instances, &all)? };
    for place in &chosen {
        pins::forget(runs, place).await?;
    }
    if !global.quiet {
        console.err(format!("forgot the keys of {}\n", number(chosen.len(), "instance")));
    }
    Ok(())
}

/// Finds the pins that are meant; nothing is forgotten unless every name is one.
fn choose(names: &[String], all: &[Place]) -> Result<Vec<Place>, Fail> {
    let mut chosen: Vec<Place> = Vec::new();
    for name in names {
        // As `-w` writes it, `web1:22` is the same host as `web1`.
        let host = name.parse::<Host>().ok().map(|host| Host { port: host.port.filter(|port| *port != 22), ..host });
        let host = host.and_then(|host| host.id());
        let is_meant = |place: &&Place| {
            place.instance.as_str() == name
                || (place.account == HOST_SCOPE && host.as_ref().is_some_and(|host| *host == place.instance))
        };
        let mut meant = all.iter().filter(is_meant);
        match (meant.next(), meant.next()) {
            (Some(one), None) => {
                if !chosen.contains(one) {
                    chosen.push(one.clone());
                }
            }
            (Some(first), Some(second)) => {
                let scope = |place: &Place| format!("`--account {} --region {}`", place.account, place.region);
                return Err(Fail::usage(format!("`{}` is pinned in several places", clean(name))).hint(format!(
                    "say which is meant: {} or {}",
                    scope(first),
                    scope(second)
                )));
            }
            (None, _) => {
                let fail = Fail::new(Exit::NothingMatched, format!("no host key is pinned for `{}`", clean(name)));
                let near = nearest(name, all.iter().map(|place| place.instance.as_str()));
                return Err(match near {
                    Some(near) => fail.hint(format!("`{near}` is the most similar; `sshjob trust list` lists all")),
                    None => fail.hint("`sshjob trust list` lists all"),
                });
            }
        }
    }
    Ok(chosen)
}

async fn import<S: Store>(
    what: &Import,
    file: &KnownHosts,
    runs: &Runs<S>,
    global: &Global,
    console: &mut Console,
    now: Timestamp,
) -> Result<(), Fail> {
    let name = what.file.display();
    let mut wanted: Vec<(Place, String, Vec<PublicKey>)> = Vec::new();
    if let Some(instance) = &what.instance {
        let keys = file.of_one_host().map_err(|hosts| {
            let some: Vec<String> = hosts.iter().take(5).map(|host| format!("`{}`", clean(host))).collect();
            Fail::usage(format!("`{name}` has keys of several hosts: {}", some.join(", ")))
                .hint(format!("keep the lines of `{instance}` alone"))
        })?;
        if !keys.is_empty() {
            let address = file.by_host().hosts.into_keys().next().unwrap_or_else(|| instance.to_string());
            wanted.push((Place::new(&what.account, &what.region, instance.clone()), address, keys));
        }
    } else {
        let by_host = file.by_host();
        for passed_over in &by_host.passed_over {
            console.err(format!("warning: `{name}`: {}; passed over\n", clean(&passed_over.to_string())));
        }
        for (id, (host, keys)) in by_host.hosts {
            let instance = id.parse().map_err(|error| Fail::usage(format!("{error}")))?;
            wanted.push((Place::new(HOST_SCOPE, HOST_SCOPE, instance), host.to_string(), keys));
        }
    }
    if wanted.is_empty() {
        return Err(Fail::new(Exit::NothingMatched, format!("`{name}` holds no host key that can be imported")));
    }
    let mut count = 0;
    for (place, address, keys) in &wanted {
        let imported = pins::import(runs, place, address, keys, now).await?;
        count += keys.len();
        if let Imported::Replaced(old) = imported {
            let old: Vec<String> = old.iter().map(ToString::to_string).collect();
            let instance = &place.instance;
            console
                .err(format!("warning: {instance} had another key on first use, now distrusted: {}\n", old.join(", ")));
        }
    }
    if !global.quiet {
        console.err(format!("pinned {} of {}\n", number(count, "key"), number(wanted.len(), "host")));
    }
    Ok(())
}
