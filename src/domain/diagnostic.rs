//! What is wrong with a file, told to the person who wrote it: what, where, and what to do.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::fmt;

/// How many errors of one file are told; a file with more is not the file that was meant.
const MAX_FAULTS: usize = 100;

/// How much of a found value is shown: enough to recognise it, too little to flood a terminal.
const MAX_SHOWN: usize = 80;

/// A position in a text, counted from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl Place {
    /// The beginning of a text.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// An error in a file or a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as the person names it; none where the mistake is not in a file.
    pub file: Option<String>,
    /// Where in the file; none where it concerns the whole file.
    pub place: Option<Place>,
    /// What is wrong: the thing, what was found, what is allowed.
    pub message: String,
    /// What to do, where there is something.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error that concerns a whole file.
    pub fn of_file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { file: Some(file.into()), place: None, message: message.into(), hint: None }
    }

    /// An error that is in no file.
    pub fn of_request(message: impl Into<String>) -> Self {
        Self { file: None, place: None, message: message.into(), hint: None }
    }

    /// The same error with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Ord for Diagnostic {
    /// By file, line and column; what concerns a whole file comes after what has a place in it.
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |one: &'_ Self| (one.place.is_none(), one.place);
        self.file
            .cmp(&other.file)
            .then_with(|| order(self).cmp(&order(other)))
            .then_with(|| (&self.message, &self.hint).cmp(&(&other.message, &other.hint)))
    }
}

impl PartialOrd for Diagnostic {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        match (&self.file, self.place) {
            (Some(file), Some(place)) => writeln!(f, "  --> {file}:{}:{}", place.line, place.column)?,
            (Some(file), None) => writeln!(f, "  --> {file}")?,
            (None, _) => {}
        }
        match &self.hint {
            Some(hint) => writeln!(f, "hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Tells errors in the order of file, line and column, a blank line between any two.
pub fn render(mut diagnostics: Vec<Diagnostic>) -> String {
    diagnostics.sort();
    diagnostics.dedup();
    diagnostics.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("\n")
}

/// Collects the errors of one file while it is being read, so that all are told at once.
#[derive(Debug)]
pub struct Faults {
    file: String,
    found: RefCell<Vec<Diagnostic>>,
    untold: Cell<usize>,
}

impl Faults {
    /// Starts to collect the errors of `file`.
    pub fn of(file: impl Into<String>) -> Self {
        Self { file: file.into(), found: RefCell::default(), untold: Cell::new(0) }
    }

    /// The file whose errors these are.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Notes an error.
    pub fn add(&self, place: Place, message: impl Into<String>) {
        self.note(Some(place), message.into(), None);
    }

    /// Notes an error and what to do about it.
    pub fn add_with_hint(&self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.note(Some(place), message.into(), Some(hint.into()));
    }

    fn note(&self, place: Option<Place>, message: String, hint: Option<String>) {
        let mut found = self.found.borrow_mut();
        if found.len() < MAX_FAULTS {
            found.push(Diagnostic { file: Some(self.file.clone()), place, message, hint });
        } else {
            self.untold.set(self.untold.get().saturating_add(1));
        }
    }

    /// Whether further errors are only counted: what they would say need not be worked out.
    pub fn is_full(&self) -> bool {
        self.found.borrow().len() >= MAX_FAULTS
    }

    /// Gives `value` where nothing was found, and otherwise the errors, `subject` before each message.
    ///
    /// # Errors
    /// What was found, in the order of the file.
    pub fn settle<T>(self, subject: &str, value: Option<T>) -> Result<T, Vec<Diagnostic>> {
        let mut found = self.found.into_inner();
        if let Some(value) = value.filter(|_| found.is_empty()) {
            return Ok(value);
        }
        for diagnostic in &mut found {
            diagnostic.message.insert_str(0, subject);
        }
        found.sort();
        found.dedup();
        if found.is_empty() {
            // No reader refuses without a reason; if one ever did, the file must still not pass for a good one.
            found.push(Diagnostic::of_file(&self.file, format!("{subject}the file cannot be understood")));
        }
        if self.untold.get() > 0 {
            let message = format!("{subject}{} more errors are not shown", self.untold.get());
            found.push(Diagnostic::of_file(self.file, message));
        }
        Err(found)
    }
}

/// An error with its causes, each said once, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.contains(&told) {
            text = format!("{text}: {told}");
        }
        cause = error.source();
    }
    text
}

