//! From the text of a configuration file to its sections.
//!
//! What we do not use we do not judge: a keyword of a later OpenSSH, or of another program, is passed over.

use super::words::{keyword, split};
use super::{Criterion, Item, Patterns, Proxy, Setting, SshConfig, What};
use crate::domain::diagnostic::{Diagnostic, Place, quoted};
use crate::domain::selector::{Host, is_user};

/// How deep files may include each other, as in ssh (`READCONF_MAX_DEPTH`).
pub const MAX_DEPTH: usize = 16;

/// The most lines of all files together.
const MAX_LINES: usize = 100_000;

/// Reads the files that an `Include` names: for each its name for people, and its text.
///
/// # Errors
/// Why one cannot be read.
pub type Include<'a> = dyn FnMut(&str) -> Result<Vec<(String, String)>, String> + 'a;

impl SshConfig {
    /// Reads the text of a configuration file. `file` is its name for people.
    ///
    /// # Errors
    /// The first thing that is wrong with it, or with a file that it includes.
    pub fn parse(file: &str, text: &str, include: &mut Include<'_>) -> Result<Self, Diagnostic> {
        let mut reader = Reader { include, passed_over: Vec::new(), lines_left: MAX_LINES };
        let items = reader.items(file, text, 0)?;
        Ok(Self { items, passed_over: reader.passed_over })
    }
}

struct Reader<'r, 'i> {
    include: &'r mut Include<'i>,
    passed_over: Vec<String>,
    lines_left: usize,
}

impl Reader<'_, '_> {
    fn items(&mut self, file: &str, text: &str, depth: usize) -> Result<Vec<Item>, Diagnostic> {
        let mut items = Vec::new();
        for (line, number) in text.split('\n').zip(1_u32..) {
            let place = Place { line: number, column: 1 };
            let wrong = |message: String| Diagnostic {
                file: Some(file.to_owned()),
                place: Some(place),
                message,
                hint: Some("mend it, or set SSHJOB_SSH_CONFIG to another file or to `none`".to_owned()),
            };
            self.lines_left = self.lines_left.checked_sub(1).ok_or_else(|| wrong("there are too many lines".into()))?;
            let Some((keyword, rest)) = keyword(line) else { continue };
            let keyword = keyword.to_ascii_lowercase();
            match keyword.as_str() {
                "include" => {
                    for pattern in &arguments(&keyword, rest).map_err(wrong)? {
                        items.push(Item::Included(self.included(pattern, depth).map_err(|error| match error {
                            Excluded::Here(message) => wrong(message),
                            Excluded::There(diagnostic) => diagnostic,
                        })?));
                    }
                }
                "match" => {
                    let criteria = criteria(rest).map_err(wrong)?;
                    if criteria.iter().any(|it| matches!(it.what, What::Never)) {
                        self.passed_over.push(format!("{file}:{number}: `Match {}` is never true here", clean(rest)));
                    }
                    items.push(Item::When(criteria));
                }
                _ => items.extend(item(&keyword, rest).map_err(wrong)?),
            }
        }
        Ok(items)
    }

    fn included(&mut self, pattern: &str, depth: usize) -> Result<Vec<Item>, Excluded> {
        if depth >= MAX_DEPTH {
            return Err(Excluded::Here(format!("files include each other more than {MAX_DEPTH} deep")));
        }
        let mut items = Vec::new();
        for (file, text) in (self.include)(pattern).map_err(Excluded::Here)? {
            // Each begins anew: a section does not reach into the next file.
            items.push(Item::Included(self.items(&file, &text, depth + 1).map_err(Excluded::There)?));
        }
        Ok(items)
    }
}

/// Why a file is not included.
enum Excluded {
    Here(String),
    There(Diagnostic),
}

fn arguments(keyword: &str, rest: &str) -> Result<Vec<String>, String> {
    let words = split(rest).map_err(|why| format!("`{keyword}`: {why}"))?;
    if words.first().is_none_or(String::is_empty) { Err(format!("`{keyword}` says nothing")) } else { Ok(words) }
}

