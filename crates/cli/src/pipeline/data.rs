//! Data sets and choices of images from them.

use std::path::Path;

use clap::{Args, ValueEnum};
use polyveil_net::{Graph, Tensor};
use polyveil_train::data::{Color, ImageSize, Normalise, SplitRule};
use polyveil_train::{DataError, DataOptions, DataSet, Preprocessing, Split};

use crate::error::{CliError, Exit};
use crate::pipeline::models;
use crate::session::Session;

/// Part of a data set, as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SplitArg {
    /// The images that networks are fitted to.
    Train,
    /// The images that choose between networks.
    #[value(alias = "val")]
    Validation,
    /// The images that figures are reported on.
    Test,
    /// Every image.
    All,
}

impl SplitArg {
    /// The images of this part, in order.
    pub fn indices(self, data: &DataSet) -> Vec<usize> {
        match self {
            Self::Train => data.indices(Split::Train).to_vec(),
            Self::Validation => data.indices(Split::Validation).to_vec(),
            Self::Test => data.indices(Split::Test).to_vec(),
            Self::All => (0..data.len()).collect(),
        }
    }
}

impl std::fmt::Display for SplitArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
            Self::All => "all",
        })
    }
}

/// How images become network input, as arguments.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Images")]
pub struct DataArgs {
    /// Side of the network input in pixels, or HEIGHTxWIDTH [default: the network's, else the images'].
    #[arg(long, value_name = "PIXELS", value_parser = parse_size)]
    image_size: Option<ImageSize>,
    /// Short side that images are scaled to before the crop [default: the network's, else 8/7 of the input].
    #[arg(long, value_name = "PIXELS")]
    resize: Option<usize>,
    /// Grey or colour input [default: the network's, else as the images].
    #[arg(long, value_enum)]
    color: Option<ColorArg>,
    /// Where mean and deviation of the input come from [default: the network's, else the training images].
    #[arg(long, value_enum)]
    normalise: Option<NormaliseArg>,
    /// Picks validation and test images where the data names none.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    split_seed: u64,
    /// Refuse data with the same image or patient in two splits.
    #[arg(long)]
    strict_data: bool,
}

/// Channels of the input.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ColorArg {
    /// Three channels; grey images are repeated.
    Rgb,
    /// One channel.
    #[value(alias = "grey")]
    Gray,
}

/// Origin of mean and deviation.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum NormaliseArg {
    /// Measured on the training images.
    Data,
    /// Those of ImageNet, for networks that start from its weights.
    Imagenet,
    /// Each image by itself, cut at 2.5 deviations: brightness and contrast of a device do not matter.
    Image,
}

fn parse_size(text: &str) -> Result<ImageSize, String> {
    let number =
        |t: &str| t.parse::<usize>().map_err(|_| format!("\"{t}\" is no number; give 224 or 224x160"));
    match text.split_once('x') {
        Some((height, width)) => Ok(ImageSize::Sides([number(height)?, number(width)?])),
        None => number(text).map(ImageSize::Square),
    }
}

