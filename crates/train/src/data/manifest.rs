//! Image folders with a `manifest.csv`: a header line, then one line an image.
//!
//! | column | needed | holds |
//! |---|---|---|
//! | `file` | yes | path below the folder, with `/` |
//! | `label` | yes | class name |
//! | `split` | no | `train`, `val` or `test`; without the column images are shared out |
//! | `source` | no | where the image comes from |
//! | `patient` | no | whose image it is, unique within a source |
//!
//! Other columns are ignored.

use std::path::{Component, Path};

use super::gather::{self, Entry};
use super::{DataError, DataOptions, MAX_CLASSES, Parts, Split, folder};

/// Name of the table.
pub(super) const FILE: &str = "manifest.csv";
/// No table of more bytes is read.
const MAX_FILE: u64 = 256 << 20;
/// No table of more lines is read.
const MAX_ROWS: usize = 8 << 20;

/// One line of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Path below the folder of the manifest.
    pub file: String,
    /// Class name.
    pub label: String,
    /// The line's split, where the table has the column.
    pub split: Option<Split>,
    /// Where the image comes from.
    pub source: Option<String>,
    /// Whose image it is.
    pub patient: Option<String>,
}

/// Parses the text of a manifest. `file` is the name for messages.
///
/// # Errors
/// Naming the column that is missing, or the line and what is wrong in it.
pub fn parse(file: &str, text: &[u8]) -> Result<Vec<Row>, DataError> {
    // Spreadsheets write a byte-order mark.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text);
    let damaged = |e: &csv::Error| DataError::format(file, "a sound comma-separated table", e.to_string());
    let headers = reader.headers().map_err(|e| damaged(&e))?.clone();
    let column = |name: &str| headers.iter().position(|h| h.eq_ignore_ascii_case(name));
    let needed = |name: &str| {
        column(name).ok_or_else(|| {
            let found: Vec<&str> = headers.iter().take(32).collect();
            DataError::format(file, format!("a column {name}"), format!("columns {}", found.join(", ")))
        })
    };
    let (files, labels) = (needed("file")?, needed("label")?);
    let (splits, sources, patients) = (column("split"), column("source"), column("patient"));
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| damaged(&e))?;
        let line = record.position().map_or(0, csv::Position::line);
        let refuse = |expected: String, found: String| {
            Err(DataError::format(&format!("{file}, line {line}"), expected, found))
        };
        if record.len() != headers.len() {
            return refuse(format!("{} columns", headers.len()), record.len().to_string());
        }
        if rows.len() == MAX_ROWS {
            return refuse(format!("at most {MAX_ROWS} images"), "more".to_owned());
        }
        let field = |at: usize| record.get(at).unwrap_or_default();
        let optional = |at: Option<usize>| at.map(field).filter(|t| !t.is_empty()).map(str::to_owned);
        let split = match splits.map(field) {
            None => None,
            Some(text) => match Split::parse(text) {
                Some(split) => Some(split),
                None => return refuse("split train, val or test".into(), format!("{:?}", short(text))),
            },
        };
        let row = Row {
            file: field(files).to_owned(),
            label: field(labels).to_owned(),
            split,
            source: optional(sources),
            patient: optional(patients),
        };
        if row.label.is_empty() {
            return refuse("a label".into(), "an empty one".into());
        }
        if !stays_below(&row.file) {
            return refuse(
                "a file below the folder of the manifest".into(),
                format!("{:?}", short(&row.file)),
            );
        }
        rows.push(row);
    }
    if rows.is_empty() {
        return Err(DataError::format(file, "at least one image", "none"));
    }
    Ok(rows)
}

