//! Data sets as safetensors: images `[N, C, H, W]` or `[N, H, W]` of `U8`, labels `[N]` of any integer
//! type, under the names that `.npz` archives have (`train_images`, `train_labels`, …).
//!
//! Class names may stand in the file's metadata: `classes`, a JSON array of text.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::npy::{NpyArray, NpyData};
use super::npz::{self, Layout};
use super::{DataError, DataOptions, MAX_CLASSES, Parts, folder};

/// Arrays by name, and class names where the file has them.
pub type Named = (BTreeMap<String, NpyArray>, Option<Vec<String>>);

/// Parses the bytes of a safetensors file into arrays and class names. `file` is the name for messages.
///
/// # Errors
/// Bytes that are not safetensors; a tensor of a type that is neither bytes nor integers.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Named, DataError> {
    let damaged =
        |e: &dyn std::fmt::Display| DataError::format(file, "a sound safetensors file", e.to_string());
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(&e))?;
    let classes = header
        .metadata()
        .as_ref()
        .and_then(|m| m.get("classes"))
        .map(|text| serde_json::from_str::<Vec<String>>(text))
        .transpose()
        .map_err(|e| DataError::format(file, "metadata classes: a JSON array of text", e.to_string()))?;
    if let Some(names) = classes.as_ref().filter(|n| n.len() > MAX_CLASSES) {
        return Err(DataError::format(
            file,
            format!("at most {MAX_CLASSES} classes"),
            names.len().to_string(),
        ));
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| damaged(&e))?;
    let mut arrays = BTreeMap::new();
    for (name, view) in tensors.iter() {
        let data = view.data();
        let wide = |values: Vec<i64>| Ok(NpyData::I64(values));
        let data = match view.dtype() {
            Dtype::U8 => Ok(NpyData::U8(data.to_vec())),
            Dtype::I8 => wide(data.iter().map(|&b| i64::from(b.cast_signed())).collect()),
            Dtype::I16 => {
                wide(data.as_chunks().0.iter().map(|&b| i64::from(i16::from_le_bytes(b))).collect())
            }
            Dtype::I32 => {
                wide(data.as_chunks().0.iter().map(|&b| i64::from(i32::from_le_bytes(b))).collect())
            }
            Dtype::I64 => wide(data.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect()),
            other => Err(format!("{other:?}")),
        };
        let part = || format!("{file}: {name}");
        let data = data.map_err(|found| DataError::format(&part(), "bytes or signed integers", found))?;
        arrays.insert(name.to_owned(), NpyArray { shape: view.shape().to_vec(), data });
    }
    Ok((arrays, classes))
}

/// Loads a data set with the file's own splits.
pub(super) fn load(path: &Path, options: &DataOptions) -> Result<Parts, DataError> {
    let file = path.display().to_string();
    let (arrays, classes) = parse(&file, &folder::read_bounded(path)?)?;
    let mut parts = npz::assemble(&file, folder::stem(path), arrays, Layout::PlanesFirst, options)?;
    // A network's own order of classes goes first.
    if let (Some(names), None) = (classes, &options.classes) {
        if names.len() < parts.class_names.len() {
            let expected = format!("a class name for each of {} labels", parts.class_names.len());
            return Err(DataError::format(&file, expected, names.len().to_string()));
        }
        parts.class_names = names;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataSet, Split};
    use safetensors::tensor::TensorView;

    fn file(classes: &str) -> Vec<u8> {
        let pixels: Vec<u8> = (0..24).collect();
        let labels: Vec<u8> = [1i32, 0].iter().flat_map(|l| l.to_le_bytes()).collect();
        let test: Vec<u8> = (100..112).collect();
        let views = [
            ("train_images", TensorView::new(Dtype::U8, vec![2, 3, 2, 2], &pixels).unwrap()),
            ("train_labels", TensorView::new(Dtype::I32, vec![2], &labels).unwrap()),
            ("test_images", TensorView::new(Dtype::U8, vec![1, 3, 2, 2], &test).unwrap()),
            ("test_labels", TensorView::new(Dtype::U8, vec![1], &[1]).unwrap()),
        ];
        let metadata = [("classes".to_owned(), classes.to_owned())].into();
        safetensors::serialize(views, Some(metadata)).unwrap()
    }

    fn open(bytes: &[u8]) -> Result<DataSet, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.safetensors");
        std::fs::write(&path, bytes).unwrap();
        DataSet::open(path.to_str().unwrap())
    }

    #[test]
    fn planes_labels_and_names_are_read() {
        let data = open(&file(r#"["cat","dog"]"#)).unwrap();
        assert_eq!((data.shape(), data.labels(), data.name()), ([3, 2, 2], [1, 0, 1].as_slice(), "set"));
        assert_eq!(data.class_names(), ["cat", "dog"]);
        assert_eq!(data.pixels(1)[..4], [12, 13, 14, 15]);
        assert_eq!(data.indices(Split::Test), [2]);
    }

    #[test]
    fn hostile_files_are_refused() {
        assert!(open(&file("[1]")).unwrap_err().to_string().contains("JSON array of text"));
        assert!(open(&file(r#"["one"]"#)).unwrap_err().to_string().contains("each of 2 labels"));
        let good = file(r#"["cat","dog"]"#);
        for length in (0..good.len()).step_by(3) {
            open(&good[..length]).unwrap_err();
        }
        for position in 0..good.len() {
            let mut altered = good.clone();
            altered[position] ^= 0x15;
            let _ = parse("t", &altered);
        }
        let floats = [0u8; 8];
        let view = TensorView::new(Dtype::F32, vec![2], &floats).unwrap();
        let bytes = safetensors::serialize([("images", view)], None).unwrap();
        assert!(open(&bytes).unwrap_err().to_string().contains("found F32"));
    }
}
