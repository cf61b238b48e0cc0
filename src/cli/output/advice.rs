//! What to do about a step that was not passed.

use crate::adapter::ssh::Stage;
use crate::domain::run::Target;
use crate::domain::task::TaskState;
use crate::engine::check::Failure;

/// What to do about `failure` on `target`; none where its reason says it itself.
pub fn advice(failure: &Failure, target: &Target) -> Option<String> {
    let (user, port) = (&target.user, target.port);
    let says = |phrase: &str| failure.why.contains(phrase);
    Some(match (failure.step, failure.state) {
        _ if target.address.is_none() => "name another kind of address with `--address`".to_owned(),
        // It says which key, and where that stands.
        (_, TaskState::HostKeyRejected | TaskState::Skipped) => return None,
        (Stage::Jump | Stage::Connect, TaskState::AuthFailed) if says("tells no user") => {
            "correct the tag, or name the user: `-u`".to_owned()
        }
        // Its own words name the step.
        (Stage::Jump, _) => "`sshjob check -w` on the jump host shows how far one gets with it".to_owned(),
        (Stage::Connect, _) if says("refused") => {
            format!("nothing listens on port {port} there: is sshd up, or is it another port (`-p`)?")
        }
        (Stage::Connect, _) if ["no answer", "timed out", "unreachable", "no route"].into_iter().any(says) => format!(
            "something drops it on the way: security group or firewall for port {port}, a stopped host, or an address \
             that is not reached from here (`--address`, `-J`)"
        ),
        (Stage::Connect, _) if says("lookup") || says("name or service") => {
            "the name is not known to this machine's resolver".to_owned()
        }
        (Stage::Handshake, _) if says("offers ecdsa-") => {
            "an ECDSA key is accepted once it is known: `sshjob trust import` of a known_hosts file that has it, or give \
             the host an Ed25519 key (`ssh-keygen -A`)"
                .to_owned()
        }
        (Stage::Handshake, _) if says("no common") => {
            "the host offers nothing that is safe to use: update its SSH server".to_owned()
        }
        (Stage::Handshake, _) if says("MaxStartups") => return None,
        (Stage::Handshake, _) => {
            format!("is it an SSH server that listens on port {port}? One with too many connections drops new ones")
        }
        (Stage::Authentication, _) if says("nobody is there to give it") || says("wants another one") => {
            format!(
                "its sshd must take a key alone from `{user}`: `AuthenticationMethods publickey` in a `Match` block"
            )
        }
        (Stage::Authentication, _) if says("name the right one") => return None,
        // A banner may say anything beside that.
        (Stage::Authentication, TaskState::AuthFailed) if says("the host refuses") => format!(
            "is `{user}` the right user (`-u`: ec2-user, ubuntu, admin …), and is the key (`-i`) in its \
             authorized_keys?"
        ),
        (Stage::Authentication, _) if says("it says: ") => return None,
        (Stage::Authentication, _) if says("SSH agent") => {
            "`ssh-add -l` shows what the agent holds; a key may want to be touched or confirmed, or name a file (`-i`)"
                .to_owned()
        }
        (Stage::Authentication, TaskState::Unreachable) => {
            format!("the log of its sshd tells more: does PAM, a directory service or the home of `{user}` hang there?")
        }
        (Stage::Authentication, _) => {
            format!("the log of its sshd tells more: are the account and the shell of `{user}` in order?")
        }
        (Stage::Channel | Stage::Shell, _) if says("login ") => {
            format!("the login shell and start-up files of `{user}` must run a command that comes by SSH")
        }
        (Stage::Connect | Stage::HostKey | Stage::Channel | Stage::Shell | Stage::Sudo, _) => return None,
    })
}

/// The same text, with the commands in it such that they mean this store: `program` may name one.
pub fn as_called(text: &str, program: &str) -> String {
    let words = ["trust", "check"].map(|command| (format!("`sshjob {command} "), format!("`{program} {command} ")));
    words.iter().fold(text.to_owned(), |text, (plain, called)| text.replace(plain, called))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advised(step: Stage, state: TaskState, why: &str) -> String {
        let target = Target {
            instance: "web-1".parse().unwrap(),
            account: "a".to_owned(),
            region: "r".to_owned(),
            name: None,
            address: Some("10.0.0.1".to_owned()),
            address_kind: None,
            port: 22,
            user: "ann".to_owned(),
            jump: None,
            keys: Vec::new(),
        };
        let failure = Failure { step, state, why: why.to_owned() };
        advice(&failure, &target).unwrap_or_else(|| "-".to_owned())
    }

    #[test]
    fn advice_is_for_what_went_wrong_and_not_said_twice() {
        use TaskState::{AuthFailed, Failed, HostKeyRejected, Lost, Skipped, Unreachable};
        let cases = [
            (Stage::Jump, AuthFailed, "the tag `Login` tells no user: `a b`"),
            (Stage::Connect, Unreachable, "connect: no route to host"),
            (Stage::Connect, Unreachable, "connect: the jump host cannot reach it: it forbids forwarding"),
            (Stage::Handshake, Skipped, "the pin of `web-1` cannot be read"),
            (Stage::Handshake, Unreachable, "SSH handshake: closed before its version: is its `MaxStartups` reached?"),
            (Stage::HostKey, HostKeyRejected, "the host key is RSA with 1024 bits; at least 2048 are accepted"),
            (Stage::Authentication, AuthFailed, "user `ann`: the host refuses the key SHA256:x; it says: Hello."),
            (Stage::Authentication, AuthFailed, "user `ann`: closed; it says: Your account has expired."),
            (
                Stage::Authentication,
                AuthFailed,
                "user `ann`: the host accepts the key X, and wants another one as well",
            ),
            (Stage::Authentication, AuthFailed, "user `ann`: after 6 keys of 8; name the right one with `-i` or `key`"),
            (Stage::Authentication, AuthFailed, "user `ann`: the SSH agent refuses to sign (key SHA256:x)"),
            (Stage::Authentication, Unreachable, "authentication: no answer within 5s"),
            (Stage::Shell, Unreachable, "opening a channel: does `MaxSessions` of its sshd allow one?"),
            (Stage::Shell, Lost, "connection: no word of the script within 15s: does a login file hang?"),
            (Stage::Sudo, Failed, "nothing was started: sudo wants a password to become `root`"),
        ];
        let told = cases.map(|(step, state, why)| advised(step, state, why));
        insta::assert_snapshot!(told.join("\n"), @"
        correct the tag, or name the user: `-u`
        something drops it on the way: security group or firewall for port 22, a stopped host, or an address that is not reached from here (`--address`, `-J`)
        -
        -
        -
        -
        is `ann` the right user (`-u`: ec2-user, ubuntu, admin …), and is the key (`-i`) in its authorized_keys?
        -
        its sshd must take a key alone from `ann`: `AuthenticationMethods publickey` in a `Match` block
        -
        `ssh-add -l` shows what the agent holds; a key may want to be touched or confirmed, or name a file (`-i`)
        the log of its sshd tells more: does PAM, a directory service or the home of `ann` hang there?
        -
        the login shell and start-up files of `ann` must run a command that comes by SSH
        -
        ");
    }
}
