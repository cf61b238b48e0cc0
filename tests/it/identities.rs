//! What proves who we are: agents, certificates, several keys, and what is said where none of them does.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sshjob::domain::quantity::{Amount, Span};
use sshjob::domain::task::TaskState;

use crate::support::agent::{self, Agent, Odd};
use crate::support::sshd::{self, Spec, Sshd};
use crate::support::world::{World, said};

/// A folder of keys, and a world whose project names none.
struct Keys {
    world: World,
}

impl Keys {
    fn new() -> Self {
        let world = World::new(0);
        std::fs::write(world.path().join("sshjob.yaml"), format!("user: {}\n", sshd::user())).unwrap();
        std::fs::create_dir(world.path().join(".ssh")).unwrap();
        Self { world }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path().join(name)
    }

    /// Runs `line` in the folder by a shell; `-q` and an empty passphrase are for the caller to say.
    fn make(&self, line: &str) {
        let output = Command::new("sh").args(["-ec", line]).current_dir(self.world.path()).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Makes a key of this kind without a passphrase, and returns where it is.
    fn key(&self, kind: &str, name: &str) -> PathBuf {
        self.make(&format!("ssh-keygen -q -t {kind} -N '' -f {name}"));
        self.path(name)
    }

    fn public(&self, name: &str) -> russh::keys::PublicKey {
        let text = std::fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap();
        russh::keys::PublicKey::from_openssh(&text).unwrap()
    }

    /// A host that lets in who has one of these keys.
    fn host(&self, names: &[&str], lines: &[&str]) -> Sshd {
        let accepted = names.iter().map(|name| self.public(name)).collect();
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        Sshd::start(Spec { accepted, lines, ..Spec::accepting(&self.public("host-filler")) })
    }

    /// Runs `true` on `host` with more `words`, asking the agent at `socket`.
    fn run(&self, host: &Sshd, socket: Option<&Path>, words: &[&str]) -> Output {
        let at = host.address().to_string();
        let mut command = self.world.command(&[&["run", "-v", "-w", &at], words, &["--", "true"]].concat());
        command.envs(socket.map(|socket| ("SSH_AUTH_SOCK", socket)));
        command.output().unwrap()
    }

    /// The same, which succeeds.
    fn works(&self, host: &Sshd, socket: Option<&Path>, words: &[&str]) {
        let output = self.run(host, socket, words);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}\n{}", said(&output), host.log());
    }

