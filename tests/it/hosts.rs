//! `sshjob hosts`: what a selector matches, told by the program itself.

use std::fs;
use std::path::Path;
use std::process::Command;

const INVENTORY: &str = "\
instances:
  - { id: web-2, address: 10.0.0.2, port: 2222, user: admin, tags: { Environment: Dev, Name: web-two, Role: web } }
  - { id: web-1, address: 10.0.0.1, public: 192.0.2.1, region: eu-1, zone: eu-1a, tags: { Environment: Dev, Name: web-one, Role: web } }
  - { id: db-1, dns: db-1.example.com, tags: { Environment: Staging, Note: \"a\\e[2Jb\" } }
  - { id: old-1, address: 10.0.0.9, state: stopped, tags: { Environment: Old } }
";

/// A project with an inventory, and what `sshjob hosts` says in it: exit code, standard output, standard error.
struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    fn new() -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap() };
        project.write("hosts.yaml", INVENTORY);
        project.write("sshjob.yaml", "inventory: { file: hosts.yaml }\n");
        project
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sshjob"));
        command.arg("hosts").args(arguments).current_dir(self.path()).env_clear();
        command
    }

    fn say(&self, arguments: &[&str]) -> String {
        told(&mut self.command(arguments))
    }
}

fn told(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    format!("{out}--\n{err}-- {}\n", output.status.code().unwrap())
}

#[test]
fn hosts_lists_what_matches_for_people() {
    insta::assert_snapshot!(Project::new().say(&["-t", "Environment=Dev,Staging"]));
}

#[test]
fn hosts_lists_what_matches_for_machines() {
    let project = Project::new();
    let json = project.say(&["-t", "Environment=Dev", "--address", "public", "-o", "json"]);
    let ndjson = project.say(&["-t", "Environment=Dev", "-x", "web-two", "-o", "ndjson"]);
    insta::assert_snapshot!(json + &ndjson);
}

#[test]
fn hosts_named_one_by_one_need_no_inventory() {
    let project = Project::new();
    fs::remove_file(project.path().join("sshjob.yaml")).unwrap();
    insta::assert_snapshot!(project.say(&["-w", "node[08-10],root@[::1]:22", "-w", "db1", "-x", "node[09-10]"]));
}

