//! Names in series: `node[1-5]`, `node[01-10]`, `rack[1-3]-n[1-4]`, `node[1,3,5-7],db1`.
//!
//! The notation of clush and pdsh. Brackets that hold a colon are an IPv6 address and stay as they are.

use std::collections::{BTreeMap, BTreeSet};

/// How many names one list may expand to: the largest fleet that is planned for.
pub const MAX_NAMES: u64 = 100_000;

/// The longest name without its numbers, in bytes: room for a user, a domain name and a port.
const MAX_NAME_BYTES: usize = 512;

/// The longest list, in bytes: room for the largest fleet, name by name.
const MAX_LIST_BYTES: usize = 8 * 1024 * 1024;

/// The longest number that takes part in a series: what 64 bits always hold.
const MAX_DIGITS: usize = 18;

/// Why a list of names was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not a list of hosts: {why}")]
pub struct InvalidRange {
    /// The part that is wrong, shortened.
    pub found: String,
    /// What is wrong, and what to write instead.
    pub why: String,
}

impl InvalidRange {
    fn new(found: &str, why: impl Into<String>) -> Self {
        // A hostile text must not flood a terminal or a log line.
        Self { found: found.chars().filter(|c| !c.is_control()).take(80).collect(), why: why.into() }
    }
}

/// The numbers from `first` to `last`, with zeros in front up to `width` digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Series {
    first: u64,
    last: u64,
    width: usize,
}

impl Series {
    fn len(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    fn texts(self) -> impl Iterator<Item = String> {
        (self.first..=self.last).map(move |number| format!("{number:0width$}", width = self.width))
    }
}

/// A piece of a name: a text, or numbers of which each makes a name.
enum Piece<'a> {
    Text(&'a str),
    Numbers(Vec<Series>),
}

/// Expands a list of names and series to every name, in the order written; the rightmost numbers run fastest.
///
/// # Errors
/// [`InvalidRange`] where a bracket does not hold numbers, a name is empty, or there are more than [`MAX_NAMES`].
pub fn expand(list: &str) -> Result<Vec<String>, InvalidRange> {
    if list.len() > MAX_LIST_BYTES {
        return Err(InvalidRange::new(list, format!("it is longer than {MAX_LIST_BYTES} bytes")));
    }
    let (mut names, mut total) = (Vec::new(), 0_u64);
    for item in split(list) {
        if item.is_empty() {
            return Err(InvalidRange::new(list, "a name is empty; write `a,b`, without a comma at either end"));
        }
        let pieces = read_pieces(item)?;
        let counts = pieces.iter().map(|piece| match piece {
            Piece::Text(_) => 1,
            Piece::Numbers(series) => series.iter().fold(0, |sum: u64, series| sum.saturating_add(series.len())),
        });
        // Counted before anything is built: `[1-999999999]` must cost nothing.
        total = total.saturating_add(counts.fold(1, u64::saturating_mul));
        if total > MAX_NAMES {
            let why = format!("it names more than {MAX_NAMES} hosts; name fewer, or select by tags");
            return Err(InvalidRange::new(item, why));
        }
        names.extend(pieces.iter().fold(vec![String::new()], |heads, piece| append(&heads, piece)));
    }
    Ok(names)
}

/// Each of `heads`, followed by each of what `piece` stands for.
fn append(heads: &[String], piece: &Piece<'_>) -> Vec<String> {
    let tails = match piece {
        Piece::Text(text) => vec![(*text).to_owned()],
        Piece::Numbers(series) => series.iter().flat_map(|series| series.texts()).collect(),
    };
    heads.iter().flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}"))).collect()
}

/// Splits at the commas that are not in brackets.
fn split(list: &str) -> impl Iterator<Item = &str> {
    let mut is_inside = false;
    list.split(move |c| {
        match c {
            '[' => is_inside = true,
            ']' => is_inside = false,
            _ => {}
        }
        c == ',' && !is_inside
    })
}

