//! What went wrong at AWS, for the person who must act.

use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// What a service answered instead of doing `action` on `resource`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// The status of the answer; none where there was none.
    pub(super) status: Option<u16>,
    /// The service's name for it.
    pub(super) code: Option<String>,
    /// What to tell people.
    pub(super) text: String,
}

impl Fault {
    /// A fault of `error`, whose HTTP status was `status`.
    pub(super) fn new<E>(action: &str, resource: &str, status: Option<u16>, error: &E) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error,
    {
        let code = error.code().map(str::to_owned);
        let is_denied = matches!(status, Some(401 | 403))
            || code.as_deref().is_some_and(|code| code.contains("AccessDenied") || code == "UnauthorizedOperation");
        let said = match (error.message(), &code) {
            (Some(message), Some(code)) => format!("{code}: {message}"),
            (Some(message), None) => message.to_owned(),
            (None, Some(code)) => code.clone(),
            (None, None) => chain(error),
        };
        let said: String = said.chars().filter(|c| !c.is_control()).take(400).collect();
        let text = if is_denied {
            format!("access denied: `{action}` on `{resource}` is not allowed ({said})")
        } else {
            format!("`{action}` on `{resource}`: {said}")
        };
        Self { status, code, text }
    }

    /// Whether the service did not do it for certain: it said so, and its word was about this request.
    pub(super) fn is_refusal(&self) -> bool {
        self.status.is_some_and(|status| (400..500).contains(&status) && status != 408 && status != 429)
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
