//! Tables people like to read: aligned columns, thousands separators, units, and colours where there is a terminal.
//!
//! Cells carry their style as ANSI sequences; whoever prints goes through anstream, which removes them where the output
//! is no terminal or `NO_COLOR` is set.

use std::fmt::{self, Display};

use anstyle::{AnsiColor, Style};

const GAP: &str = "  ";

/// A table being put together.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

struct Column {
    heading: String,
    right: bool,
}

/// One cell: its text and how it is drawn.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell that is as it should be.
    pub fn good(value: impl Display) -> Self {
        Self {
            text: value.to_string(),
            style: AnsiColor::Green.on_default(),
        }
    }

    /// A cell to look at.
    pub fn bad(value: impl Display) -> Self {
        Self {
            text: value.to_string(),
            style: AnsiColor::Red.on_default(),
        }
    }

    /// A count that should be zero.
    pub fn alarm(count: u64) -> Self {
        if count == 0 {
            number(count).into()
        } else {
            Self::bad(number(count))
        }
    }
}

impl<T: Display> From<T> for Cell {
    fn from(value: T) -> Self {
        Self {
            text: value.to_string(),
            style: Style::new(),
        }
    }
}

impl Table {
    /// A table with these headings; one that starts with `>` heads a column of numbers, aligned to the right.
    pub fn new(headings: &[&str]) -> Self {
        let column = |heading: &&str| match heading.strip_prefix('>') {
            Some(heading) => Column {
                heading: heading.to_owned(),
                right: true,
            },
            None => Column {
                heading: (*heading).to_owned(),
                right: false,
            },
        };
        Self {
            columns: headings.iter().map(column).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row of as many cells as there are headings.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let row: Vec<Cell> = cells.into_iter().collect();
        debug_assert_eq!(row.len(), self.columns.len());
        self.rows.push(row);
    }

    /// Whether no row was added.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn widths(&self) -> Vec<usize> {
        let width = |(at, column): (usize, &Column)| {
            let cells = self
                .rows
                .iter()
                .filter_map(|row| row.get(at))
                .map(|cell| cell.text.chars().count());
            cells.chain([column.heading.chars().count()]).max().unwrap_or(0)
        };
        self.columns.iter().enumerate().map(width).collect()
    }
}

impl Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let bold = Style::new().bold();
        let headings: Vec<_> = self
            .columns
            .iter()
            .map(|column| Cell {
                text: column.heading.clone(),
                style: bold,
            })
            .collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            for (at, (cell, column)) in row.iter().zip(&self.columns).enumerate() {
                let last = at + 1 == row.len();
                let pad = widths[at].saturating_sub(cell.text.chars().count());
                let (before, after) = if column.right {
                    (pad, 0)
                } else {
                    (0, if last { 0 } else { pad })
                };
                let Cell { text, style } = cell;
                write!(out, "{:before$}{style}{text}{style:#}{:after$}", "", "")?;
                if !last {
                    out.write_str(GAP)?;
                }
            }
            out.write_str("\n")?;
        }
        Ok(())
    }
}

/// A count with thousands separators: `1,234,567`.
pub fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size with its unit: `1.5 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut size = count as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1023.95 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// A time with its unit: `850 ns`, `1.250 us`, `3.5 s`.
pub fn nanoseconds(time_ns: u64) -> String {
    match time_ns {
        0..1_000 => format!("{time_ns} ns"),
        1_000..1_000_000 => format!("{:.3} us", time_ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.3} ms", time_ns as f64 / 1e6),
        _ => format!("{:.3} s", time_ns as f64 / 1e9),
    }
}

/// A heading line in a view of several parts.
pub fn heading(text: impl Display) -> String {
    let bold = Style::new().bold();
    format!("{bold}{text}{bold:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators_and_sizes_units() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(number),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(number(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(
            [0, 1023, 1024, 1536, 134_217_728, u64::MAX].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "128.0 MiB", "16.0 EiB"]
        );
        assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(
            [850, 1_250, 3_500_000_000].map(nanoseconds),
            ["850 ns", "1.250 us", "3.500 s"]
        );
    }

    #[test]
    fn columns_line_up_whatever_their_colour() {
        let mut table = Table::new(&["NAME", ">COUNT", "STATE"]);
        table.row(["left".into(), number(1_000_000).into(), Cell::good("up")]);
        table.row(["a-long-name".into(), Cell::alarm(7), Cell::bad("down")]);
        let plain = anstream::adapter::strip_str(&table.to_string()).to_string();
        let expected = "NAME             COUNT  STATE\nleft         1,000,000  up\na-long-name          7  down\n";
        assert_eq!(plain, expected);
        assert!(table.to_string().contains("\u{1b}[31mdown"));
    }
}
