//! Data sets and choices of images from them.

use std::path::Path;

use clap::ValueEnum;
use polyveil_net::Tensor;
use polyveil_train::{DataError, DataSet, Preprocessing, Split};

use crate::error::{CliError, Exit};

/// Part of a data set, as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SplitArg {
    /// The images that networks are fitted to.
    Train,
    /// The images that choose between networks.
    Validation,
    /// The images that figures are reported on.
    Test,
}

impl From<SplitArg> for Split {
    fn from(split: SplitArg) -> Self {
        match split {
            SplitArg::Train => Self::Train,
            SplitArg::Validation => Self::Validation,
            SplitArg::Test => Self::Test,
        }
    }
}

/// Positions within a split: one number, or `FROM..TO` without `TO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First position.
    pub from: usize,
    /// One past the last.
    pub to: usize,
}

/// Parses `7` or `0..20`.
pub fn parse_range(text: &str) -> Result<Range, String> {
    let number =
        |t: &str| t.parse::<usize>().map_err(|_| format!("\"{t}\" is not a number; give 7 or 0..20"));
    let range = match text.split_once("..") {
        Some((from, to)) => Range { from: number(from)?, to: number(to)? },
        None => {
            let from = number(text)?;
            Range { from, to: from.saturating_add(1) }
        }
    };
    if range.from < range.to { Ok(range) } else { Err(format!("{text} holds no image")) }
}

/// Opens a data set.
pub fn open(spec: &str) -> Result<DataSet, CliError> {
    DataSet::open(spec).map_err(refused)
}

/// A failure of a data file.
pub fn refused(error: DataError) -> CliError {
    match &error {
        DataError::Io { file, source } => CliError::io(Path::new(file), source, "read").sorted(Exit::Data),
        _ => CliError::new(Exit::Data, &error),
    }
}

/// Indices of the images at `range` within `split`.
pub fn choose(data: &DataSet, split: Split, range: Option<Range>) -> Result<Vec<usize>, CliError> {
    let all = data.indices(split);
    let Range { from, to } = range.unwrap_or(Range { from: 0, to: all.len() });
    all.get(from..to).map(<[usize]>::to_vec).filter(|chosen| !chosen.is_empty()).ok_or_else(|| {
        let message =
            format!("{}: the {split} split has {} images, asked for {from}..{to}", data.name(), all.len());
        CliError::new(Exit::Data, message)
    })
}

/// Images as a network with this input shape takes them.
pub fn tensors(
    data: &DataSet,
    indices: &[usize],
    shape: &[usize],
    preprocessing: Option<&Preprocessing>,
) -> Result<Vec<Tensor>, CliError> {
    require_shape(data, shape)?;
    let preprocessing = preprocessing.unwrap_or(data.preprocessing());
    let image = |&index| {
        data.image_with(index, preprocessing)
            .reshape(shape.to_vec())
            .map_err(|e| CliError::new(Exit::Data, e))
    };
    indices.iter().map(image).collect()
}

/// Requires that the images of `data` have the network's input shape.
pub fn require_shape(data: &DataSet, shape: &[usize]) -> Result<(), CliError> {
    let found = data.shape();
    let flat = shape.len() == 1 && shape[0] == found.iter().product::<usize>();
    if found.as_slice() == shape || flat {
        return Ok(());
    }
    let message = format!("images of {} have shape {found:?}, the network takes {shape:?}", data.name());
    Err(CliError::new(Exit::Data, message).help("choose the data set that the network was trained on"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(parse_range("7"), Ok(Range { from: 7, to: 8 }));
        assert_eq!(parse_range("0..20"), Ok(Range { from: 0, to: 20 }));
        assert!(parse_range("5..5").is_err() && parse_range("a").is_err() && parse_range("3..").is_err());
    }
}
