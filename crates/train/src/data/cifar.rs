//! The binary form of CIFAR-10 and CIFAR-100, plain or gzipped.
//!
//! Per image one label byte (CIFAR-100: the coarse class, then the fine one, which is taken), then
//! 3,072 bytes: planes of red, green, blue, each 32×32 (Krizhevsky 2009).

use std::path::{Path, PathBuf};

use super::{DataError, DataOptions, MAX_BYTES, Parts, Split, folder, gather, idx};

const PIXELS: usize = 3 * 32 * 32;
const SHAPE: [usize; 3] = [3, 32, 32];
const CIFAR_10: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Records of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// 10 or 100.
    pub classes: usize,
    /// One class an image.
    pub labels: Vec<u32>,
    /// 3,072 bytes an image.
    pub pixels: Vec<u8>,
}

/// Parses the bytes of a CIFAR file; a gzip wrapper is recognised. `file` is the name for messages.
///
/// # Errors
/// A length that is no whole number of records, a label out of range, damaged compression.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Records, DataError> {
    let inflated;
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
        // Pixels do not shrink a hundredfold: more is a bomb.
        let limit = (bytes.len() as u64).saturating_mul(100).min(MAX_BYTES);
        inflated = idx::inflate(file, bytes, limit)?;
        &inflated[..]
    } else {
        bytes
    };
    let forms = [(10, 1), (100, 2)];
    let whole = |&&(_, lead): &&(usize, usize)| !bytes.is_empty() && bytes.len() % (PIXELS + lead) == 0;
    let Some(&(classes, lead)) = forms.iter().filter(whole).find(|&&(classes, lead)| {
        // Where both lengths fit, only labels can tell.
        forms.iter().filter(whole).count() == 1
            || bytes.chunks_exact(PIXELS + lead).all(|r| usize::from(r[lead - 1]) < classes)
    }) else {
        let expected = format!("a whole number of records of {} or {} bytes", PIXELS + 1, PIXELS + 2);
        return Err(DataError::format(file, expected, format!("{} bytes", bytes.len())));
    };
    let mut records = Records { classes, labels: Vec::new(), pixels: Vec::new() };
    records.pixels.reserve_exact(bytes.len() / (PIXELS + lead) * PIXELS);
    for (number, record) in bytes.chunks_exact(PIXELS + lead).enumerate() {
        let (labels, pixels) = record.split_at(lead);
        let label = labels[lead - 1];
        if usize::from(label) >= classes {
            let found = format!("label {label} in record {number}");
            return Err(DataError::format(file, format!("labels below {classes}"), found));
        }
        records.labels.push(u32::from(label));
        records.pixels.extend_from_slice(pixels);
    }
    Ok(records)
}

/// Whether a name is that of a CIFAR file.
pub(super) fn is_file_name(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    name.ends_with(".bin") || name.ends_with(".bin.gz")
}

/// The CIFAR files of a folder, in the order of their names.
pub(super) fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.map(|e| e.path()).filter(|p| p.is_file() && is_file_name(p)).take(1024).collect();
    found.sort();
    found
}

