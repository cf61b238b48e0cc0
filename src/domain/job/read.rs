//! Readers of the values of job files and project files: each shorthand, each bound.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::tz::TimeZoneDatabase;

use super::{Hop, Mode, SecretRef, Sudo, User};
use crate::domain::authority::Authority;
use crate::domain::decode::At;
use crate::domain::delivery::is_user_to_become;
use crate::domain::diagnostic::{Diagnostic, Faults, Place, nearest, quoted};
use crate::domain::hostrange;
use crate::domain::location::Location;
use crate::domain::quantity::{Amount, ByteSize, Span};
use crate::domain::selector::{Host, TagFilter};
use crate::domain::yaml::{Node, Value};

/// What to do about a selector that selects nothing.
pub(super) const NEVER_ALL: &str = "add `tags` or `hosts`; an empty selector never means all";

/// How long a detached task's directory is kept on the host when nothing is said.
const DEFAULT_KEEP: Span = Span(Duration::from_hours(7 * 24));

/// Reads a word of a command line as a file's value: what a file may not say, a flag may not either.
///
/// # Errors
/// What is wrong with it.
pub fn word<T>(text: &str, read: impl FnOnce(&At<'_>) -> Option<T>) -> Result<T, String> {
    let value = Value::Scalar { text: text.to_owned(), plain: false };
    let (node, faults) = (Node { place: Place::START, value }, Faults::of(""));
    let value = read(&At::root(&node, &faults));
    let told = |found: Diagnostic| {
        found.hint.map_or_else(|| found.message.clone(), |hint| format!("{}; {hint}", found.message))
    };
    faults.settle("", value).map_err(|found| found.into_iter().map(told).collect::<Vec<_>>().join("; "))
}

/// Reads a duration of more than nothing.
pub fn duration(at: &At<'_>) -> Option<Span> {
    let span = pause(at)?;
    if span.0.is_zero() {
        return at.fault("must be longer than 0s");
    }
    Some(span)
}

/// Reads a duration that may be nothing.
pub(super) fn pause(at: &At<'_>) -> Option<Span> {
    at.parse("a duration such as `90s` or `1h30m`")
}

/// Reads a number of bytes.
pub(super) fn size(at: &At<'_>) -> Option<ByteSize> {
    at.parse("a size such as `64KiB` or `1GiB`")
}

/// Reads a number of hosts or a share of them.
pub(super) fn amount(at: &At<'_>) -> Option<Amount> {
    at.parse("a number or a share such as `10%`")
}

/// Reads a number of hosts or a share of them that is more than nothing.
pub fn positive_amount(at: &At<'_>) -> Option<Amount> {
    match amount(at)? {
        Amount::Count(0) | Amount::Percent(0) => at.fault("must be at least 1 or 1%, found 0"),
        amount => Some(amount),
    }
}

/// Reads the exit statuses that count as success.
pub(super) fn exit_codes(at: &At<'_>) -> Option<BTreeSet<u8>> {
    let codes = at.list("a list of exit statuses such as `[0, 2]`", |at| at.integer(0..=u8::MAX))?;
    if codes.is_empty() {
        return at.fault_with_hint("an empty list would let nothing succeed", "write `[0]`, or leave the key out");
    }
    Some(codes.into_iter().collect())
}

/// Reads a login name: what a password file can hold, and no option of another program.
pub fn login(at: &At<'_>) -> Option<String> {
    let name = at.text("a user name")?;
    let allowed = |c: char| c.is_alphanumeric() || "_.-@+\\$".contains(c);
    if name.is_empty() || name.len() > 256 || name.starts_with('-') || !name.chars().all(allowed) {
        return at.fault(format_args!(
            "{} is not a user name: letters, digits and `_.-@+\\$`, not starting with `-`",
            quoted(name)
        ));
    }
    Some(name.to_owned())
}

/// Reads a login user: a name, or `{ tag: …, default: … }`.
pub(super) fn user(at: &At<'_>) -> Option<User> {
    if matches!(at.value(), Value::Scalar { .. }) {
        return login(at).map(User::Name);
    }
    let mut fields = at.fields("a user name or `{ tag: LoginUser, default: ec2-user }`")?;
    let tag = fields.need("tag", "name the tag that tells the user", tag_key);
    let default = fields.need("default", "name the user of instances without the tag", login);
    fields.finish();
    Some(User::Tag { tag: tag?.value, default: default?.value })
}

fn tag_key(at: &At<'_>) -> Option<String> {
    let key = at.text("the key of a tag")?;
    // EC2 User Guide, tag restrictions: a key has at most 128 characters.
    if key.is_empty() || key.chars().count() > 128 {
        return at.fault("a tag's key has 1 to 128 characters");
    }
    Some(key.to_owned())
}

/// Reads where private keys are, in the order in which they are tried.
pub(super) fn keys(at: &At<'_>) -> Option<Vec<Location>> {
    let keys: Vec<Location> = at.one_or_many(|at| at.convert("a key: a file, `s3://bucket/path` or `agent`"))?;
    some_of(at, keys, "key")
}

/// Reads the hosts to go through, in order.
pub(super) fn jump(at: &At<'_>) -> Option<Vec<Hop>> {
    let hops: Vec<Hop> = at.one_or_many(hop)?;
    some_of(at, hops, "jump host")
}

/// Reads whose host certificates are believed.
pub(super) fn authorities(at: &At<'_>) -> Option<Vec<Authority>> {
    let what = "an authority: a public key as `ssh-ed25519 AAAA…`, or a file of such";
    let authorities: Vec<Authority> = at.one_or_many(|at| at.convert(what))?;
    some_of(at, authorities, "authority")
}

/// Reads a jump host: a word, or `{ host: …, key: … }` where it has keys of its own.
fn hop(at: &At<'_>) -> Option<Hop> {
    let what = "a jump host: `[user@]host[:port]` or `{ host: bastion@10.0.0.5, key: keys/bastion.pem }`";
    if matches!(at.value(), Value::Scalar { .. }) {
        return at.convert(what);
    }
    let mut fields = at.fields(what)?;
    let host = fields.need("host", "write `[user@]host[:port]`", |at| at.convert::<Hop>("`[user@]host[:port]`"));
    let keys = fields.get("key", keys);
    fields.finish();
    Some(Hop { keys: keys.map(|keys| keys.value).unwrap_or_default(), ..host?.value })
}

/// Reads AWS region names.
pub(super) fn regions(at: &At<'_>) -> Option<Vec<String>> {
    let regions = at.one_or_many(|at| {
        let region = at.text("a region such as `us-east-1`")?;
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !region.contains('-') || region.len() > 32 || !region.bytes().all(allowed) {
            return at.fault(format_args!("{} is not a region such as `us-east-1`", quoted(region)));
        }
        Some(region.to_owned())
    })?;
    some_of(at, regions, "region")
}

pub(super) fn some_of<T>(at: &At<'_>, items: Vec<T>, what: &str) -> Option<Vec<T>> {
    if matches!(at.value(), Value::List(items) if items.is_empty()) {
        return at.fault_with_hint("the list is empty", format!("name a {what}, or leave the key out"));
    }
    Some(items)
}

/// Reads whom to become: `false`, `true` or a user.
pub fn sudo(at: &At<'_>) -> Option<Sudo> {
    match at.value() {
        Value::Scalar { text, plain: true } if matches!(text.as_str(), "true" | "True" | "TRUE") => Some(Sudo::Root),
        Value::Scalar { text, plain: true } if matches!(text.as_str(), "false" | "False" | "FALSE") => Some(Sudo::No),
        Value::Scalar { .. } => {
            let user = at.text("a user name")?;
            if !is_user_to_become(user) {
                let wanted = "letters, digits and `-_.@+`, at most 64, not starting with `-`";
                return at.fault(format_args!("{} is not a user to become: {wanted}", quoted(user)));
            }
            Some(Sudo::User(user.to_owned()))
        }
        _ => at.wanted("`true`, `false` or a user name"),
    }
}

/// Reads whether the process ends with the channel: a word, or `{ detached: { unit: …, keep: … } }`.
pub(super) fn mode(at: &At<'_>) -> Option<Mode> {
    let what = "`attached`, `detached` or `{ detached: { unit: true, keep: 7d } }`";
    if matches!(at.value(), Value::Scalar { .. }) {
        return match at.text(what)? {
            "attached" => Some(Mode::Attached),
            "detached" => Some(Mode::Detached { unit: false, keep: DEFAULT_KEEP }),
            word => match nearest(word, ["attached", "detached"]) {
                Some(near) => at.fault_with_hint(
                    format_args!("{what} is wanted, found {}", quoted(word)),
                    format!("did you mean `{near}`?"),
                ),
                None => at.wanted(what),
            },
        };
    }
    let mut fields = at.fields(what)?;
    let detached = fields.need("detached", "write `attached` where nothing is to be set", |at| {
        let mut fields = at.fields("a map such as `{ unit: true, keep: 7d }`")?;
        let unit = fields.get("unit", At::flag).is_some_and(|unit| unit.value);
        let keep = fields.get("keep", duration).map_or(DEFAULT_KEEP, |keep| keep.value);
        fields.finish();
        Some(Mode::Detached { unit, keep })
    });
    fields.finish();
    detached.map(|detached| detached.value)
}

/// Reads the name of a time zone.
pub(super) fn timezone(at: &At<'_>) -> Option<String> {
    let name = at.text("a time zone such as `Europe/Berlin`")?;
    let zones = TimeZoneDatabase::bundled();
    if zones.get(name).is_ok() {
        return Some(name.to_owned());
    }
    let known: Vec<String> = zones.available().map(|zone| zone.to_string()).collect();
    let message = format!("{} is not a time zone of the IANA database", quoted(name));
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => at.fault_with_hint(message, format!("did you mean `{near}`?")),
        None => at.fault_with_hint(message, "name a region and a city, as `Europe/Berlin`, or `UTC`"),
    }
}