#[test]
fn hosts_selected_by_nothing_or_by_tags_and_names_are_a_usage_error() {
    let project = Project::new();
    let all: Vec<String> = [
        &[][..],
        &["-x", "web-1"],
        &["-t", "Role=web", "-w", "db1"],
        &["-w", "node[1-"],
        &["-w", "a,,b"],
        &["-w", "node1:ssh"],
        &["-w", "root@db1,admin@db1"],
        &["-t", "Role"],
    ]
    .iter()
    .map(|arguments| project.say(arguments))
    .collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn hosts_without_a_match_exit_4_and_say_what_was_asked() {
    let project = Project::new();
    let all: Vec<String> = [
        &["-t", "Environment=Prod", "-t", "Role=w*", "-x", "web-1,web-2", "-l", "10%"][..],
        &["-t", "Enviroment=Dev"],
        &["-t", "Colour=red"],
        &["-t", "Environment=Old"],
        &["-w", "node[1-3]", "-x", "node*"],
        &["-t", "Environment=Prod", "--allow-empty"],
        &["-t", "Environment=Prod", "--allow-empty", "-o", "json"],
    ]
    .iter()
    .map(|arguments| project.say(arguments))
    .collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn inventory_is_the_flags_then_the_environments_then_the_projects() {
    let project = Project::new();
    for name in ["flag", "environment"] {
        project.write(
            name,
            &format!("instances: [{{ id: from-{name}, address: 10.0.0.1, tags: {{ Environment: Dev }} }}]"),
        );
    }
    let first = |command: &mut Command| {
        told(command.arg("-q")).lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned()).next().unwrap()
    };
    let dev = ["-t", "Environment=Dev"];
    assert_eq!(first(&mut project.command(&dev)), "web-1");
    assert_eq!(first(project.command(&dev).env("SSHJOB_INVENTORY", "environment")), "from-environment");
    let flag = first(project.command(&dev).args(["--inventory", "flag"]).env("SSHJOB_INVENTORY", "environment"));
    assert_eq!(flag, "from-flag");
}

#[test]
fn inventory_that_cannot_answer_says_why() {
    let project = Project::new();
    project.write("bad.yaml", "instances:\n  - { id: web-1, adress: 10.0.0.1 }\n");
    let all: Vec<String> =
        ["none.yaml", "bad.yaml"].map(|name| project.say(&["-t", "Role=web", "--inventory", name])).into();
    insta::assert_snapshot!(all.join("\n"));
    // What has a name there is sought nowhere else.
    let named = ["none.yaml", "bad.yaml"].map(|name| project.say(&["-w", "web-1", "--inventory", name]));
    assert_eq!(named.as_slice(), all);
}

#[cfg(not(feature = "aws"))]
#[test]
fn what_needs_aws_says_so_where_the_program_has_none() {
    let project = Project::new();
    let needs = "needs AWS, and this program was built without it\nhint: ";
    let ec2 = project.say(&["-t", "Role=web", "--inventory", "ec2"]);
    assert!(ec2.contains(&format!("error: the inventory `ec2` {needs}")), "{ec2}");
    let mut runs = Command::new(env!("CARGO_BIN_EXE_sshjob"));
    let bucket = told(runs.args(["runs", "--store", "s3://bucket/prefix"]).current_dir(project.path()).env_clear());
    assert!(bucket.contains(&format!("error: the store `s3://bucket/prefix` {needs}")), "{bucket}");
}

/// The ids that `arguments` match, and standard error, with an ssh configuration that has an alias.
fn left(project: &Project, arguments: &[&str]) -> (Vec<String>, String) {
    fs::create_dir_all(project.path().join(".ssh")).unwrap();
    project.write(".ssh/config", "Host alias\n HostName 127.0.77.1\n Port 2201\n");
    let output = project.command(arguments).args(["-q", "--allow-empty"]).env("HOME", project.path()).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let ids = out.lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    (ids, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn exclusion_leaves_a_host_out_however_it_is_written() {
    let project = Project::new();
    for (named, excluded, expected) in [
        ("[::1]:2266,db1", "[::1]:2266", &["db1"][..]),
        ("[::1]:2266,db1", "root@[0::1]", &["db1"]),
        ("127.0.77.1:2201,127.0.77.1:2202", "root@127.0.77.1:2201", &["127.0.77.1:2202"]),
        ("root@127.0.77.1,db1", "admin@127.0.77.1:22", &["db1"]),
        ("alias,db1", "127.0.77.1", &["db1"]),
        ("alias,db1", "127.0.77.1:2201", &["db1"]),
        ("alias:22,db1", "127.0.77.1:22", &["db1"]),
        ("alias,db1", "127.0.*", &["db1"]),
    ] {
        let left = left(&project, &["-w", named, "-x", excluded]);
        assert_eq!(left, (expected.iter().map(|id| (*id).to_owned()).collect(), String::new()), "{excluded}");
    }
    // Left out before the limit picks.
    assert_eq!(left(&project, &["-w", "alias,db1", "-x", "127.0.77.1", "-l", "1"]).0, ["db1"]);
    let (ids, _) = left(&project, &["-t", "Environment=Dev", "-x", "root@10.0.0.2:2222"]);
    assert_eq!(ids, ["web-1"]);
}

#[test]
fn exclusion_that_leaves_nobody_out_is_a_warning() {
    let project = Project::new();
    let (ids, told) = left(&project, &["-w", "alias,db1", "-x", "db1,zzz[1-2],127.0.77.1:22"]);
    assert_eq!(ids, ["alias"]);
    assert_eq!(told, "warning: `-x 127.0.77.1:22,zzz[1-2]` excludes none of the 2 hosts\n");
    let (ids, told) = left(&project, &["-t", "Environment=Dev", "-x", "db-1"]);
    assert_eq!((ids.len(), told.as_str()), (2, "warning: `-x db-1` excludes none of the 2 hosts\n"));
    // One of a row may be gone.
    let (ids, told) = left(&project, &["-t", "Environment=Dev", "-x", "web-[3-4]"]);
    assert_eq!((ids.len(), told.as_str()), (2, "warning: `-x web-[3-4]` excludes none of the 2 hosts\n"));
}

#[test]
fn slip_that_would_run_on_whom_it_was_to_leave_out_is_refused() {
    let project = Project::new();
    let output = project.command(&["-t", "Environment=Dev", "-x", "wbe-1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let expected = "error: `-x wbe-1` excludes none of the 2 hosts\n\
                    hint: did you mean `web-1`? It is still among them\n";
    assert_eq!((output.status.code(), &*said), (Some(2), expected));
}

#[test]
fn value_that_no_instance_has_is_told_with_those_that_there_are() {
    let project = Project::new();
    for (filter, hint) in [
        ("Environment=Dve", "no instance has that value of `Environment`; did you mean `Dev`?"),
        (
            "Environment=Production",
            "no instance has that value of `Environment`; its values are `Dev`, `Old`, `Staging`",
        ),
    ] {
        let output = project.command(&["-t", filter]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{said}");
        assert!(said.ends_with(&format!("hint: {hint}\n")), "{said}");
    }
    // Whoever may tag an instance writes to nobody's terminal.
    let hostile = project.command(&["-t", "Note=zzzz"]).output().unwrap();
    assert!(!hostile.stderr.contains(&b'\x1b'), "{}", String::from_utf8_lossy(&hostile.stderr));
    let none = project.command(&["-t", "Environment=Dev", "-l", "0"]).output().unwrap();
    assert_eq!(none.status.code(), Some(2), "{}", String::from_utf8_lossy(&none.stderr));
}

#[test]
fn host_that_is_named_as_the_inventory_calls_it_is_that_instance() {
    let project = Project::new();
    let dry = |arguments: &[&str], user: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sshjob"));
        command.args(["--store", "runs", "run", "-q", "--dry-run"]).args(arguments).args(["--", "true"]);
        command.current_dir(project.path()).env_clear().env("HOME", project.path());
        told(command.envs(user.map(|user| ("SSHJOB_USER", user)))).lines().skip(2).collect::<Vec<_>>().join("\n")
    };
    let all = [
        dry(&["-w", "web-2,web-1,other"], None),
        dry(&["-w", "web-2,root@web-1,other"], Some("typed")),
        dry(&["-w", "web-1", "--address", "public"], None),
        dry(&["-w", "web-1:22"], None),
        dry(&["-w", "old-1"], None),
        dry(&["-t", "Environment=Dev", "-u", "typed"], None),
        dry(&["-w", "web-2", "-u", "typed", "-p", "23"], None),
    ];
    insta::assert_snapshot!(all.join("\n\n"));
}
