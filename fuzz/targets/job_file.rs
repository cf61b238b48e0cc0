//! Whatever a job file or a project file holds, reading it neither panics nor hangs nor eats the memory.

#![no_main]

// The floor by itself: it needs neither SSH nor a runtime, so neither is built for it.
#[path = "../../src/domain/mod.rs"]
#[allow(dead_code, unused_imports, reason = "one target uses one corner of the floor")]
mod domain;

use domain::diagnostic::{Diagnostic, render};
use domain::job::Job;
use domain::job::file::JobFile;
use domain::job::resolve::Layers;
use domain::project::Project;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let file = JobFile::parse(text, "jobs/a.yaml", "a").map_err(told);
    let project = Project::parse(text, "sshjob.yaml").map_err(told);
    if let Ok(job) = file.and_then(|file| Layers::default().resolve(file).map_err(told)) {
        let frozen = serde_json::to_string(&job).expect("a job can be frozen");
        assert_eq!(serde_json::from_str::<Job>(&frozen).expect("a frozen job can be read"), job);
    }
    drop(project);
});

/// Tells errors as the command line does, each with something to say.
fn told(errors: Vec<Diagnostic>) {
    assert!(!errors.is_empty(), "a file is refused without a reason");
    assert!(render(errors).starts_with("error: "));
}