/// Reads tag filters: a value, a list of values (or), `"web*"` (wildcard), `"!Prod"` (not), `""` (the tag is present).
pub(super) fn tags(at: &At<'_>) -> Option<Vec<TagFilter>> {
    let entries = at.entries("a map of tags such as `{ Environment: Dev }`")?;
    if entries.is_empty() {
        return at.fault_with_hint("nothing is selected", NEVER_ALL);
    }
    let mut filters = Vec::new();
    for (key, _, at) in entries {
        if key.is_empty() || key.chars().count() > 128 {
            at.fault::<()>("a tag's key has 1 to 128 characters");
            continue;
        }
        let read_value = |at: &At<'_>| {
            let value = at.word("a value, a list of values or `\"\"` (any value)")?.to_owned();
            // EC2 User Guide, tag restrictions: a value has at most 256 characters.
            if value.chars().count() > 257 {
                return at.fault("a tag's value has at most 256 characters");
            }
            match TagFilter::from_values(key, std::slice::from_ref(&value)) {
                Ok(_) => Some(value),
                Err(_) if value == "!" => at.fault_with_hint("`!` names no value", "write `\"!Prod\"`"),
                Err(error) => at.fault(format_args!("{}: {}", quoted(&value), error.why)),
            }
        };
        if matches!(at.value(), Value::List(items) if items.is_empty()) {
            at.fault_with_hint::<()>("the list is empty", "write `\"\"` for any value");
        }
        let values = at.one_or_many(read_value).unwrap_or_default();
        let is_any = |value: &String| value.is_empty();
        if values.iter().any(is_any) && values.iter().any(|value| !is_any(value) && !value.starts_with('!')) {
            at.fault_with_hint::<()>(
                "`\"\"` means any value, so the other values mean nothing",
                "remove one of the two",
            );
        }
        // Without a value there was an error, and it is noted.
        filters.extend(TagFilter::from_values(key, &values));
    }
    Some(filters)
}

