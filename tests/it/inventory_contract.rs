//! What every inventory promises, asked of each of them in the same words: a selector means the same everywhere.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use clap::Parser as _;
use sshjob::cli::context::Global;
use sshjob::cli::project::Workspace;
use sshjob::cli::select::ProjectInventory;
use sshjob::domain::instance::{Instance, InstanceState};
use sshjob::domain::job::file::JobFile;
use sshjob::domain::job::resolve::{Layers, Overrides};
use sshjob::domain::job::{Job, Source};
use sshjob::port::{Inventory, InventoryError};

/// An instance that is to be there: its `Name`, its `Environment`, whether it runs.
pub struct Row(pub &'static str, pub Option<&'static str>, pub InstanceState);

use InstanceState::{Running, Stopped, Terminated};

const FLEET: &[Row] = &[
    Row("web-1", Some("Dev"), Running),
    Row("web-2", Some("Test"), Running),
    Row("db-1", Some("Dev"), Running),
    Row("we*", Some("Prod"), Running),
    Row("bare", None, Running),
    Row("stopped", Some("Dev"), Stopped),
    Row("terminated", Some("Dev"), Terminated),
];

/// Asks all questions of the inventory that `$fleet` gives for [`FLEET`], together with what must stay alive while it is
/// used, and with one that cannot be asked.
macro_rules! contract {
    ($inventory:ident, $fleet:expr, $unwell:expr) => {
        mod $inventory {
            use super::*;

            #[tokio::test]
            async fn selectors_choose_the_running_instances_that_match() {
                let (_alive, inventory) = $fleet;
                super::selectors_choose_the_running_instances_that_match(&inventory).await;
            }

            #[tokio::test]
            async fn one_instance_is_chosen_as_all_are() {
                let (_alive, inventory) = $fleet;
                super::one_instance_is_chosen_as_all_are(&inventory).await;
            }

            #[tokio::test]
            async fn limits_and_exclusions_mean_the_same_instances_every_time() {
                let (_alive, inventory) = $fleet;
                super::limits_and_exclusions_mean_the_same_instances_every_time(&inventory).await;
            }

            #[tokio::test]
            async fn inventory_that_cannot_be_asked_is_no_empty_fleet() {
                let (_alive, inventory) = $unwell;
                let found = inventory.select(&job(&["Environment=Dev"])).await;
                assert!(found.is_err(), "{found:?}");
                let one = inventory.select_one(&job(&["Environment=Dev"]), &"i-1".parse().unwrap()).await;
                assert!(one.is_err(), "{one:?}");
            }
        }
    };
}

contract!(yaml, project(Some(FLEET)), project(None));
#[cfg(feature = "aws")]
contract!(
    ec2,
    {
        let Some(fleet) = crate::aws::fleet(FLEET).await else { return };
        fleet
    },
    crate::aws::fleet_that_is_throttled().await
);

/// The inventory of a project, which holds `fleet`; none: there is no such file.
fn project(fleet: Option<&[Row]>) -> (tempfile::TempDir, ProjectInventory) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sshjob.yaml"), "inventory: { file: hosts.yaml }\n").unwrap();
    if let Some(fleet) = fleet {
        let mut text = "instances:\n".to_owned();
        for (number, Row(name, environment, state)) in fleet.iter().enumerate() {
            let environment = environment.map(|it| format!(", Environment: {it}")).unwrap_or_default();
            let state = serde_json::to_string(state).unwrap();
            let at = format!("id: i-{number}, address: 10.0.0.{number}");
            writeln!(text, "- {{ {at}, state: {state}, tags: {{ Name: '{name}'{environment} }} }}").unwrap();
        }
        std::fs::write(folder.path().join("hosts.yaml"), text).unwrap();
    }
    let inventory = ProjectInventory::new(Arc::new(Workspace::open(&global(folder.path())).unwrap()), None);
    (folder, inventory)
}

/// The flags of whoever works in `folder`.
fn global(folder: &Path) -> Global {
    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        global: Global,
    }
    Flags::parse_from(["sshjob", "-C", folder.to_str().unwrap()]).global
}

/// A job for what passes `tags`.
fn job(tags: &[&str]) -> Job {
    wanted(tags, &[], None)
}

fn wanted(tags: &[&str], exclude: &[&str], limit: Option<&str>) -> Job {
    let file = JobFile::ad_hoc("adhoc".parse().unwrap(), Source::Run("true".to_owned()));
    let request = Overrides {
        tags: tags.iter().map(|text| text.parse().unwrap()).collect(),
        exclude: exclude.iter().map(|text| (*text).to_owned()).collect(),
        limit: limit.map(|text| text.parse().unwrap()),
        ..Overrides::default()
    };
    Layers { request, ..Layers::default() }.resolve(file).unwrap()
}

fn names(instances: &[Instance]) -> Vec<&str> {
    let mut names: Vec<&str> = instances.iter().filter_map(Instance::name).collect();
    names.sort_unstable();
    names
}

async fn selectors_choose_the_running_instances_that_match(inventory: &impl Inventory) {
    let cases: [(&[&str], &[&str]); 8] = [
        (&["Environment=Dev"], &["db-1", "web-1"]),
        (&["Environment=Dev,Test"], &["db-1", "web-1", "web-2"]),
        (&["Name=web*"], &["web-1", "web-2"]),
        (&["Name=w?b-1", "Environment=Dev"], &["web-1"]),
        (&["Environment"], &["db-1", "we*", "web-1", "web-2"]),
        (&["Environment", "Environment!=Prod"], &["db-1", "web-1", "web-2"]),
        (&["Name=*", "Environment!=*"], &["bare"]),
        // Nobody is no error: whether it is one is for whoever asks to say.
        (&["Environment=Nowhere"], &[]),
    ];
    for (tags, expected) in cases {
        let found = inventory.select(&job(tags)).await.unwrap();
        assert_eq!(names(&found), expected, "{tags:?}");
        assert!(found.is_sorted_by(|a, b| a.id < b.id) && found.iter().all(|it| it.state == Running), "{tags:?}");
        assert!(found.iter().all(|it| it.addresses.private.is_some()), "{found:?}");
    }
}

async fn one_instance_is_chosen_as_all_are(inventory: &impl Inventory) {
    let dev = job(&["Environment=Dev"]);
    let all = inventory.select(&dev).await.unwrap();
    for each in &all {
        assert_eq!(inventory.select_one(&dev, &each.id).await.unwrap().as_ref(), Some(each));
        assert_eq!(inventory.select_one(&job(&["Environment=Test"]), &each.id).await.unwrap(), None);
    }
    let nobody = "i-0123456789abcdef0".parse().unwrap();
    match inventory.select_one(&dev, &nobody).await {
        Ok(found) => assert_eq!(found, None),
        // Who is asked for one that is not there may say so; it is never taken for another.
        Err(error) => assert!(matches!(error, InventoryError::Unavailable { .. }), "{error}"),
    }
}

async fn limits_and_exclusions_mean_the_same_instances_every_time(inventory: &impl Inventory) {
    assert_eq!(
        names(&inventory.select(&wanted(&["Environment"], &["web-*"], None)).await.unwrap()),
        ["db-1", "we*"],
        "left out by name"
    );
    let some = wanted(&["Environment"], &[], Some("2"));
    let first = inventory.select(&some).await.unwrap();
    assert_eq!(first.len(), 2);
    assert_eq!(inventory.select(&some).await.unwrap(), first);
    assert_eq!(inventory.select(&wanted(&["Environment"], &[], Some("50%"))).await.unwrap(), first);
}
