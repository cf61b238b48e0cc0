//! What functions find in their environment: settings, and secrets that a job names by `env:`.

use zeroize::Zeroizing;

use crate::domain::job::SecretRef;

/// A variable that is set to something.
#[expect(clippy::disallowed_methods, reason = "a function has no command line: its environment is what it is told")]
pub fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Finds a secret in the environment that `variable` reads.
///
/// # Errors
/// Where it cannot be had; the message names where it was looked for and never shows it.
pub fn secret(reference: &SecretRef, variable: impl Fn(&str) -> Option<String>) -> Result<Zeroizing<String>, String> {
    match reference {
        SecretRef::Env(name) => {
            let missing = || format!("`{name}` is not set in the function's environment");
            variable(name).map(Zeroizing::new).ok_or_else(missing)
        }
        SecretRef::File(path) => Err(format!("the file `{}`: a function has no files", path.display())),
        SecretRef::Ssm(path) => Err(format!("the parameter `{path}`: not yet in this version")),
    }
}
