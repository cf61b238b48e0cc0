//! What a configuration file of OpenSSH's client (`~/.ssh/config`) says of a host.
//!
//! [`read`] makes sections of text; here they are asked. As in ssh, of every setting the first value that is found
//! counts, and key files add up.
//!
//! Source: `ssh_config(5)`, and `readconf.c` of OpenSSH where that is silent.

mod read;
mod words;

use wildmatch::WildMatch;

pub use read::{Include, MAX_DEPTH};

use super::selector::Host;

/// A configuration file, with all that it includes.
#[derive(Debug, Clone, Default)]
pub struct SshConfig {
    items: Vec<Item>,
    /// What is in it that is never true here, as `Match exec`; each with its place, for people.
    pub passed_over: Vec<String>,
}

/// A line, or what it includes.
#[derive(Debug, Clone)]
enum Item {
    /// What follows counts where this is true.
    When(Vec<Criterion>),
    Set(Setting),
    /// Counts where the line that includes it does.
    Included(Vec<Item>),
}

#[derive(Debug, Clone)]
enum Setting {
    HostName(String),
    User(String),
    Port(u16),
    IdentityFile(String),
    Proxy(Proxy),
}

/// How a host is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proxy {
    /// Directly, by `ProxyJump none`; a `ProxyCommand` may still follow.
    NoJump,
    /// Directly, by `ProxyCommand none`.
    NoCommand,
    /// Through these hosts, in order.
    Jump(Vec<Host>),
    /// By a command of this machine.
    Command,
}

/// Something that must be so; all criteria of a section must.
#[derive(Debug, Clone)]
struct Criterion {
    negated: bool,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    All,
    /// The host as it was typed, by the patterns of a `Host` line.
    Typed(Patterns),
    /// The host as its `HostName` has it so far.
    Host(Patterns),
    User(Patterns),
    LocalUser(Patterns),
    /// The second of two passes; `final` asks for it, `canonical` does not.
    Final {
        asks: bool,
    },
    /// What is never true here.
    Never,
}

/// Patterns of which one must match, and none that is negated may.
#[derive(Debug, Clone)]
struct Patterns(Vec<(bool, WildMatch)>);

impl Patterns {
    fn of<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let pattern = |text: &'a str| match text.strip_prefix('!') {
            Some(text) => (true, WildMatch::new(text)),
            None => (false, WildMatch::new(text)),
        };
        Self(patterns.into_iter().map(pattern).collect())
    }

    fn matches(&self, text: &str) -> bool {
        let mut matching = self.0.iter().filter(|(_, pattern)| pattern.matches(text)).peekable();
        matching.peek().is_some() && matching.all(|(negated, _)| !negated)
    }
}

/// What is known of a host before its settings are.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The host as it was typed.
    pub host: &'a str,
    /// The login user, where one was named.
    pub user: Option<&'a str>,
    /// Who asks.
    pub local_user: &'a str,
}

/// What the file says of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostSettings {
    /// Where it really is.
    pub host_name: Option<String>,
    /// The login user.
    pub user: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// Key files in the order in which they are tried, as they are written.
    pub identity_files: Vec<String>,
    /// How it is reached.
    pub proxy: Option<Proxy>,
}

/// Puts what `token` says in the place of each `%` and the letter after it; `%%` is a percent sign.
///
/// # Errors
/// The letter that it says nothing of.
pub fn expand(text: &str, token: impl Fn(char) -> Option<String>) -> Result<String, char> {
    let (mut expanded, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        match (c, c == '%') {
            (c, false) => expanded.push(c),
            _ => match chars.next() {
                Some('%') => expanded.push('%'),
                letter => expanded.push_str(&letter.and_then(&token).ok_or(letter.unwrap_or('%'))?),
            },
        }
    }
    Ok(expanded)
}