/// Loads files. Those whose name begins with `test` are the test split, `val` the validation split, the
/// rest (`train…`, `data_batch_…`) is for training; one training image in ten becomes the validation
/// split where there is none. A single file is shared out by `options.split`.
pub(super) fn load(name: String, files: &[PathBuf], options: &DataOptions) -> Result<Parts, DataError> {
    let mut parts = Parts { name, shape: SHAPE, ..Parts::default() };
    let (mut classes, mut splits) = (None, Vec::new());
    for path in files {
        let file = path.display().to_string();
        let records = parse(&file, &folder::read_bounded(path)?)?;
        if *classes.get_or_insert(records.classes) != records.classes {
            let found = format!("{}", records.classes);
            return Err(DataError::format(
                &file,
                format!("{classes:?} classes as in the other files"),
                found,
            ));
        }
        if (parts.pixels.len() + records.pixels.len()) as u64 > MAX_BYTES {
            return Err(DataError::format(
                &file,
                format!("at most {MAX_BYTES} bytes, all files together"),
                "more",
            ));
        }
        let start = path.file_name().map(|n| n.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let split = if start.starts_with("test") {
            Split::Test
        } else if start.starts_with("val") {
            Split::Validation
        } else {
            Split::Train
        };
        splits.resize(splits.len() + records.labels.len(), split);
        parts.labels.extend(records.labels);
        parts.pixels.extend(records.pixels);
    }
    let classes = classes.unwrap_or(10);
    parts.class_names = match (&options.classes, classes) {
        (Some(names), _) if names.len() == classes => names.clone(),
        (_, 10) => CIFAR_10.map(str::to_owned).to_vec(),
        _ => (0..classes).map(|c| c.to_string()).collect(),
    };
    let single = files.len() == 1;
    gather::assign(&mut parts, (!single).then_some(splits), options);
    folder::hold_out_validation(&mut parts);
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataSet;
    use std::io::Write;

    fn records(labels: &[u8], lead: usize) -> Vec<u8> {
        let record = |&l: &u8| {
            let mut head = vec![0; lead - 1];
            head.push(l);
            [head, (0..PIXELS).map(|i| (i / 1024) as u8 + l).collect()].concat()
        };
        labels.iter().flat_map(record).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn both_forms_read_alike_plain_and_gzipped() {
        for (classes, lead, labels) in [(10, 1, vec![3u8, 9]), (100, 2, vec![99, 0, 50])] {
            let bytes = records(&labels, lead);
            let found = parse("t", &bytes).unwrap();
            assert_eq!((found.classes, found.labels.len()), (classes, labels.len()));
            assert_eq!(found.labels[0], u32::from(labels[0]));
            assert_eq!(found.pixels[PIXELS - 1], labels[0] + 2);
            // Constant planes compress more than a hundredfold, as no photograph does.
            let noisy: Vec<u8> = bytes
                .iter()
                .enumerate()
                .map(|(i, &b)| if i % (PIXELS + lead) < lead { b } else { (i * i % 251) as u8 })
                .collect();
            assert_eq!(parse("t", &gzip(&noisy)).unwrap(), parse("t", &noisy).unwrap());
        }
    }

    #[test]
    fn hostile_bytes_are_refused() {
        let message = |bytes: &[u8]| parse("t", bytes).unwrap_err().to_string();
        assert!(message(&[]).contains("0 bytes"));
        assert!(message(&records(&[1], 1)[..3000]).contains("3000 bytes"));
        assert!(message(&records(&[1, 10], 1)).contains("label 10 in record 1"));
        assert!(message(&gzip(&vec![0; 64 << 20])).contains("more"));
        let zipped = gzip(&records(&[1, 2], 1));
        for length in 0..zipped.len() {
            parse("t", &zipped[..length]).unwrap_err();
        }
    }

    #[test]
    fn a_folder_takes_its_splits_from_names_and_holds_out_validation() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, labels: &[u8]| {
            // Distinct images, or the leak check would rightly object.
            let mut bytes = records(labels, 1);
            for (i, record) in bytes.chunks_exact_mut(PIXELS + 1).enumerate() {
                record[1..3].copy_from_slice(&[i as u8, name.len() as u8]);
            }
            std::fs::write(folder.path().join(name), bytes).unwrap();
        };
        write("data_batch_1.bin", &[0, 1].repeat(10));
        write("test_batch.bin", &[0, 1, 0]);
        let data = DataSet::open(folder.path().to_str().unwrap()).unwrap();
        let counts = [Split::Train, Split::Validation, Split::Test].map(|s| data.indices(s).len());
        assert_eq!((counts, data.shape(), data.class_names()[1].as_str()), ([18, 2, 3], SHAPE, "automobile"));
        let single = folder.path().join("test_batch.bin");
        let one = DataSet::open(single.to_str().unwrap()).unwrap();
        assert_eq!((one.len(), one.name()), (3, "test_batch"));
    }

    proptest::proptest! {
        #[test]
        fn altered_records_give_records_or_an_error(position in 0usize..6146, value in 0u8..=255) {
            let mut bytes = records(&[1, 2], 1);
            bytes[position] = value;
            if let Ok(found) = parse("t", &bytes) {
                proptest::prop_assert_eq!(found.labels.len() * PIXELS, found.pixels.len());
                proptest::prop_assert!(found.labels.iter().all(|&l| l < 10));
            }
        }
    }
}
