//! What goes to standard output, and how numbers and tables look.

use std::io::Write;

use crate::error::{CliError, Exit};

/// Writes to standard output. A reader that went away (`| head`) is no failure.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::new(Exit::Storage, format!("cannot write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// A byte count for people.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A time for people.
pub fn seconds(value: f64) -> String {
    match value {
        v if v < 1e-3 => format!("{:.0} µs", v * 1e6),
        v if v < 1.0 => format!("{:.1} ms", v * 1e3),
        v if v < 120.0 => format!("{v:.2} s"),
        v => format!("{:.0} min {:02.0} s", (v / 60.0).floor(), v % 60.0),
    }
}

/// A share as a percentage.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// Columns lined up; the first left, the others right. The first row is the heading.
pub struct Table {
    rows: Vec<Vec<String>>,
    all_left: bool,
}

impl Table {
    /// A table with this heading.
    pub fn new<S: ToString>(heading: impl IntoIterator<Item = S>) -> Self {
        Self { rows: vec![heading.into_iter().map(|s| s.to_string()).collect()], all_left: false }
    }

    /// A table of names and what is to be said of each, both on the left.
    pub fn facts(name: &str, value: &str) -> Self {
        Self { all_left: true, ..Self::new([name, value]) }
    }

    /// Adds a row.
    pub fn row<S: ToString>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(|s| s.to_string()).collect());
    }

    /// The rows, heading first.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// The table as text, each line ended.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| {
            self.rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let cells = row.iter().enumerate().map(|(c, cell)| {
                let pad = " ".repeat(widths[c].saturating_sub(cell.chars().count()));
                if c == 0 || self.all_left { format!("{cell}{pad}") } else { format!("{pad}{cell}") }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            text += line.trim_end();
            text.push('\n');
            if index == 0 {
                text += &"─".repeat(widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1));
                text.push('\n');
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(bytes(17), "17 B");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
        assert_eq!(seconds(0.000_25), "250 µs");
        assert_eq!(seconds(0.25), "250.0 ms");
        assert_eq!(seconds(3.5), "3.50 s");
        assert_eq!(seconds(150.0), "2 min 30 s");
        assert_eq!(percent(0.9812), "98.12 %");
    }

    #[test]
    fn table_lines_up() {
        let mut table = Table::new(["name", "µs"]);
        table.row(["a", "10"]);
        table.row(["longer", "5"]);
        assert_eq!(table.render(), "name    µs\n──────────\na       10\nlonger   5\n");
    }
}