/// Puts a found value in backticks: control characters escaped, a long one cut.
pub fn quoted(text: &str) -> String {
    let mut shown = String::from("`");
    for (count, character) in text.chars().enumerate() {
        if count == MAX_SHOWN {
            shown.push('…');
            break;
        }
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown.push('`');
    shown
}

/// Joins words as a sentence lists them: `a`, `b`.
pub fn listed<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    words.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// The word of `known` that `found` most likely stands for, if one is near enough.
pub fn nearest<'w>(found: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    if found.len() > MAX_SHOWN {
        return None;
    }
    let fold = |word: &str| word.to_lowercase().replace('-', "_");
    let near = known.into_iter().map(|word| (strsim::damerau_levenshtein(&fold(found), &fold(word)), word));
    // A third of the letters wrong is a typing mistake; more is another word.
    near.filter(|(distance, word)| *distance <= word.chars().count().max(3) / 3).min().map(|(_, word)| word)
}

/// Whether `found`, which names no host, is most likely a slip of the keyboard for the host `name`: but for one letter, or
/// two of a long name, and never for a number, for of hosts in a row any may be gone.
pub fn is_slip(found: &str, name: &str) -> bool {
    let (found, name) = (found.to_lowercase(), name.to_lowercase());
    // Names of hosts differ in their first part.
    let halves =
        |name: &str| name.split_once('.').map_or((name.to_owned(), None), |(a, b)| (a.to_owned(), Some(b.to_owned())));
    let ((found, domain), (name, of)) = (halves(&found), halves(&name));
    let numbers = |name: &str| -> Vec<String> {
        let runs = name.split(|c: char| !c.is_ascii_digit());
        runs.filter(|run| !run.is_empty()).map(str::to_owned).collect()
    };
    let most = match found.chars().count() {
        0..4 => return false,
        4..8 => 1,
        8..=MAX_SHOWN => 2,
        _ => return false,
    };
    domain == of && numbers(&found) == numbers(&name) && strsim::damerau_levenshtein(&found, &name) <= most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slip_is_a_letter_or_two_and_no_number() {
        for (found, name) in [("wbe-1", "web-1"), ("prod-dbb-1", "prod-db-1"), ("mial.example.com", "mail.example.com")]
        {
            assert!(is_slip(found, name), "{found}");
        }
        for (found, name) in [
            ("web-2", "web-1"),
            ("api", "app"),
            ("mail.example.com", "www.example.com"),
            ("prod-eu-mail", "prod-eu-api"),
            ("rack1-n11", "rack11-n1"),
            ("10.1.11.1", "10.11.1.1"),
        ] {
            assert!(!is_slip(found, name), "{found}");
        }
    }

    #[test]
    fn diagnostic_is_rendered_as_message_place_and_hint() {
        let diagnostic = Diagnostic {
            file: Some("jobs/rotate-logs.yaml".into()),
            place: Some(Place { line: 9, column: 10 }),
            message: "job `rotate-logs`: attached timeout `20m` exceeds the worker's 14m".into(),
            hint: Some("set `mode: detached`".into()),
        };
        assert_eq!(
            diagnostic.to_string(),
            "error: job `rotate-logs`: attached timeout `20m` exceeds the worker's 14m\n  \
             --> jobs/rotate-logs.yaml:9:10\n\
             hint: set `mode: detached`\n"
        );
    }

    #[test]
    fn diagnostics_are_sorted_by_file_line_and_column() {
        let faults = Faults::of("b.yaml");
        faults.add(Place { line: 10, column: 1 }, "third");
        faults.add(Place { line: 9, column: 2 }, "second");
        faults.add(Place { line: 9, column: 2 }, "second");
        let mut all = faults.settle("", None::<()>).unwrap_err();
        all.push(Diagnostic::of_file("a.yaml", "first"));
        assert_eq!(
            render(all),
            "error: first\n  --> a.yaml\n\nerror: second\n  --> b.yaml:9:2\n\nerror: third\n  --> b.yaml:10:1\n"
        );
    }

    #[test]
    fn faults_without_end_are_counted_not_kept() {
        let faults = Faults::of("x");
        (0..MAX_FAULTS + 5).for_each(|n| faults.add(Place { line: 1, column: u32::try_from(n).unwrap() }, "bad"));
        let all = faults.settle("", None::<()>).unwrap_err();
        assert_eq!(all.len(), MAX_FAULTS + 1);
        assert_eq!(all.last().unwrap().message, "5 more errors are not shown");
    }

    #[test]
    fn nearest_word_is_a_typing_mistake_away() {
        let known = ["timeout", "targets", "env", "connect_timeout"];
        assert_eq!(nearest("tiemout", known), Some("timeout"));
        assert_eq!(nearest("Targets", known), Some("targets"));
        assert_eq!(nearest("connect-timeout", known), Some("connect_timeout"));
        assert_eq!(nearest("evn", known), Some("env"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }

    #[test]
    fn quoted_value_can_neither_flood_nor_steer_a_terminal() {
        assert_eq!(quoted("a\u{1b}[2Jb\n"), "`a\\u{1b}[2Jb\\n`");
        assert_eq!(quoted(&"x".repeat(200)), format!("`{}…`", "x".repeat(80)));
    }
}
