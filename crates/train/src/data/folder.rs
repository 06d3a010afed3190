//! Directories: which kind of data set one holds, and idx files under their usual names.

use std::path::{Path, PathBuf};

use super::{DataError, DataOptions, MAX_BYTES, Parts, cifar, idx, manifest, split, tree};

const SPLIT_SEED: u64 = 60_000;
const TRAIN: [&str; 2] = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"];
const TEST: [[&str; 2]; 2] = [
    ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"],
    ["test-images-idx3-ubyte", "test-labels-idx1-ubyte"],
];

/// Loads a directory: a `manifest.csv`, idx files, CIFAR files, or folders of images.
pub(super) fn load(folder: &Path, options: &DataOptions) -> Result<Parts, DataError> {
    if folder.join(manifest::FILE).is_file() {
        return manifest::load(folder, options);
    }
    if let Some(train) = find_pair(folder, TRAIN) {
        return load_idx(folder, &train, options);
    }
    let records = cifar::files(folder);
    if !records.is_empty() {
        return cifar::load(name(folder), &records, options);
    }
    if tree::is_tree(folder) {
        return tree::load(folder, options);
    }
    Err(DataError::NoDataSet {
        folder: folder.display().to_string(),
        expected: format!(
            "{}, folders of .jpg or .png files (one a class), CIFAR files (.bin, .bin.gz), or {}[.gz] and its \
             companions",
            manifest::FILE,
            TRAIN[0]
        ),
    })
}

/// Loads train and test pairs; one training image in ten, stratified, becomes the validation split.
fn load_idx(folder: &Path, train: &[PathBuf; 2], options: &DataOptions) -> Result<Parts, DataError> {
    let missing = || DataError::NoDataSet {
        folder: folder.display().to_string(),
        expected: format!("{}[.gz], {}[.gz] and a test-… or t10k-… pair", TRAIN[0], TRAIN[1]),
    };
    let test = TEST.iter().find_map(|names| find_pair(folder, *names)).ok_or_else(missing)?;

    let (mut pixels, mut labels, shape) = read_pair(train)?;
    let (test_pixels, test_labels, test_shape) = read_pair(&test)?;
    if test_shape != shape {
        return Err(DataError::format(
            &test[0].display().to_string(),
            format!("images of shape {shape:?}"),
            format!("{test_shape:?}"),
        ));
    }
    let boundary = labels.len();
    pixels.extend_from_slice(&test_pixels);
    labels.extend_from_slice(&test_labels);
    let classes = labels.iter().max().map_or(0, |&m| m as usize + 1);
    let mut parts = Parts {
        name: name(folder),
        shape,
        pixels,
        class_names: match &options.classes {
            Some(names) if names.len() >= classes => names.clone(),
            _ => (0..classes).map(|c| c.to_string()).collect(),
        },
        train: (0..boundary).collect(),
        test: (boundary..labels.len()).collect(),
        labels,
        ..Parts::default()
    };
    hold_out_validation(&mut parts);
    Ok(parts)
}

/// One training image in ten, stratified, becomes the validation split where there is none.
pub(super) fn hold_out_validation(parts: &mut Parts) {
    if parts.validation.is_empty() {
        let count = parts.train.len() / 10;
        (parts.train, parts.validation) = split::stratified(&parts.train, &parts.labels, count, SPLIT_SEED);
    }
}

/// The last part of a path: the name of a data set.
pub(super) fn name(path: &Path) -> String {
    let full = std::fs::canonicalize(path);
    let path = full.as_deref().unwrap_or(path);
    path.file_name().map_or_else(|| "data".to_owned(), |n| n.to_string_lossy().into_owned())
}

/// The name of a file without its suffixes.
pub(super) fn stem(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    name.split('.').next().filter(|n| !n.is_empty()).unwrap_or("data").to_owned()
}