/// The one argument that a keyword takes.
fn argument(keyword: &str, rest: &str) -> Result<String, String> {
    match arguments(keyword, rest)?.as_slice() {
        [one] => Ok(one.clone()),
        [_, more, ..] => Err(format!("`{keyword}` takes one argument; {} is one too many", quoted(more))),
        [] => Err(format!("`{keyword}` says nothing")),
    }
}

/// Reads a line that we use; `None` where we do not.
fn item(keyword: &str, rest: &str) -> Result<Option<Item>, String> {
    let setting = match keyword {
        "host" => {
            let patterns = arguments(keyword, rest)?;
            let what = What::Typed(Patterns::of(patterns.iter().map(String::as_str)));
            return Ok(Some(Item::When(vec![Criterion { negated: false, what }])));
        }
        "hostname" => Setting::HostName(host_name(argument(keyword, rest)?)?),
        "user" => {
            let user = argument(keyword, rest)?;
            if !is_user(&user) {
                return Err(format!("{} is not a user name", quoted(&user)));
            }
            Setting::User(user)
        }
        "port" => {
            let port = argument(keyword, rest)?;
            let number = port.parse().ok().filter(|port| *port > 0);
            Setting::Port(number.ok_or_else(|| format!("{} is not a port from 1 to 65535", quoted(&port)))?)
        }
        "identityfile" => Setting::IdentityFile(argument(keyword, rest)?),
        "proxyjump" => Setting::Proxy(jump(&argument(keyword, rest)?)?),
        // A line for a shell, not words.
        "proxycommand" if rest.eq_ignore_ascii_case("none") => Setting::Proxy(Proxy::NoCommand),
        "proxycommand" => Setting::Proxy(Proxy::Command),
        _ => return Ok(None),
    };
    Ok(Some(Item::Set(setting)))
}

/// Only `%h`, what was typed, and `%%` mean something in a `HostName`.
fn host_name(name: String) -> Result<String, String> {
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        if c == '%' && !matches!(chars.next(), Some('h' | '%')) {
            return Err(format!("{} holds a token that is neither `%h` nor `%%`", quoted(&name)));
        }
    }
    if name.starts_with('-') || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("{} is not a host", quoted(&name)));
    }
    Ok(name)
}

fn jump(list: &str) -> Result<Proxy, String> {
    if list.eq_ignore_ascii_case("none") {
        return Ok(Proxy::NoJump);
    }
    let hop = |text: &str| text.strip_prefix("ssh://").unwrap_or(text).parse::<Host>().map_err(|it| it.to_string());
    list.split(',').map(hop).collect::<Result<_, _>>().map(Proxy::Jump)
}

/// Reads what a `Match` line asks for.
fn criteria(rest: &str) -> Result<Vec<Criterion>, String> {
    let words = arguments("match", rest)?;
    let mut words = words.iter().flat_map(|word| match word.split_once('=') {
        Some((name, value)) if !value.is_empty() => vec![name, value],
        _ => vec![word.trim_end_matches('=')],
    });
    let mut criteria = Vec::new();
    while let Some(name) = words.next() {
        let (negated, name) = name.strip_prefix('!').map_or((false, name), |name| (true, name));
        let mut patterns = |lower: bool| {
            let list = words.next().ok_or_else(|| format!("`Match {name}` says nothing"))?;
            let list = if lower { list.to_ascii_lowercase() } else { list.to_owned() };
            Ok::<_, String>(Patterns::of(list.split(',')))
        };
        let what = match name.to_ascii_lowercase().as_str() {
            "all" => What::All,
            "final" => What::Final { asks: true },
            "canonical" => What::Final { asks: false },
            "host" => What::Host(patterns(true)?),
            "originalhost" => What::Typed(patterns(true)?),
            "user" => What::User(patterns(false)?),
            "localuser" => What::LocalUser(patterns(false)?),
            // These run a command, or ask for what there is not.
            "exec" | "localnetwork" | "tagged" | "command" | "version" | "sessiontype" => {
                patterns(false)?;
                What::Never
            }
            _ => return Err(format!("`Match` knows no {}", quoted(name))),
        };
        criteria.push(Criterion { negated, what });
    }
    Ok(criteria)
}

/// Without what could mean something to a terminal.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}