impl DataArgs {
    /// These choices over those of `base`.
    fn over(&self, base: DataOptions) -> DataOptions {
        let color = self.color.map(|c| match c {
            ColorArg::Rgb => Color::Rgb,
            ColorArg::Gray => Color::Gray,
        });
        let normalise = self.normalise.map(|n| match n {
            NormaliseArg::Data => Normalise::Data,
            NormaliseArg::Imagenet => Normalise::Imagenet,
            NormaliseArg::Image => Normalise::Image,
        });
        // Another input size has another margin.
        let resize = if self.image_size.is_some() { None } else { base.resize };
        DataOptions {
            image_size: self.image_size.or(base.image_size),
            resize: self.resize.or(resize),
            color: color.unwrap_or(base.color),
            normalise: normalise.unwrap_or(base.normalise),
            split: SplitRule { seed: self.split_seed, ..base.split },
            strict: self.strict_data || base.strict,
            ..base
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

/// Opens a data set as it is.
pub fn open(spec: &str) -> Result<DataSet, CliError> {
    DataSet::open(spec).map_err(refused)
}

/// Opens a data set to train a new network on, and says what is odd about it.
pub fn open_chosen(spec: &str, choices: &DataArgs, session: &Session) -> Result<DataSet, CliError> {
    open_with(spec, &choices.over(DataOptions::default()), session)
}

/// Opens a data set as a network takes it: with the size, colour and classes that its file names; image
/// files are brought to its input size also where it names none.
pub fn open_for(
    spec: &str,
    graph: &Graph,
    choices: &DataArgs,
    session: &Session,
) -> Result<DataSet, CliError> {
    open_with(spec, &options_for(graph, choices)?, session)
}

/// How a network takes its images.
pub fn options_for(graph: &Graph, choices: &DataArgs) -> Result<DataOptions, CliError> {
    let classes = polyveil_train::metadata::class_names(graph).map_err(|e| CliError::new(Exit::Model, e))?;
    let base = fitting(graph.input_shape(), models::preprocessing(graph)?.as_ref(), classes);
    Ok(choices.over(base))
}

/// Opens a data set as a plan takes it.
pub fn open_for_plan(
    spec: &str,
    shape: &[usize],
    preprocessing: Option<&Preprocessing>,
    classes: &[String],
    session: &Session,
) -> Result<DataSet, CliError> {
    let classes = (!classes.is_empty()).then(|| classes.to_vec());
    open_with(spec, &fitting(shape, preprocessing, classes), session)
}

fn fitting(
    shape: &[usize],
    preprocessing: Option<&Preprocessing>,
    classes: Option<Vec<String>>,
) -> DataOptions {
    match (preprocessing.and_then(|p| p.geometry), shape) {
        (Some(geometry), _) => DataOptions::for_network(geometry, classes),
        (None, &[channels, height, width]) => DataOptions {
            image_size: Some(ImageSize::Sides([height, width])),
            color: match channels {
                1 => Color::Gray,
                3 => Color::Rgb,
                _ => Color::Auto,
            },
            // Arrays of another shape are another task's.
            files_only: true,
            classes,
            ..DataOptions::default()
        },
        _ => DataOptions { classes, ..DataOptions::default() },
    }
}

/// Adds images without labels to a data set, and says how many.
pub fn with_unlabelled(
    mut data: DataSet,
    sources: &[String],
    options: &DataOptions,
    session: &Session,
) -> Result<DataSet, CliError> {
    for source in sources {
        let before = data.unlabelled().len();
        data = data.with_unlabelled(source, options).map_err(refused)?;
        session.note(&format!("{source}: {} images to learn from", data.unlabelled().len() - before));
    }
    Ok(data)
}

/// Opens a data set, and says what is odd about it.
pub fn open_with(spec: &str, options: &DataOptions, session: &Session) -> Result<DataSet, CliError> {
    let data = DataSet::open_with(spec, options).map_err(refused)?;
    if !data.leaks().is_empty() {
        session.note(&format!("warning: {spec}: {}", data.leaks()));
    }
    Ok(data)
}

/// A failure of a data file.
pub fn refused(error: DataError) -> CliError {
    match &error {
        DataError::Leak { .. } => CliError::new(Exit::Data, &error)
            .help("put each image and each patient into one split, or leave --strict-data out"),
        DataError::Io { file, source } => CliError::io(Path::new(file), source, "read").sorted(Exit::Data),
        _ => CliError::new(Exit::Data, &error),
    }
}

/// Indices of the images at `positions` within `split`; all of them where none are given.
pub fn choose(
    data: &DataSet,
    split: SplitArg,
    positions: Option<&Positions>,
) -> Result<Vec<usize>, CliError> {
    let all = split.indices(data);
    let refuse = |asked: String| {
        let message =
            format!("{}: the {split} split has {} images, asked for {asked}", data.name(), all.len());
        CliError::new(Exit::Data, message)
    };
    let Some(Positions(ranges)) = positions else {
        return if all.is_empty() { Err(refuse("all".into())) } else { Ok(all) };
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
    fn choices_go_over_those_of_the_network() {
        let geometry = polyveil_train::Geometry { channels: 1, height: 96, width: 96, resize: 110 };
        let base = || DataOptions::for_network(geometry, None);
        assert_eq!(DataArgs { split_seed: 1, ..DataArgs::default() }.over(base()), base());
        let args = DataArgs {
            image_size: Some(ImageSize::Square(64)),
            color: Some(ColorArg::Rgb),
            ..DataArgs::default()
        };
        let over = args.over(base());
        assert_eq!(
            (over.image_size, over.resize, over.color),
            (Some(ImageSize::Square(64)), None, Color::Rgb)
        );
        assert_eq!(parse_size("224x160"), Ok(ImageSize::Sides([224, 160])));
        assert!(parse_size("big").unwrap_err().contains("big"));
    }

    #[test]
    fn positions() {
        assert_eq!(parse_positions("0..20,3"), Ok(Positions(vec![0..20, 3..4])));
        assert_eq!(parse_positions("7, 9"), Ok(Positions(vec![7..8, 9..10])));
        for bad in ["5..5", "a", "3..", "1,,2", ""] {
            assert!(parse_positions(bad).is_err(), "{bad}");
        }
    }
}