fn read_pieces(item: &str) -> Result<Vec<Piece<'_>>, InvalidRange> {
    let refuse = |why: &str| InvalidRange::new(item, why);
    let (mut pieces, mut rest, mut texts) = (Vec::new(), item, 0);
    while !rest.is_empty() {
        let (piece, tail) = if let Some(inside) = rest.strip_prefix('[') {
            let (inside, tail) = inside.split_once(']').ok_or_else(|| refuse("`[` without `]`"))?;
            let address = rest.get(..inside.len() + 2).filter(|_| inside.contains(':'));
            (address.map_or_else(|| read_numbers(inside).map(Piece::Numbers), |text| Ok(Piece::Text(text))), tail)
        } else {
            let (text, tail) = rest.split_at(rest.find('[').unwrap_or(rest.len()));
            if text.contains(']') {
                return Err(refuse("`]` without `[`"));
            }
            (Ok(Piece::Text(text)), tail)
        };
        let piece = piece.map_err(|why| InvalidRange::new(item, why))?;
        if let Piece::Text(text) = piece {
            texts += text.len();
        }
        if texts > MAX_NAME_BYTES || pieces.len() > MAX_NAME_BYTES {
            return Err(InvalidRange::new(item, format!("a name is longer than {MAX_NAME_BYTES} bytes")));
        }
        pieces.push(piece);
        rest = tail;
    }
    Ok(pieces)
}

/// Reads what stands in brackets: `1,3,5-7`.
fn read_numbers(inside: &str) -> Result<Vec<Series>, String> {
    inside.split(',').map(|part| read_series(part, inside)).collect()
}

fn read_series(part: &str, inside: &str) -> Result<Series, String> {
    let form = || format!("`[{}]` does not hold numbers as `[1-5]`, `[01-10]` or `[1,3,5-7]` do", shorten(inside));
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let read = |digits: &str| -> Option<u64> {
        let is_number = digits.bytes().all(|b| b.is_ascii_digit()) && (1..=MAX_DIGITS).contains(&digits.len());
        digits.parse().ok().filter(|_| is_number)
    };
    let (low, high) = read(first).zip(read(last)).ok_or_else(form)?;
    if low > high {
        return Err(format!("`{part}` runs backwards; write `{last}-{first}`"));
    }
    if is_padded(last) && last.len() != first.len() {
        return Err(format!("`{part}` has ends of different widths; write as many zeros in front of both, or none"));
    }
    Ok(Series { first: low, last: high, width: width_of(first) })
}

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

fn is_padded(digits: &str) -> bool {
    digits.len() > 1 && digits.starts_with('0')
}

/// The width that a number written like this asks for; 0 for one without zeros in front.
fn width_of(digits: &str) -> usize {
    if is_padded(digits) { digits.len() } else { 0 }
}

/// Folds names back into series, sorted: `node[1-3,5]`. What [`expand`] makes of it are the same names, each once.
///
/// Names with characters that have a meaning in lists (`[`, `]`, `,`) are left as they are.
pub fn fold(names: &[&str]) -> String {
    let unique: BTreeSet<&str> = names.iter().copied().filter(|name| !name.is_empty()).collect();
    let mut rows: Vec<Vec<String>> = unique.into_iter().map(tokens).collect();
    let numbers = rows.iter().map(|row| row.len() / 2).max().unwrap_or_default();
    // From the right: `rack1-n[1-4]` before `rack[1-3]-n[1-4]`.
    for place in (0..numbers).rev().map(|number| 2 * number + 1) {
        rows = fold_place(rows, place);
    }
    let mut folded: Vec<String> = rows.into_iter().map(|row| row.concat()).collect();
    folded.sort_unstable();
    folded.join(",")
}

