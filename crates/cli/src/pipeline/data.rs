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

/// Positions within a split, in the order asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions(Vec<std::ops::Range<usize>>);

/// Parses positions such as `7`, `0..20` (without 20) or `3,8,10..12`.
pub fn parse_positions(text: &str) -> Result<Positions, String> {
    text.split(',').map(parse_range).collect::<Result<_, _>>().map(Positions)
}

fn parse_range(text: &str) -> Result<std::ops::Range<usize>, String> {
    let number = |t: &str| {
        t.trim().parse::<usize>().map_err(|_| format!("\"{t}\" is not a number; give 7, 0..20 or 3,8"))
    };
    let range = match text.split_once("..") {
        Some((from, to)) => number(from)?..number(to)?,
        None => {
            let at = number(text)?;
            at..at.saturating_add(1)
        }
    };
    if range.start < range.end { Ok(range) } else { Err(format!("{text} holds no image")) }
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

/// Indices of the images at `positions` within `split`; all of them where none are given.
pub fn choose(data: &DataSet, split: Split, positions: Option<&Positions>) -> Result<Vec<usize>, CliError> {
    let all = data.indices(split);
    let refuse = |asked: String| {
        let message =
            format!("{}: the {split} split has {} images, asked for {asked}", data.name(), all.len());
        CliError::new(Exit::Data, message)
    };
    let Some(Positions(ranges)) = positions else {
        return if all.is_empty() { Err(refuse("all".into())) } else { Ok(all.to_vec()) };
    };
    let mut chosen = Vec::new();
    for range in ranges {
        let found =
            all.get(range.clone()).ok_or_else(|| refuse(format!("{}..{}", range.start, range.end)))?;
        chosen.extend_from_slice(found);
    }
    Ok(chosen)
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
    fn positions() {
        assert_eq!(parse_positions("0..20,3"), Ok(Positions(vec![0..20, 3..4])));
        assert_eq!(parse_positions("7, 9"), Ok(Positions(vec![7..8, 9..10])));
        for bad in ["5..5", "a", "3..", "1,,2", ""] {
            assert!(parse_positions(bad).is_err(), "{bad}");
        }
    }
}
