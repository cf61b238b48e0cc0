//! Tables whose columns line up.

use std::borrow::Cow;

use super::words::Style;

/// One cell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell<'a> {
    text: Cow<'a, str>,
    style: Style,
}

impl<'a> Cell<'a> {
    /// A cell that is painted.
    pub fn styled(text: impl Into<Cow<'a, str>>, style: Style) -> Self {
        Self { text: text.into(), style }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<'a, T: Into<Cow<'a, str>>> From<T> for Cell<'a> {
    fn from(text: T) -> Self {
        Self { text: text.into(), style: Style::Plain }
    }
}

/// Lays out rows below a header. A column in which no row says anything is left out; without rows there is no table.
pub fn table<const N: usize>(header: [&str; N], rows: &[[Cell<'_>; N]], color: bool) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let header = header.map(|name| Cell::styled(name, Style::Dim));
    let widths: Vec<usize> = (0..N)
        .map(|column| {
            let widest = rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or_default();
            if widest == 0 { 0 } else { widest.max(header.get(column).map(Cell::width).unwrap_or_default()) }
        })
        .collect();
    let mut text = String::new();
    for row in std::iter::once(&header).chain(rows) {
        let mut gap = 0;
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths).filter(|(_, width)| **width > 0) {
            line.extend(std::iter::repeat_n(' ', gap));
            line.push_str(&cell.style.paint(&cell.text, color));
            gap = width.saturating_sub(cell.width()) + 2;
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_lines_up_and_leaves_out_what_nobody_says() {
        let rows = [
            ["a".into(), "".into(), Cell::styled("failed", Style::Bad), "x".into()],
            ["long-name".into(), "".into(), "ok".into(), "".into()],
        ];
        let expected = "HOST       STATE   WHY\na          failed  x\nlong-name  ok\n";
        assert_eq!(table(["HOST", "NEVER", "STATE", "WHY"], &rows, false), expected);
        assert_eq!(table(["HOST"], &[], false), "");
        assert!(table(["HOST", "NEVER", "STATE", "WHY"], &rows, true).contains("\u{1b}[31mfailed\u{1b}[0m  x"));
    }
}