/// Reads hosts named one by one, or in series: `node[1-5]`.
pub(super) fn hosts(at: &At<'_>) -> Option<Vec<Host>> {
    if matches!(at.value(), Value::List(items) if items.is_empty()) {
        return at.fault_with_hint("nothing is selected", NEVER_ALL);
    }
    // Each item is bounded; all together must be too.
    let mut room = Some(hostrange::MAX_NAMES);
    let hosts: Vec<Vec<Host>> = at.one_or_many(|at| {
        let left = room?;
        let names = at.accept(hostrange::expand(at.text("a host such as `web-1` or `node[1-5]`")?))?;
        room = left.checked_sub(names.len() as u64);
        if room.is_none() {
            return at.fault_with_hint(
                format_args!("more than {} hosts are named", hostrange::MAX_NAMES),
                "name fewer, or select by tags",
            );
        }
        names.iter().map(|name| at.accept(name.parse())).collect()
    })?;
    Some(hosts.into_iter().flatten().collect())
}

/// Reads arguments: any text that a process can be given.
pub(super) fn args(at: &At<'_>) -> Option<Vec<String>> {
    at.list("a list of arguments such as `[\"--verbose\"]`", |at| process_text(at, "an argument"))
}

/// Reads variables: names that a shell can read, values that a process can be given.
pub(super) fn env(at: &At<'_>) -> Option<BTreeMap<String, String>> {
    let what = "a map such as `{ GREETING: hello }`";
    variables(at, what, |at| process_text(at, "a value, or `\"\"` for an empty one,"))
}

/// Reads where secrets are.
pub(super) fn secrets(at: &At<'_>) -> Option<BTreeMap<String, SecretRef>> {
    let what = "a map such as `{ DB_PASS: \"env:DB_PASS\" }`";
    variables(at, what, |at| at.convert("a reference: `env:NAME`, `file:PATH` or `ssm:/path`"))
}

fn process_text(at: &At<'_>, what: &str) -> Option<String> {
    let text = at.word(what)?;
    if text.contains('\0') {
        return at.fault("no process can be given a NUL character");
    }
    Some(text.to_owned())
}

fn variables<T>(at: &At<'_>, what: &str, read: impl Fn(&At<'_>) -> Option<T>) -> Option<BTreeMap<String, T>> {
    let mut variables = BTreeMap::new();
    for (name, place, value) in at.entries(what)? {
        match variable_name(name) {
            Ok(()) => {}
            Err((message, hint)) => at.fault_at(place, message, hint),
        }
        if let Some(value) = read(&value) {
            variables.insert(name.to_owned(), value);
        }
    }
    Some(variables)
}

/// Checks the name of a variable that a script is given.
///
/// # Errors
/// What is wrong with it, and what to do.
pub fn variable_name(name: &str) -> Result<(), (String, &'static str)> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !first || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') || name.len() > 255 {
        let message = format!("{} is not the name of a variable", quoted(name));
        return Err((message, "use letters, digits and `_`, not a digit first"));
    }
    if name.starts_with("SSHJOB_") {
        let message = format!("{} is a name that sshjob keeps for itself", quoted(name));
        return Err((message, "choose a name that does not start with `SSHJOB_`"));
    }
    Ok(())
}
