//! A report as one self-contained HTML file: no script, no font, no picture from elsewhere.

pub mod plots;
pub mod svg;

use std::fmt::Write as _;

use crate::output::Table;
use svg::escape;

/// A page: a heading and sections.
pub struct Report {
    title: String,
    lead: String,
    body: String,
}

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1f2328; --paper: #ffffff; --line: #d0d7de; --soft: #f3f5f8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --line: #3d444d; --soft: #161b22; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1120px; \
margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid var(--line) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }
th, td { padding: .25rem .8rem; border-bottom: 1px solid var(--line); text-align: right }
th:first-child, td:first-child { text-align: left } th { background: var(--soft) }
.plots { display: flex; flex-wrap: wrap; gap: 1rem } svg { max-width: 100%; height: auto; background: var(--soft); border-radius: 6px }
svg text { fill: var(--ink); font-family: system-ui, sans-serif } .title { font-size: 13px; font-weight: 600 } .small { font-size: 10px }
svg text.light { fill: #ffffff } .grid { stroke: var(--line); stroke-width: .6 } .band { fill: #8a4fd0; fill-opacity: .1 }
.cell { stroke: var(--line); stroke-width: .5 }";

impl Report {
    /// An empty page with a heading and an opening paragraph.
    pub fn new(title: &str, lead: &str) -> Self {
        Self { title: title.into(), lead: lead.into(), body: String::new() }
    }

    /// Adds a section; empty plots are left out.
    pub fn section(&mut self, heading: &str, text: &str, table: Option<&Table>, plots: &[String]) {
        let _ = write!(self.body, "<h2>{}</h2>\n<p>{}</p>\n", escape(heading), escape(text));
        if let Some(table) = table {
            self.body += &html_table(table);
        }
        if !plots.is_empty() {
            let _ = writeln!(self.body, "<div class=\"plots\">{}</div>", plots.join("\n"));
        }
    }

    /// The page.
    pub fn render(&self) -> String {
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>{0}</title><style>{STYLE}</style></head>\n<body><h1>{0}</h1>\n<p>{1}</p>\n{2}\
             <p>Polyveil {3}</p></body></html>\n",
            escape(&self.title),
            escape(&self.lead),
            self.body,
            env!("CARGO_PKG_VERSION")
        )
    }
}

fn html_table(table: &Table) -> String {
    let line = |row: &Vec<String>, tag: &str| {
        let cells: String = row.iter().map(|c| format!("<{tag}>{}</{tag}>", escape(c))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let mut html = String::from("<table>\n");
    for (index, row) in table.rows().iter().enumerate() {
        html += &line(row, if index == 0 { "th" } else { "td" });
    }
    html + "</table>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_self_contained_and_escaped() {
        let mut report = Report::new("a & b", "lead");
        let mut table = Table::new(["x", "y"]);
        table.row(["<1>", "2"]);
        report.section("One", "text", Some(&table), &["<svg></svg>".into()]);
        let page = report.render();
        assert!(page.contains("a &amp; b") && page.contains("<td>&lt;1&gt;</td>"));
        assert!(!page.contains("http") && !page.contains("<script"));
    }
}
