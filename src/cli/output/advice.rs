//! What to do about a step that was not passed.

use crate::adapter::ssh::Stage;
use crate::domain::run::Target;

/// What to do about `step` of `target`, which failed because of `why`; none where the reason says it itself.
pub fn advice(step: Stage, why: &str, target: &Target) -> Option<String> {
    let (user, port) = (&target.user, target.port);
    Some(match step {
        // Its own words name the step.
        Stage::Jump => "`sshjob check -w` on the jump host shows how far one gets with it".to_owned(),
        Stage::Connect if target.address.is_none() => "name another kind of address with `--address`".to_owned(),
        Stage::Connect if why.contains("refused") => {
            format!("nothing listens on port {port} there: is sshd up, or is it another port (`-p`)?")
        }
        Stage::Connect if why.contains("no answer") || why.contains("timed out") || why.contains("unreachable") => {
            format!(
                "something drops it on the way: security group or firewall for port {port}, a stopped host, or an \
                 address that is not reached from here (`--address`, `-J`)"
            )
        }
        Stage::Connect if why.contains("lookup") || why.contains("name or service") => {
            "the name is not known to this machine's resolver".to_owned()
        }
        Stage::Handshake if why.contains("offers ecdsa-") => {
            "an ECDSA key is accepted once it is known: `sshjob trust import` of a known_hosts file that has it, or give \
             the host an Ed25519 key (`ssh-keygen -A`)"
                .to_owned()
        }
        Stage::Handshake if why.contains("no common") => {
            "the host offers nothing that is safe to use: update its SSH server".to_owned()
        }
        Stage::Handshake => {
            format!("is it an SSH server that listens on port {port}? One with too many connections drops new ones")
        }
        // The reason says what to do, as far as anybody knows.
        Stage::Connect | Stage::HostKey => return None,
        Stage::Authentication if why.contains("nobody is there to give it") => {
            format!(
                "its sshd must take a key alone from `{user}`: `AuthenticationMethods publickey` in a `Match` block"
            )
        }
        // The host says it itself.
        Stage::Authentication if why.contains("it says: ") => return None,
        Stage::Authentication => format!(
            "is `{user}` the right user (`-u`: ec2-user, ubuntu, admin …), and is the key (`-i`) in its \
             authorized_keys?"
        ),
        Stage::Channel | Stage::Shell => {
            format!("the login shell and start-up files of `{user}` must run a command that comes by SSH")
        }
        Stage::Sudo if !why.contains("wants a password") => return None,
        Stage::Sudo => format!("a sudo rule with NOPASSWD lets `{user}` do it without being asked"),
    })
}