impl SshConfig {
    /// What it says of the host that is `asked` for.
    pub fn of(&self, asked: &Asked<'_>) -> HostSettings {
        let mut found = HostSettings::default();
        collect(&self.items, asked, false, &mut found);
        if has_final(&self.items) {
            // Where the host is is settled by then.
            found.host_name.get_or_insert_with(|| asked.host.to_owned());
            collect(&self.items, asked, true, &mut found);
        }
        found
    }
}

fn has_final(items: &[Item]) -> bool {
    items.iter().any(|item| match item {
        Item::When(criteria) => criteria.iter().any(|criterion| matches!(criterion.what, What::Final { asks: true })),
        Item::Included(items) => has_final(items),
        Item::Set(_) => false,
    })
}

/// Only reached where what includes `items` counts.
fn collect(items: &[Item], asked: &Asked<'_>, last_pass: bool, found: &mut HostSettings) {
    let mut counts = true;
    for item in items {
        match item {
            Item::When(criteria) => counts = criteria.iter().all(|it| it.is_met(asked, last_pass, found)),
            Item::Included(items) if counts => collect(items, asked, last_pass, found),
            Item::Set(setting) if counts => found.add(setting, asked),
            Item::Included(_) | Item::Set(_) => {}
        }
    }
}

impl Criterion {
    fn is_met(&self, asked: &Asked<'_>, last_pass: bool, found: &HostSettings) -> bool {
        let holds = match &self.what {
            What::Never => return false,
            What::All => true,
            What::Final { .. } => last_pass,
            What::Typed(patterns) => patterns.matches(asked.host),
            What::Host(patterns) => patterns.matches(found.host_name.as_deref().unwrap_or(asked.host)),
            What::User(patterns) => patterns.matches(asked.user.or(found.user.as_deref()).unwrap_or(asked.local_user)),
            What::LocalUser(patterns) => patterns.matches(asked.local_user),
        };
        holds != self.negated
    }
}

impl HostSettings {
    fn add(&mut self, setting: &Setting, asked: &Asked<'_>) {
        match setting {
            Setting::HostName(name) => {
                let host = |token| (token == 'h').then(|| asked.host.to_owned());
                // The reader lets no other token in.
                self.host_name.get_or_insert_with(|| expand(name, host).unwrap_or_else(|_| name.clone()));
            }
            Setting::User(user) => _ = self.user.get_or_insert_with(|| user.clone()),
            Setting::Port(port) => _ = self.port.get_or_insert(*port),
            Setting::IdentityFile(file) if !self.identity_files.contains(file) => {
                self.identity_files.push(file.clone());
            }
            Setting::IdentityFile(_) => {}
            Setting::Proxy(proxy) => match (&self.proxy, proxy) {
                (None, _) | (Some(Proxy::NoJump), Proxy::NoCommand | Proxy::Command) => {
                    self.proxy = Some(proxy.clone());
                }
                _ => {}
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_are_expanded_once() {
        let host = |letter| (letter == 'h').then(|| "%h%%".to_owned());
        assert_eq!(expand("a%%h-%h", host), Ok("a%h-%h%%".to_owned()));
        assert_eq!(expand("%x", host), Err('x'));
        assert_eq!(expand("100%", host), Err('%'));
    }

    #[test]
    fn files_that_include_each_other_end() {
        for inner in ["Include a", "Include a b\nInclude a b\n"] {
            let mut include = |_: &str| Ok(vec![("inner".to_owned(), inner.to_owned()); 2]);
            assert!(SshConfig::parse("config", "Include a", &mut include).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            text in "\\PC{0,100}|((Host|Match|Port|User|ProxyJump|Include|HostName|IdentityFile)[ =]?[a-z!*?,\"'\\\\%#= ]{0,20}\r?\n){0,6}"
        ) {
            let mut include = |_: &str| Ok(Vec::new());
            if let Ok(config) = SshConfig::parse("config", &text, &mut include) {
                config.of(&Asked { host: "a", user: None, local_user: "me" });
            }
        }
    }
}
