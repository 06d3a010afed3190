//! What a trained network carries beside its weights, in [`Graph::metadata`].
//!
//! | key | JSON |
//! |---|---|
//! | [`PREPROCESSING`] | [`Preprocessing`] |
//! | [`CLASSES`] | array of class names |
//! | [`RANGES`] | [`Ranges`] |
//! | [`PROVENANCE`] | object: versions, seed, data, configuration |

use std::collections::BTreeMap;

use polyveil_net::Graph;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::data::{DataSet, Preprocessing};
use crate::error::TrainError;
use crate::history::Verdict;

/// Key of the pre-processing.
pub const PREPROCESSING: &str = "polyveil.preprocessing";
/// Key of the class names.
pub const CLASSES: &str = "polyveil.classes";
/// Key of the measured ranges.
pub const RANGES: &str = "polyveil.ranges";
/// Key of the origin of the network.
pub const PROVENANCE: &str = "polyveil.provenance";

/// Ranges by node name: for a quadratic those of its *input*, for the output node those of the
/// scores. Measured on the training split, in inference mode, without augmentation.
pub type Ranges = BTreeMap<String, RangeRecord>;

/// Range of the values of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RangeRecord {
    /// Smallest value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
    /// 99.9 % of all `|x|` are at or below this (at most 6 % too large).
    pub p999: f32,
    /// Largest `|x|` of each channel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<f32>,
    /// The bound that the run declared for `|x|`; none where it declared none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<f32>,
    /// Share of all `|x|` within the bound, by split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Within>,
}

/// Share of the values within a bound, by split; none where the split holds no image. At least as
/// large in truth: counted in bins 6 % apart, exact where the bound is a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Within {
    /// On the training split.
    pub train: Option<f64>,
    /// On the validation split.
    pub validation: Option<f64>,
    /// On the test split.
    pub test: Option<f64>,
}

/// The pre-processing that a network expects; none when it carries none.
///
/// # Errors
/// When the entry is not the JSON of a [`Preprocessing`] with one positive deviation a mean.
pub fn preprocessing(graph: &Graph) -> Result<Option<Preprocessing>, TrainError> {
    let found: Option<Preprocessing> = read(graph, PREPROCESSING)?;
    match found {
        Some(p) if !p.is_sound() => Err(TrainError::Metadata {
            key: PREPROCESSING.to_owned(),
            reason: "expected one finite mean and one positive deviation a channel, positive limits where images are standardised or their edges limited, and sizes that images can have".to_owned(),
        }),
        found => Ok(found),
    }
}

/// The class names of a network; none when it carries none.
///
/// # Errors
/// When the entry is not a JSON array of text.
pub fn class_names(graph: &Graph) -> Result<Option<Vec<String>>, TrainError> {
    read(graph, CLASSES)
}

/// The measured ranges of a network; none when it carries none.
///
/// # Errors
/// When the entry is not the JSON of [`Ranges`].
pub fn ranges(graph: &Graph) -> Result<Option<Ranges>, TrainError> {
    read(graph, RANGES)
}

/// Writes pre-processing and class names of `data` into a network that comes without training.
///
/// # Errors
/// When network and data do not fit each other.
pub fn describe(graph: &mut Graph, data: &DataSet) -> Result<(), TrainError> {
    crate::metrics::check_fit(graph, data)?;
    describe_data(graph, data, data.preprocessing())
}

/// Writes pre-processing and class names of the data that a network is trained on.
pub(crate) fn describe_data(
    graph: &mut Graph,
    data: &DataSet,
    preprocessing: &Preprocessing,
) -> Result<(), TrainError> {
    write(graph, PREPROCESSING, preprocessing)?;
    write(graph, CLASSES, &data.class_names())
}

/// Writes one entry as JSON.
pub(crate) fn write(graph: &mut Graph, key: &str, value: &impl Serialize) -> Result<(), TrainError> {
    let text = serde_json::to_string(value)
        .map_err(|e| TrainError::Metadata { key: key.to_owned(), reason: e.to_string() })?;
    graph.metadata.insert(key.to_owned(), text);
    Ok(())
}

fn read<T: DeserializeOwned>(graph: &Graph, key: &str) -> Result<Option<T>, TrainError> {
    graph
        .metadata
        .get(key)
        .map(|text| serde_json::from_str(text))
        .transpose()
        .map_err(|e| TrainError::Metadata { key: key.to_owned(), reason: e.to_string() })
}

/// The origin of a network.
#[derive(Debug, Serialize)]
pub(crate) struct Provenance<'a, C: Serialize> {
    pub(crate) kind: &'static str,
    pub(crate) tool: &'static str,
    pub(crate) engine: &'static str,
    pub(crate) seed: u64,
    pub(crate) data: &'a str,
    pub(crate) data_fingerprint: &'a str,
    /// Images without labels that it learnt from as well.
    pub(crate) unlabelled: usize,
    pub(crate) best_epoch: Option<usize>,
    pub(crate) validation_accuracy: f64,
    pub(crate) verdict: &'a Verdict,
    pub(crate) config: &'a C,
}

/// This crate and its version.
pub(crate) const TOOL: &str = concat!("polyveil-train ", env!("CARGO_PKG_VERSION"));
/// The engine and its (pinned) version.
pub const ENGINE: &str =
    if cfg!(feature = "burn") { "burn-tensor 0.22.1" } else { concat!("native ", env!("CARGO_PKG_VERSION")) };

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(key: &str, text: &str) -> Graph {
        let metadata = BTreeMap::from([(key.to_owned(), text.to_owned())]);
        Graph { name: "t".into(), nodes: Vec::new(), output: 0, metadata }
    }

    #[test]
    fn hostile_preprocessing_is_refused() {
        for text in [
            "",
            "[]",
            r#"{"scale":1,"mean":[],"std":[]}"#,
            r#"{"scale":1,"mean":[0],"std":[0]}"#,
            r#"{"scale":1,"mean":[0,0],"std":[1]}"#,
            r#"{"scale":1,"mean":[0],"std":[1],"more":2}"#,
            r#"{"scale":1,"mean":[0],"std":[1],"geometry":{"channels":2,"height":1,"width":1,"resize":1}}"#,
            r#"{"scale":1,"mean":[0],"std":[1],"geometry":{"channels":1,"height":0,"width":1,"resize":1}}"#,
        ] {
            let message = preprocessing(&graph(PREPROCESSING, text)).unwrap_err().to_string();
            assert!(message.contains(PREPROCESSING), "{message}");
        }
        let sound = graph(PREPROCESSING, r#"{"scale":0.5,"mean":[0.1],"std":[2]}"#);
        assert_eq!(preprocessing(&sound).unwrap().unwrap().std, [2.0]);
        assert_eq!(preprocessing(&graph("other", "")).unwrap(), None);
    }
}
