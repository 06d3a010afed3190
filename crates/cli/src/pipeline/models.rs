//! Network files and what their metadata says.

use std::path::Path;

use polyveil_net::onnx::{self, OnnxError};
use polyveil_net::weights::{self, FreshHead, Naming, WeightsError};
use polyveil_net::{Graph, Tensor};
use polyveil_train::Preprocessing;

use crate::error::{CliError, Exit};
use crate::files;
use crate::session::Session;

/// Reads an ONNX file. All unsupported operators are listed at once.
pub fn load(path: &Path) -> Result<Graph, CliError> {
    onnx::from_path(path).map_err(|error| refused(path, &error))
}

/// Writes an ONNX file.
pub fn save(graph: &Graph, path: &Path) -> Result<(), CliError> {
    let bytes = onnx::to_bytes(graph).map_err(|error| refused(path, &error))?;
    files::write_bytes(path, &bytes)
}

fn refused(path: &Path, error: &OnnxError) -> CliError {
    match error {
        OnnxError::Io { source, .. } => CliError::io(path, source, "read").sorted(Exit::Model),
        OnnxError::Unsupported(_) => CliError::new(Exit::Model, error)
            .at(path)
            .help("replace or remove the nodes listed above and export the network again"),
        _ => CliError::new(Exit::Model, error).at(path),
    }
}

/// Reads safetensors weights into a network; a classifier for other classes is left out, and that is said.
/// True where all weights are the file's.
pub fn load_weights(graph: &mut Graph, path: &Path, session: &Session) -> Result<bool, CliError> {
    let fresh = weights::load_pretrained(graph, path, Naming::Node).map_err(|error| match &error {
        WeightsError::Io { source, .. } => CliError::io(path, source, "read").sorted(Exit::Model),
        WeightsError::Mismatch(_) => CliError::new(Exit::Model, &error)
            .at(path)
            .help("give the --arch, --image-size and --color that the weights were made for"),
        _ => CliError::new(Exit::Model, &error).at(path),
    })?;
    if let Some(FreshHead { node, classes, found }) = &fresh {
        session.note(&format!(
            "{}: {node} is for {found} classes; the network has {classes}, so this layer starts from random weights",
            path.display()
        ));
    }
    Ok(fresh.is_none())
}

/// Requires a network without ReLU and max-pool.
pub fn require_he_friendly(graph: &Graph, path: &Path) -> Result<(), CliError> {
    graph.is_he_friendly().map_err(|nodes| {
        let list: String = nodes.iter().map(|n| format!("\n  {n}")).collect();
        let (count, verb) = (nodes.len(), if nodes.len() == 1 { "node is" } else { "nodes are" });
        CliError::new(Exit::Model, format!("{count} {verb} not HE-friendly:{list}"))
            .at(path)
            .help("`polyveil convert MODEL --data DATA --out STUDENT.onnx` trains an HE-friendly network from this one")
    })
}

/// The pre-processing that the model was trained with, where its file carries one.
pub fn preprocessing(graph: &Graph) -> Result<Option<Preprocessing>, CliError> {
    polyveil_train::metadata::preprocessing(graph).map_err(|e| CliError::new(Exit::Model, e))
}

/// Pre-processing from its JSON form.
pub fn parse_preprocessing(json: Option<&str>) -> Result<Option<Preprocessing>, CliError> {
    let refuse =
        |why: String| CliError::new(Exit::File, format!("the plan's pre-processing is not valid: {why}"));
    let Some(json) = json else { return Ok(None) };
    let found: Preprocessing = serde_json::from_str(json).map_err(|e| refuse(e.to_string()))?;
    if !found.is_sound() {
        return Err(refuse("a mean, deviation, limit or size that no images have".to_owned()));
    }
    Ok(Some(found))
}

/// Reproducible uniform noise in [0, 1) in the network's input shape, where no real image is given.
pub fn random_inputs(shape: &[usize], count: usize, seed: u64) -> Vec<Tensor> {
    // SplitMix64 (Steele, Lea, Flood 2014): plenty for test inputs, and the same everywhere.
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32
    };
    let mut image = || {
        let mut tensor = Tensor::full(shape.to_vec(), 0.0);
        tensor.data_mut().iter_mut().for_each(|value| *value = uniform());
        tensor
    };
    (0..count).map(|_| image()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_inputs_are_reproducible_and_in_range() {
        let a = random_inputs(&[3, 20, 20], 2, 5);
        assert_eq!(a, random_inputs(&[3, 20, 20], 2, 5));
        assert_ne!(a[0], a[1]);
        assert!(a[0].data().iter().all(|v| (0.0..1.0).contains(v)));
        let mean = a[0].data().iter().sum::<f32>() / a[0].len() as f32;
        assert!((mean - 0.5).abs() < 0.05, "{mean}");
    }

    #[test]
    fn a_pre_processing_that_no_image_survives_is_refused() {
        let json = |std: &str, limit: &str| {
            format!(r#"{{"scale": 0.004, "mean": [0.0], "std": [{std}], "standardise": {limit}}}"#)
        };
        let parse = |text: String| parse_preprocessing(Some(&text));
        assert!(parse(json("1.0", "3.0")).is_ok_and(|p| p.is_some()));
        for bad in [json("0.0", "3.0"), json("1.0", "-3.0"), json("1.0", "0.0"), "{}".to_owned()] {
            assert!(parse(bad.clone()).is_err_and(|e| e.to_string().contains("pre-processing")), "{bad}");
        }
    }
}
