//! What sudo says where it does not start what it is asked to.

use crate::domain::job::Sudo;

/// The exit status of a shell that finds no program of that name (POSIX, 2.8.2).
const NOT_FOUND: u32 = 127;

/// Phrases of sudo and sudo-rs, in English: who speaks another language is quoted.
const WANTS_PASSWORD: [&str; 4] = [
    "a password is required",
    "interactive authentication is required",
    "a terminal is required to ",
    "no tty present and no askpass program specified",
];

/// Says why sudo, asked to become `whom`, ended with status `code` and these last words before it started anything.
pub fn explain(whom: &Sudo, code: u32, words: &str) -> String {
    let whom = whom.user().unwrap_or_default();
    let says = |phrase: &str| words.contains(phrase);
    if WANTS_PASSWORD.into_iter().any(says) {
        return format!(
            "sudo wants a password to become `{whom}`, which nobody is there to give: a sudoers rule with `NOPASSWD` \
             does without"
        );
    }
    if says("you must have a tty") {
        return "sudo wants a terminal, and there is none: `!requiretty` in sudoers does without".to_owned();
    }
    if says("unknown user") {
        return format!("sudo knows no user `{whom}` on this host");
    }
    // It quotes the whole of our command line.
    if says("is not allowed to execute") || says("sshjob_head") {
        return format!("sudo has no rule that lets this user run `/bin/sh` as `{whom}`");
    }
    // The C shell says it with status 1.
    if code == NOT_FOUND || says("sudo: Command not found") {
        return format!("there is no `sudo`, which is to become `{whom}`, on the path of this user");
    }
    match words {
        "" => format!("sudo ended with status {code} and said nothing"),
        words => {
            // Start-up files may have had their say before.
            let own = words.find("sudo: ").and_then(|at| words.get(at..)).unwrap_or(words);
            format!("sudo ended with status {code}: {}", own.strip_prefix("sudo: ").unwrap_or(own))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_sudo_are_explained_or_quoted() {
        let cases = [
            (1, "sudo: a password is required"),
            (1, "sudo: interactive authentication is required"),
            (1, "sudo: unable to resolve host web-1: Name or service not known sudo: a password is required"),
            (1, "sudo: sorry, you must have a tty to run sudo"),
            (1, "Sorry, user ann is not allowed to execute '/bin/sh -c sshjob_head=$(dd bs=$1 …' as app on web-1."),
            (
                1,
                "Leider darf der Benutzer ann »/bin/sh -c sshjob_head=$(dd bs=$1 …« als app auf web-1 nicht ausführen.",
            ),
            (127, "bash: line 1: exec: sudo: not found"),
            (1, "sudo: Command not found."),
            (1, "hello from .bashrc sudo: unknown user app sudo: error initializing audit plugin sudoers_audit"),
            (1, "hello from .bashrc sudo: /etc/sudo.conf is owned by uid 65534, should be 0"),
            (1, "sudo: Ein Passwort ist notwendig"),
            (126, "bash: /usr/bin/sudo: Permission denied"),
            (1, ""),
        ];
        let told = cases.map(|(code, words)| explain(&Sudo::User("app".to_owned()), code, words));
        insta::assert_snapshot!(told.join("\n"), @r"
        sudo wants a password to become `app`, which nobody is there to give: a sudoers rule with `NOPASSWD` does without
        sudo wants a password to become `app`, which nobody is there to give: a sudoers rule with `NOPASSWD` does without
        sudo wants a password to become `app`, which nobody is there to give: a sudoers rule with `NOPASSWD` does without
        sudo wants a terminal, and there is none: `!requiretty` in sudoers does without
        sudo has no rule that lets this user run `/bin/sh` as `app`
        sudo has no rule that lets this user run `/bin/sh` as `app`
        there is no `sudo`, which is to become `app`, on the path of this user
        there is no `sudo`, which is to become `app`, on the path of this user
        sudo knows no user `app` on this host
        sudo ended with status 1: /etc/sudo.conf is owned by uid 65534, should be 0
        sudo ended with status 1: Ein Passwort ist notwendig
        sudo ended with status 126: Permission denied
        sudo ended with status 1 and said nothing
        ");
    }
}