/// Loads the folder of a manifest.
pub(super) fn load(directory: &Path, options: &DataOptions) -> Result<Parts, DataError> {
    let path = directory.join(FILE);
    let file = path.display().to_string();
    let rows = parse(&file, &folder::read_at_most(&path, MAX_FILE)?)?;
    let labels: Vec<&str> = rows.iter().map(|r| r.label.as_str()).collect();
    let classes = gather::classes(&labels, options);
    if classes.len() > MAX_CLASSES {
        return Err(DataError::format(
            &file,
            format!("at most {MAX_CLASSES} classes"),
            classes.len().to_string(),
        ));
    }
    let numbers: std::collections::HashMap<&str, u32> =
        classes.iter().map(String::as_str).zip(0u32..).collect();
    let root = std::fs::canonicalize(directory).map_err(|e| DataError::io(directory, e))?;
    let mut seen = std::collections::HashSet::new();
    let mut entries = Vec::with_capacity(rows.len());
    for row in &rows {
        let Some(&label) = numbers.get(row.label.as_str()) else {
            let expected = format!("a label of the network ({})", classes.join(", "));
            return Err(DataError::format(
                &format!("{file}, {}", row.file),
                expected,
                format!("{:?}", short(&row.label)),
            ));
        };
        if !seen.insert(row.file.as_str()) {
            return Err(DataError::format(&file, "each file once", format!("{} twice", row.file)));
        }
        let path = root.join(&row.file);
        // A link may lead out of the folder where the text does not.
        let real = std::fs::canonicalize(&path).map_err(|e| DataError::io(&directory.join(&row.file), e))?;
        if !real.starts_with(&root) {
            let found = format!("a link to {}", real.display());
            return Err(DataError::format(&path.display().to_string(), "a file below the folder", found));
        }
        entries.push(Entry {
            path,
            name: row.file.clone(),
            label,
            split: row.split,
            source: row.source.clone(),
            patient: row.patient.clone(),
        });
    }
    drop(seen);
    gather::load(folder::name(directory), classes, entries, options)
}

/// A relative path of plain names only.
fn stays_below(file: &str) -> bool {
    !file.is_empty()
        && !file.contains('\0')
        && Path::new(file).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
        && Path::new(file).components().any(|c| matches!(c, Component::Normal(_)))
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "file,label,split,source,patient,view\na/1.jpg,x,train,s,p1,\n\"a,2.jpg\",y,val,,,PA\nb.png,x,test,t,,\n";

    #[test]
    fn known_columns_are_read_in_any_order_and_others_ignored() {
        let rows = parse("t", GOOD.as_bytes()).unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[1].file, "a,2.jpg");
        assert_eq!((rows[0].patient.as_deref(), rows[0].source.as_deref()), (Some("p1"), Some("s")));
        assert_eq!(
            rows.iter().map(|r| r.split.unwrap()).collect::<Vec<_>>(),
            [Split::Train, Split::Validation, Split::Test]
        );
        let plain = parse("t", b"\xef\xbb\xbfLabel,File\r\nx,1.png\r\n").unwrap();
        assert_eq!((plain[0].file.as_str(), plain[0].split), ("1.png", None));
    }

    #[test]
    fn what_is_wrong_is_named_by_line() {
        let cases = [
            ("", "a column file"),
            ("file,split\na,train", "a column label, found columns file, split"),
            ("file,label\n", "at least one image"),
            ("file,label\na.png", "line 2: expected 2 columns, found 1"),
            ("file,label\na.png,", "a label"),
            ("file,label,split\na.png,x,\n", "split train, val or test, found \"\""),
            ("file,label,split\na.png,x,holdout\n", "\"holdout\""),
            ("file,label\n../a.png,x", "below the folder of the manifest, found \"../a.png\""),
            ("file,label\n/etc/passwd,x", "\"/etc/passwd\""),
            ("file,label\na/../../b.png,x", "below the folder"),
            ("file,label\n.,x", "below the folder"),
            ("file,label\n\u{ff}", "line 2"),
        ];
        for (text, needle) in cases {
            let message = parse("t", text.as_bytes()).unwrap_err().to_string();
            assert!(message.contains(needle), "{message} lacks {needle}");
        }
        assert!(parse("t", b"file,label\n\xff\xfe,x").unwrap_err().to_string().contains("sound"));
    }

    #[test]
    fn altered_tables_never_panic_and_never_leave_the_folder() {
        let good = GOOD.as_bytes();
        for position in 0..good.len() {
            for flip in [0x01, 0x02, 0x55, 0x80, 0xff] {
                let mut altered = good.to_vec();
                altered[position] ^= flip;
                if let Ok(rows) = parse("t", &altered) {
                    assert!(rows.iter().all(|r| stays_below(&r.file)));
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_gives_rows_or_an_error(text in "[ -~\n\r\",]{0,200}") {
            let _ = parse("t", text.as_bytes());
            let _ = parse("t", format!("file,label\n{text}").as_bytes());
        }
    }
}