    /// The same, which fails with `code`; returns all that was said.
    fn fails(&self, code: i32, host: &Sshd, socket: Option<&Path>, words: &[&str]) -> String {
        let output = self.run(host, socket, words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", said(&output));
        said(&output)
    }
}

/// Keys, with one that no host is told of.
fn keys() -> Keys {
    let keys = Keys::new();
    keys.key("ed25519", "host-filler");
    keys
}

fn tries(host: &Sshd) -> usize {
    host.log().matches("Failed publickey").count() + host.log().matches("Accepted publickey").count()
}

#[test]
fn agent_signs_with_keys_of_every_kind() {
    let (keys, agent) = (keys(), Agent::start());
    for (kind, name) in [("ed25519", "ed"), ("ecdsa -b 384", "ec"), ("rsa -b 2048", "rsa")] {
        agent.add(&["-q", "-D"]);
        agent.hold(&keys.key(kind, name));
        let host = keys.host(&[name], &[]);
        keys.works(&host, Some(&agent.socket()), &["-i", "agent"]);
        assert!(!host.log().contains("ssh-rsa "), "a signature with SHA-1: {}", host.log());
    }
}

#[test]
fn keys_of_nobody_are_the_agents_and_the_usual_files() {
    let (keys, agent) = (keys(), Agent::start());
    agent.hold(&keys.key("ed25519", "held"));
    keys.key("ed25519", ".ssh/id_ed25519");
    let [held, filed] = ["held", ".ssh/id_ed25519"].map(|name| keys.host(&[name], &[]));
    keys.works(&held, Some(&agent.socket()), &[]);
    keys.works(&filed, Some(&agent.socket()), &[]);
    // OpenSSH's order: what the agent holds, then what is in files alone.
    assert_eq!(filed.log().matches("Failed publickey").count(), 1, "{}", filed.log());
    // One that is gone is no reason to fail.
    keys.works(&filed, Some(&keys.path("gone")), &[]);
    // Nor is a file that nobody is there to unlock.
    keys.make("ssh-keygen -q -p -P '' -N secret -f .ssh/id_ed25519");
    keys.works(&held, Some(&agent.socket()), &[]);
    let told = keys.fails(3, &filed, Some(&agent.socket()), &[]);
    assert!(told.contains("id_ed25519` has a passphrase and was not tried"), "{told}");
}

#[test]
fn key_with_a_passphrase_is_used_by_the_agent_that_holds_it() {
    let (keys, agent) = (keys(), Agent::start());
    for (kind, form, name) in [("ed25519", "", "new"), ("rsa -b 2048", "-m PEM", "old")] {
        agent.hold(&keys.key(kind, name));
        let host = keys.host(&[name], &[]);
        keys.make(&format!("ssh-keygen -q -p {form} -P '' -N secret -f {name}"));
        // Others come after the one that is named.
        for n in 0..10 {
            agent.hold(&keys.key("ed25519", &format!("other-{name}-{n}")));
        }
        for words in [&["-i", name][..], &["-i", &format!("{name}.pub")], &["-i", "agent", "-i", name]] {
            keys.works(&host, Some(&agent.socket()), words);
        }
        assert_eq!(host.log().matches("Failed publickey").count(), 0, "{}", host.log());
        let told = keys.fails(2, &host, None, &["-i", name]);
        assert!(told.contains("has a passphrase, and there is no terminal to ask for it"), "{told}");
    }
}

#[test]
fn agent_that_is_of_no_help_is_named_and_nothing_starts() {
    let keys = keys();
    keys.key("ed25519", "key");
    let host = keys.host(&["key"], &[]);
    let locked = Agent::start();
    locked.hold(&keys.path("key"));
    keys.make(&format!(
        "printf 'x\\nx\\n' >lock; SSH_AUTH_SOCK={} python3 - <<'END'\n{LOCK}\nEND",
        locked.socket().display()
    ));
    let cases = [
        ("silent", "does not answer within 5s"),
        ("hangs-up", "cannot be reached: it hung up"),
        ("garbled", "does not speak as an SSH agent does"),
        ("endless", "does not speak as an SSH agent does"),
        ("gone", "cannot be reached: no such file or directory"),
        ("key", "cannot be reached: connection refused"),
    ];
    for (name, odd) in
        [("silent", Odd::Silent), ("hangs-up", Odd::HangsUp), ("garbled", Odd::Garbled), ("endless", Odd::Endless)]
    {
        agent::odd(&keys.path(name), odd);
    }
    for (socket, why) in cases {
        let told = keys.fails(2, &host, Some(&keys.path(socket)), &["-i", "agent"]);
        assert!(told.contains("the key `agent`: the SSH agent cannot be used: ") && told.contains(why), "{told}");
    }
    let told = keys.fails(2, &host, None, &["-i", "agent"]);
    assert!(told.contains("SSH_AUTH_SOCK is not set"), "{told}");
    let empty = Agent::start();
    for socket in [empty.socket(), locked.socket()] {
        let told = keys.fails(2, &host, Some(&socket), &["-i", "agent"]);
        assert!(told.contains("holds no keys that can be used, or is locked"), "{told}");
    }
    assert_eq!(host.log().matches("Connection from").count(), 0);
}

/// Locks the agent: `ssh-add -x` wants a terminal.
const LOCK: &str = "import os, socket, struct
s = socket.socket(socket.AF_UNIX); s.connect(os.environ['SSH_AUTH_SOCK'])
s.sendall(struct.pack('>IBI', 6, 22, 1) + b'x')
assert s.recv(5)[4] == 6";

#[test]
fn agent_that_does_not_sign_is_told_and_the_next_key_tried() {
    let (keys, agent) = (keys(), Agent::start());
    keys.key("ed25519", "asks");
    let host = keys.host(&["asks"], &[]);
    agent.add(&["-q", "-c", keys.path("asks").to_str().unwrap()]);
    let told = keys.fails(3, &host, Some(&agent.socket()), &["-i", "agent"]);
    assert!(told.contains("auth_failed") && told.contains("the SSH agent refuses to sign (key SHA256:"), "{told}");
    agent.hold(&keys.key("ed25519", "free"));
    let host = keys.host(&["asks", "free"], &[]);
    keys.works(&host, Some(&agent.socket()), &["-i", "agent"]);
}

#[test]
fn agent_with_many_keys_is_cut_off_in_so_many_words() {
    let (keys, agent) = (keys(), Agent::start());
    for n in 0..20 {
        agent.hold(&keys.key("ed25519", &format!("key-{n}")));
    }
    let host = keys.host(&["key-19"], &[]);
    let words = ["-i", "agent"];
    let told = keys.fails(3, &host, Some(&agent.socket()), &words);
    let why = "the host takes no more keys after 6 keys of 20 (`MaxAuthTries`); name the right one with `-i` or `key`";
    assert!(told.contains("auth_failed") && told.contains(why), "{told}");
    assert_eq!(host.log().matches("Connection from").count(), 1);
    keys.works(&host, Some(&agent.socket()), &["-i", "agent", "-i", "key-19.pub"]);
    let strict = keys.host(&["key-1"], &["MaxAuthTries 1"]);
    let told = keys.fails(3, &strict, None, &["-i", "key-0"]);
    assert!(told.contains("auth_failed") && told.contains("after 1 key of 1 (`MaxAuthTries`)"), "{told}");
}

/// A host that lets in whom the authority `ca` certifies, and nobody else.
fn trusting(keys: &Keys) -> Sshd {
    let authority = format!("TrustedUserCAKeys {}", keys.path("ca.pub").display());
    keys.host(&[], &[&authority])
}

fn certify(keys: &Keys, name: &str, more: &str) {
    keys.make(&format!("ssh-keygen -q -s ca -I test -n {} {more} {name}.pub", sshd::user()));
}

#[test]
fn certificate_beside_the_key_is_shown_before_the_bare_key() {
    let (keys, agent) = (keys(), Agent::start());
    keys.key("ed25519", "ca");
    let host = trusting(&keys);
    for (kind, name) in [("ed25519", "ed"), ("ecdsa", "ec"), ("rsa -b 2048", "rsa")] {
        keys.key(kind, name);
        certify(&keys, name, "-V -1h:+1h");
        keys.works(&host, None, &["-i", name]);
        // The agent holds the key alone; the certificate is here.
        agent.add(&["-q", "-k", keys.path(name).to_str().unwrap()]);
        keys.make(&format!(
            "mkdir public-{name}; mv {name} public-{name}; cp {name}.pub {name}-cert.pub public-{name}"
        ));
        keys.make(&format!("ssh-keygen -q -p -P '' -N secret -f public-{name}/{name}"));
        keys.works(&host, Some(&agent.socket()), &["-i", &format!("public-{name}/{name}")]);
    }
    assert_eq!(host.log().matches("Failed publickey").count(), 0, "{}", host.log());
    assert_eq!(host.log().matches("Accepted publickey").count(), 6);
}

#[test]
fn certificate_that_the_agent_holds_is_used() {
    let (keys, agent) = (keys(), Agent::start());
    keys.key("ed25519", "ca");
    let host = trusting(&keys);
    for (kind, name) in [("ed25519", "ed"), ("rsa -b 2048", "rsa")] {
        keys.key(kind, name);
        certify(&keys, name, "");
        agent.hold(&keys.path(name));
        keys.works(&host, Some(&agent.socket()), &["-i", "agent"]);
        agent.add(&["-q", "-D"]);
    }
}

#[test]
fn certificate_that_cannot_be_used_is_not_shown_and_told() {
    let keys = keys();
    keys.key("ed25519", "ca");
    let host = trusting(&keys);
    let cases = [
        ("-V 20200101:20200102", "expired at 2020-01-0"),
        ("-V +1d:+2d", "is not valid before 20"),
        ("-h", "is one of a host, not of a user"),
    ];
    for (n, (more, why)) in cases.into_iter().enumerate() {
        let name = format!("key-{n}");
        keys.key("ed25519", &name);
        certify(&keys, &name, more);
        let told = keys.fails(3, &host, None, &["-i", &name]);
        assert!(told.contains("auth_failed") && told.contains("the host refuses the key SHA256:"), "{told}");
        let warned = told.matches(&format!("{name}-cert.pub` {why}")).count();
        // With `-v` when it is found, and with the failure.
        assert_eq!(warned, 2, "{told}");
    }
    for (line, why) in [
        ("cp key-0-cert.pub key-1-cert.pub", "key-1-cert.pub` is not of this key, but of SHA256:"),
        ("head -c 300 key-0-cert.pub >key-1-cert.pub", "key-1-cert.pub` is not a certificate that can be read: "),
        ("head -c 100000 /dev/zero >key-1-cert.pub", "key-1-cert.pub` is not a certificate that can be read: "),
        ("printf '\\377' >key-1-cert.pub", "key-1-cert.pub` is not a certificate that can be read: it is not text"),
    ] {
        keys.make(line);
        let told = keys.fails(3, &host, None, &["-i", "key-1"]);
        assert!(told.contains(why), "{told}");
    }
    // The bare key still is as good as ever.
    keys.works(&keys.host(&["key-1"], &[]), None, &["-i", "key-1"]);
    assert_eq!(host.log().matches("Certificate invalid").count(), 0, "{}", host.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_know_only_the_new_key_are_asked_at_most_twice() {
    let keys = keys();
    let (old, new) = (keys.key("ed25519", "old"), keys.key("ed25519", "new"));
    let hosts: Vec<Sshd> = (0..8).map(|_| keys.host(&["new"], &[])).collect();
    let addresses: Vec<String> = hosts.iter().map(|host| host.address().to_string()).collect();
    let words = [old, new].map(|path| path.display().to_string());
    let output =
        keys.world.sshjob(&["run", "-w", &addresses.join(","), "-i", &words[0], "-i", &words[1], "--", "true"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for host in &hosts {
        assert!(tries(host) <= 2, "{}", host.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn login_that_a_host_refuses_is_not_tried_again() {
    use crate::support::key::Login;
    use crate::support::rig;
    use sshjob::domain::job::RetryOn;
    let host = Sshd::start(Spec::accepting(Login::fresh().public()));
    let mut job = rig::script("true");
    job.retries.attempts = 5;
    job.retries.delay = Span(std::time::Duration::from_millis(1));
    job.retries.on = vec![RetryOn::Unreachable, RetryOn::Failed, RetryOn::TimedOut];
    job.rollout.max_concurrency = Amount::Count(1);
    let folder = tempfile::tempdir().unwrap();
    let store = sshjob::adapter::dir::Dir::open(folder.path().join("store")).unwrap();
    let done = rig::run(&store, rig::request(job, &[host.address()], "one"), &Login::fresh()).await.unwrap();
    assert_eq!(done.state(host.address()).0, TaskState::AuthFailed);
    assert_eq!((tries(&host), host.log().matches("Connection from").count()), (1, 1));
}

#[test]
fn agent_serves_many_logins_at_once() {
    let (keys, agent) = (keys(), Agent::start());
    agent.hold(&keys.key("rsa -b 2048", "key"));
    let (addresses, accepted) = (crate::support::loopback::free(100), keys.public("key"));
    let daemons =
        addresses.chunks(16).map(|part| Sshd::start(Spec { addresses: part.to_vec(), ..Spec::accepting(&accepted) }));
    let daemons: Vec<Sshd> = daemons.collect();
    let names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let words =
        ["run", "-q", "-f", "100", "-w", &names.join(","), "-i", "agent", "--connect-timeout", "60s", "--", "true"];
    let output = keys.world.command(&words).env("SSH_AUTH_SOCK", agent.socket()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    drop(daemons);
}

#[test]
fn user_that_a_tag_tells_is_logged_in_and_one_that_is_none_is_refused() {
    let world = World::new(1);
    let (at, key) = (world.fleet().addresses()[0], world.fleet().login().path());
    let user = sshd::user();
    let hosts = [("told", user.as_str()), ("none", "\"\""), ("odd", "\"a\\u001b[2J\\nb\""), ("option", "-oProxy")];
    let mut inventory = "instances:\n".to_owned();
    for (id, tag) in hosts {
        let (ip, port) = (at.ip(), at.port());
        writeln!(inventory, "  - {{ id: {id}, address: {ip}, port: {port}, tags: {{ A: b, LoginUser: {tag} }} }}")
            .unwrap();
    }
    writeln!(inventory, "  - {{ id: untagged, address: {}, port: {}, tags: {{ A: b }} }}", at.ip(), at.port()).unwrap();
    std::fs::write(world.path().join("hosts.yaml"), inventory).unwrap();
    let project = format!(
        "inventory: {{ file: hosts.yaml }}\nuser: {{ tag: LoginUser, default: {user} }}\nkey: {}\n",
        key.display()
    );
    std::fs::write(world.path().join("sshjob.yaml"), project).unwrap();
    let output = world.sshjob(&["run", "-t", "A=b", "-o", "json", "--", "true"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let run = crate::support::world::json(&output);
    let told = run["tasks"].as_array().unwrap().iter().map(|task| {
        let text = |key: &str| task[key].as_str().unwrap_or_default().to_owned();
        format!("{}: {}: {}", text("instance"), text("state"), text("reason"))
    });
    let mut told: Vec<String> = told.collect();
    told.sort();
    insta::assert_snapshot!(told.join("\n"));
    let connections = world.fleet().log_of_first().matches("Connection from").count();
    assert_eq!(connections, 2, "only those whose user is one are connected to");
}

#[test]
fn agent_that_lists_and_then_falls_silent_is_named_not_the_host() {
    let (keys, agent) = (keys(), Agent::start());
    agent.hold(&keys.key("ed25519", "held"));
    keys.key("ed25519", "file");
    let host = keys.host(&["held", "file"], &[]);
    for (odd, why) in [
        (Odd::Silent, "does not answer within 8s"),
        (Odd::HangsUp, "cannot be reached: it hung up"),
        (Odd::Garbled, "does not speak as an SSH agent does"),
    ] {
        let socket = keys.path(&format!("{odd:?}"));
        agent::odd_after_listing(&socket, odd, agent.socket());
        let words = ["-i", "agent", "--connect-timeout", "60s"];
        let told = keys.fails(3, &host, Some(&socket), &words);
        assert!(told.contains("auth_failed") && told.contains(why), "{told}");
    }
}

#[test]
fn jump_host_of_a_job_is_logged_in_to_with_its_own_key() {
    let keys = keys();
    let [bastion, target] = ["bastion", "target"].map(|name| {
        keys.key("ed25519", name);
        keys.host(&[name], &[])
    });
    let user = sshd::user();
    let hop = format!("{user}@{}", bastion.address());
    let project = format!("user: {user}\nkey: target\njump: [{{ host: \"{hop}\", key: bastion }}]\n");
    std::fs::write(keys.path("sshjob.yaml"), project).unwrap();
    keys.works(&target, None, &[]);
    let output = keys.world.sshjob(&["retry", "last"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for host in [&bastion, &target] {
        assert_eq!((tries(host), host.log().matches("Accepted publickey").count()), (2, 2), "{}", host.log());
    }
    std::fs::write(keys.path("sshjob.yaml"), format!("user: {user}\nkey: target\njump: {hop}\n")).unwrap();
    let told = keys.fails(3, &target, None, &[]);
    assert!(told.contains(&format!("jump host `{hop}`: user `{user}`: the host refuses the key SHA256:")), "{told}");
}

/// Runs a command at a terminal of its own, with nothing on standard input, and types one line per question; prints what
/// was said, the exit code, and whether the terminal shows again what is typed.
const TYPIST: &str = r"
import os, pty, sys, termios
lines, command = sys.argv[1].split(','), sys.argv[2:]
pid, fd = pty.fork()
if pid == 0:
    os.dup2(os.open('/dev/null', os.O_RDONLY), 0)
    os.execv(command[0], command)
said = b''
while True:
    try:
        piece = os.read(fd, 4096)
    except OSError:
        break
    if not piece:
        break
    said += piece
    if lines and said.endswith(b'key: '):
        os.write(fd, {'^C': b'\x03'}.get(lines[0], lines[0].encode() + b'\r'))
        lines.pop(0)
_, status = os.waitpid(pid, 0)
echo = termios.tcgetattr(fd)[3] & termios.ECHO != 0
print(said.decode(), 'exit', os.waitstatus_to_exitcode(status), 'echo', echo)
";

#[test]
fn passphrase_is_asked_for_at_the_terminal_three_times_and_ctrl_c_leaves_it_as_it_was() {
    let keys = keys();
    keys.key("ed25519", "key");
    let host = keys.host(&["key"], &[]);
    keys.make("ssh-keygen -q -p -P '' -N secret -f key");
    let at = host.address().to_string();
    for (typed, end, questions) in [
        ("wrong,wrongest,secreX\u{8}t", "exit 0 echo True", 3),
        ("a,b,c,secret", "exit 2 echo True", 3),
        ("wrong,^C", "exit 130 echo True", 2),
    ] {
        let ours = keys.world.command(&["run", "-w", &at, "-i", "key", "--", "true"]);
        let mut command = Command::new("python3");
        command.args(["-c", TYPIST, typed]).arg(ours.get_program()).args(ours.get_args());
        command.current_dir(ours.get_current_dir().unwrap()).env_clear();
        command.envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let told = said(&command.output().unwrap());
        assert!(told.contains(end), "{typed}: {told}");
        assert_eq!(told.matches("Passphrase for").count(), questions, "{told}");
        assert!(!told.contains("secre"), "what is typed is shown: {told}");
    }
}
