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
        // Whoever may write jobs may not by that become the function: its credentials are in its environment.
        SecretRef::Env(name) if name.starts_with("AWS_") => {
            Err(format!("`{name}` is the function's own: variables that begin with `AWS_` reach no host"))
        }
        SecretRef::Env(name) => {
            let missing = || format!("`{name}` is not set in the function's environment");
            variable(name).map(Zeroizing::new).ok_or_else(missing)
        }
        SecretRef::File(path) => Err(format!("the file `{}`: a function has no files", path.display())),
        SecretRef::Ssm(path) => Err(format!("the parameter `{path}`: parameters hold the `secrets` of scripts alone")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_what_was_set_for_it_and_never_what_lambda_gave_the_function() {
        let set = |name: &str| Some(format!("the value of {name}"));
        let find = |name: &str| secret(&SecretRef::Env(name.to_owned()), set).map(|found| found.to_string());
        assert_eq!(find("TOKEN").unwrap(), "the value of TOKEN");
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API"] {
            let why = find(name).unwrap_err();
            assert!(why.contains(name) && !why.contains("the value of"), "{why}");
        }
        assert_eq!(
            secret(&SecretRef::Env("TOKEN".to_owned()), |_| None).unwrap_err(),
            "`TOKEN` is not set in the function's environment"
        );
    }
}
