//! A directory of idx files under their usual names.

use std::path::{Path, PathBuf};

use super::{DataError, DataSet, MAX_BYTES, Parts, idx, split};

const SPLIT_SEED: u64 = 60_000;
const TRAIN: [&str; 2] = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"];
const TEST: [[&str; 2]; 2] = [
    ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"],
    ["test-images-idx3-ubyte", "test-labels-idx1-ubyte"],
];

/// Loads train and test pairs; one training image in ten, stratified, becomes the validation split.
pub(super) fn load(folder: &Path) -> Result<DataSet, DataError> {
    let missing = || DataError::NoDataSet {
        folder: folder.display().to_string(),
        expected: format!("{}[.gz], {}[.gz] and a test-… or t10k-… pair", TRAIN[0], TRAIN[1]),
    };
    let train = find_pair(folder, TRAIN).ok_or_else(missing)?;
    let test = TEST.iter().find_map(|names| find_pair(folder, *names)).ok_or_else(missing)?;

    let (mut pixels, mut labels, shape) = read_pair(&train)?;
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
    let indices: Vec<usize> = (0..boundary).collect();
    let (train, validation) = split::stratified(&indices, &labels, boundary / 10, SPLIT_SEED);
    DataSet::new(Parts {
        name: folder.file_name().map_or_else(|| "idx".to_owned(), |n| n.to_string_lossy().into_owned()),
        shape,
        pixels,
        class_names: (0..classes).map(|c| c.to_string()).collect(),
        train,
        validation,
        test: (boundary..labels.len()).collect(),
        labels,
    })
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
    let size = std::fs::metadata(path).map_err(|e| DataError::io(path, e))?.len();
    if size > MAX_BYTES {
        return Err(DataError::format(
            &path.display().to_string(),
            format!("at most {MAX_BYTES} bytes"),
            format!("{size}"),
        ));
    }
    std::fs::read(path).map_err(|e| DataError::io(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;

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
