//! The JSON Schemas of everything that `-o json` and `-o ndjson` write: shipped in `tests/schema`, for whoever reads it.

use std::fs;
use std::path::PathBuf;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;
use sshjob::cli::command::next::NextDocument;
use sshjob::domain::document::{
    EventDocument, OutputDocument, OutputList, PruneDocument, RunDocument, RunList, ValidateDocument,
};
use sshjob::domain::notice::text::NoticeDocument;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/schema").join(format!("{name}.json"))
}

/// Checks `document` against the schema that is shipped as `name`.
pub fn assert_valid(name: &str, document: &Value) {
    let schema: Value = serde_json::from_str(&fs::read_to_string(path(name)).unwrap()).unwrap();
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let wrong: Vec<String> = validator.iter_errors(document).map(|error| error.to_string()).collect();
    assert!(wrong.is_empty(), "{document:#}\nis no {name}: {wrong:#?}");
}

#[expect(clippy::disallowed_methods, reason = "insta's own switch")]
fn assert_shipped<T: JsonSchema>(name: &str) {
    let schema = SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>();
    let schema = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
    // As insta does, for whoever changes a document: `INSTA_UPDATE=always` writes the file anew.
    if std::env::var_os("INSTA_UPDATE").is_some_and(|update| update == "always") {
        fs::write(path(name), &schema).unwrap();
    }
    assert_eq!(schema, fs::read_to_string(path(name)).unwrap(), "{name}");
}

#[test]
fn schemas_that_are_shipped_are_those_of_the_documents() {
    assert_shipped::<RunDocument>("run");
    assert_shipped::<RunList>("runs");
    assert_shipped::<EventDocument>("event");
    assert_shipped::<OutputList>("output");
    assert_shipped::<OutputDocument>("piece");
    assert_shipped::<PruneDocument>("prune");
    assert_shipped::<ValidateDocument>("validate");
    assert_shipped::<NextDocument>("next");
    assert_shipped::<NoticeDocument<'_>>("notice");
}

#[test]
fn schemas_refuse_what_is_no_document() {
    for name in ["run", "runs", "event", "output", "piece", "prune", "validate", "next", "notice"] {
        let schema: Value = serde_json::from_str(&fs::read_to_string(path(name)).unwrap()).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        for bad in [serde_json::json!({}), serde_json::json!({"schema": "sshjob/v2"}), serde_json::json!([])] {
            assert!(!validator.is_valid(&bad), "{bad} is a {name}");
        }
    }
}