/// Splits a name into text, number, text, number and so on, so that numbers have odd places.
fn tokens(name: &str) -> Vec<String> {
    if name.contains(['[', ']', ',']) {
        return vec![name.to_owned()];
    }
    let (mut tokens, mut last, mut rest) = (Vec::new(), String::new(), name);
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (text, tail) = rest.split_at(start);
        let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (number, tail) = tail.split_at(end);
        last.push_str(text);
        if number.len() > MAX_DIGITS {
            // Too long for a series: text like any other.
            last.push_str(number);
        } else {
            tokens.extend([std::mem::take(&mut last), number.to_owned()]);
        }
        rest = tail;
    }
    tokens.push(last + rest);
    tokens
}

/// Joins the rows that differ in nothing but the number at `place`.
fn fold_place(rows: Vec<Vec<String>>, place: usize) -> Vec<Vec<String>> {
    let mut groups: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
    let mut folded = Vec::new();
    for mut row in rows {
        match row.get_mut(place) {
            Some(number) => {
                let number = std::mem::take(number);
                groups.entry(row).or_default().push(number);
            }
            None => folded.push(row),
        }
    }
    for (mut row, numbers) in groups {
        if let Some(place) = row.get_mut(place) {
            *place = fold_numbers(numbers);
        }
        folded.push(row);
    }
    folded
}

/// Writes numbers as what stands in brackets; one alone as it is.
fn fold_numbers(mut numbers: Vec<String>) -> String {
    if let [only] = numbers.as_slice() {
        return only.clone();
    }
    // By length first: 9 before 10, and numbers padded to one width together.
    numbers.sort_unstable_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    let mut runs: Vec<(String, String)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((first, last)) if follows(first, last, &number) => *last = number,
            _ => runs.push((number.clone(), number)),
        }
    }
    let show = |(first, last)| if first == last { first } else { format!("{first}-{last}") };
    format!("[{}]", runs.into_iter().map(show).collect::<Vec<_>>().join(","))
}