fn find_pair(folder: &Path, names: [&str; 2]) -> Option<[PathBuf; 2]> {
    let find = |name: &str| {
        [folder.join(name), folder.join(format!("{name}.gz"))].into_iter().find(|path| path.is_file())
    };
    Some([find(names[0])?, find(names[1])?])
}

/// Pixels, labels, and the shape of one image.
type Pair = (Vec<u8>, Vec<u32>, [usize; 3]);

fn read_pair(paths: &[PathBuf; 2]) -> Result<Pair, DataError> {
    let images = read(&paths[0])?;
    let labels = read(&paths[1])?;
    let [count, height, width] = images.shape[..] else {
        return Err(DataError::format(
            &paths[0].display().to_string(),
            "3 axes: images, rows, columns",
            format!("shape {:?}", images.shape),
        ));
    };
    if labels.shape != [count] {
        return Err(DataError::format(
            &paths[1].display().to_string(),
            format!("{count} labels, as many as images"),
            format!("shape {:?}", labels.shape),
        ));
    }
    Ok((images.data, labels.data.iter().map(|&l| u32::from(l)).collect(), [1, height, width]))
}

fn read(path: &Path) -> Result<idx::IdxArray, DataError> {
    idx::parse(&path.display().to_string(), &read_bounded(path)?)
}

/// Reads a file that is not larger than any data set may be.
pub(super) fn read_bounded(path: &Path) -> Result<Vec<u8>, DataError> {
    read_at_most(path, MAX_BYTES)
}

/// Reads a regular file of at most `limit` bytes.
pub(super) fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>, DataError> {
    let metadata = std::fs::metadata(path).map_err(|e| DataError::io(path, e))?;
    let refuse = |expected: String, found: String| {
        Err(DataError::format(&path.display().to_string(), expected, found))
    };
    if !metadata.is_file() {
        return refuse(
            "a file".into(),
            if metadata.is_dir() { "a directory" } else { "a device or pipe" }.into(),
        );
    }
    if metadata.len() > limit {
        return refuse(format!("at most {limit} bytes"), metadata.len().to_string());
    }
    std::fs::read(path).map_err(|e| DataError::io(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataSet, Split};

    fn idx_bytes(shape: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, shape.len() as u8];
        bytes.extend(shape.iter().flat_map(|d| d.to_be_bytes()));
        bytes.extend_from_slice(data);
        bytes
    }

    fn write_set(folder: &Path, train: usize, labels: usize) {
        let write = |name: &str, bytes: Vec<u8>| std::fs::write(folder.join(name), bytes).unwrap();
        write(TRAIN[0], idx_bytes(&[train as u32, 2, 2], &vec![7; train * 4]));
        write(TRAIN[1], idx_bytes(&[labels as u32], &(0..labels).map(|i| (i % 2) as u8).collect::<Vec<_>>()));
        write("t10k-images-idx3-ubyte", idx_bytes(&[2, 2, 2], &[1; 8]));
        write("t10k-labels-idx1-ubyte", idx_bytes(&[2], &[0, 1]));
    }

    #[test]
    fn pairs_are_found_and_split() {
        let folder = tempfile::tempdir().unwrap();
        write_set(folder.path(), 40, 40);
        let data = DataSet::open(folder.path().to_str().unwrap()).unwrap();
        let counts = [Split::Train, Split::Validation, Split::Test].map(|s| data.indices(s).len());
        assert_eq!((counts, data.shape(), data.class_names().len()), ([36, 4, 2], [1, 2, 2], 2));
    }

    #[test]
    fn an_empty_folder_and_unequal_pairs_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let spec = folder.path().to_str().unwrap().to_owned();
        assert!(DataSet::open(&spec).unwrap_err().to_string().contains("train-images-idx3-ubyte"));
        write_set(folder.path(), 40, 39);
        let message = DataSet::open(&spec).unwrap_err().to_string();
        assert!(message.contains("40 labels") && message.contains("[39]"), "{message}");
    }
}