/// Whether a run that begins with `first` and has come to `last` goes on with `next`, written the way it is.
fn follows(first: &str, last: &str, next: &str) -> bool {
    let after = last.parse::<u64>().ok().and_then(|last| last.checked_add(1));
    after.is_some_and(|after| format!("{after:0width$}", width = width_of(first)) == next)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expanded(list: &str) -> Vec<String> {
        expand(list).unwrap()
    }

    #[test]
    fn expand_names_every_host_in_the_order_written() {
        let cases: [(&str, &[&str]); 14] = [
            ("db1", &["db1"]),
            ("b,a,b", &["b", "a", "b"]),
            ("node[1-3]", &["node1", "node2", "node3"]),
            ("node[08-11]", &["node08", "node09", "node10", "node11"]),
            ("node[098-101]", &["node098", "node099", "node100", "node101"]),
            ("n[8-10]", &["n8", "n9", "n10"]),
            ("n[0-1]", &["n0", "n1"]),
            ("node[1,3,5-7],db1", &["node1", "node3", "node5", "node6", "node7", "db1"]),
            ("rack[1-2]-n[1-2]", &["rack1-n1", "rack1-n2", "rack2-n1", "rack2-n2"]),
            ("[1-2]a", &["1a", "2a"]),
            ("10.0.0.[5-6]:22", &["10.0.0.5:22", "10.0.0.6:22"]),
            ("me@node[1-2]:[22-23]", &["me@node1:22", "me@node1:23", "me@node2:22", "me@node2:23"]),
            ("[::1]:22,a@[fe80::1%eth0]", &["[::1]:22", "a@[fe80::1%eth0]"]),
            ("[::1]:[22-23]", &["[::1]:22", "[::1]:23"]),
        ];
        for (list, names) in cases {
            assert_eq!(expanded(list), names, "{list}");
        }
    }

    #[test]
    fn expand_of_what_is_no_list_says_what_to_write() {
        let texts = [
            "",
            "a,",
            ",a",
            "a,,b",
            "node[",
            "node[1-3",
            "node]",
            "node[1]]",
            "node[]",
            "node[a-b]",
            "node[1-]",
            "node[-3]",
            "node[1--3]",
            "node[1-2-3]",
            "node[+1-3]",
            "node[5-1]",
            "node[1-05]",
            "node[1,]",
            "node[[1-2]]",
            "node[1-9999999999999999999]",
            "node[1-100001]",
            "a[1-1000]b[1-1000]",
            "\u{1b}[2J",
        ];
        let errors: Vec<String> = texts.iter().map(|text| expand(text).unwrap_err().to_string()).collect();
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn expand_is_bounded_over_the_whole_list() {
        assert_eq!(expanded("n[1-50000],m[1-50000]").len(), 100_000);
        assert!(expand("n[1-50000],m[1-50001]").unwrap_err().why.starts_with("it names more than 100000 hosts"));
        assert!(expand(&format!("{}[1-9]", "a".repeat(513))).is_err());
        assert!(expand(&"[1]".repeat(100_000)).is_err());
        assert!(expand(&"[0-999999999999999999]".repeat(100)).is_err());
    }

    #[test]
    fn fold_joins_series_and_sorts() {
        let cases: [(&[&str], &str); 13] = [
            (&[], ""),
            (&["db1"], "db1"),
            (&["node3", "node1", "node2", "node5", "db1", "node1"], "db1,node[1-3,5]"),
            (&["n8", "n9", "n10"], "n[8-10]"),
            (&["n08", "n09", "n10"], "n[08-10]"),
            (&["n1", "n01"], "n[1,01]"),
            (&["n9", "n010"], "n[9,010]"),
            (&["r1-n1", "r1-n2", "r2-n1", "r2-n2"], "r[1-2]-n[1-2]"),
            (&["r1-n1", "r1-n2", "r2-n1"], "r1-n[1-2],r2-n1"),
            (&["10.0.0.5:22", "10.0.0.6:22"], "10.0.0.[5-6]:22"),
            (&["h:2201", "h:2202"], "h:[2201-2202]"),
            (&["[::1]:22", "[::2]:22"], "[::1]:22,[::2]:22"),
            (
                &["i-0123456789012345678901", "i-0123456789012345678902"],
                "i-0123456789012345678901,i-0123456789012345678902",
            ),
        ];
        for (names, folded) in cases {
            assert_eq!(fold(names), folded, "{names:?}");
        }
    }

    #[test]
    fn fold_of_a_large_fleet_is_one_series() {
        let names: Vec<String> = (0..100_000).map(|n| format!("node-{:03}.rack{}", n % 1000, n / 1000)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(fold(&names), "node-[000-999].rack[0-99]");
    }

    proptest! {
        #[test]
        fn expand_of_fold_is_the_same_set(
            names in prop::collection::vec("[ab]?[0-3]{0,3}-?[0-2]{0,2}|[a-zA-Z0-9._:%@+-]{1,24}", 0..40)
        ) {
            let set: BTreeSet<&str> = names.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
            let folded = fold(&names.iter().map(String::as_str).collect::<Vec<_>>());
            let back = if folded.is_empty() { Vec::new() } else { expanded(&folded) };
            prop_assert_eq!(back.len(), set.len());
            prop_assert_eq!(back.iter().map(String::as_str).collect::<BTreeSet<_>>(), set);
        }

        #[test]
        fn expand_gives_as_many_names_as_the_product_of_its_series(
            (a, b) in (0_u64..1000, 0_u64..30), (c, d) in (0_u64..50, 0_u64..50)
        ) {
            let names = expanded(&format!("r[{a}-{}]n[{c}-{}]", a + b, c + d));
            prop_assert_eq!(names.len() as u64, (b + 1) * (d + 1));
            prop_assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC*|[a0-9,:\\[\\]-]{0,16}") {
            let _ = expand(&text);
            fold(&text.split(' ').collect::<Vec<_>>());
        }
    }
}
