//! Image folders with one sub-folder a class, with or without folders for the splits above them.

use std::path::{Path, PathBuf};

use super::gather::{self, Entry};
use super::{DataError, DataOptions, MAX_CLASSES, Parts, Split, folder};

/// No folder of more entries is read.
const MAX_ENTRIES: usize = 8 << 20;
const SUFFIXES: [&str; 3] = ["jpg", "jpeg", "png"];

/// Whether a folder holds folders of images.
pub(super) fn is_tree(directory: &Path) -> bool {
    let below = |d: &Path| folders(d).unwrap_or_default();
    let holds = |d: &Path| images(d).is_ok_and(|files| !files.is_empty());
    below(directory).iter().any(|d| holds(d) || (split_of(d).is_some() && below(d).iter().any(|c| holds(c))))
}

/// Loads `train/CLASS/…`, `val/CLASS/…`, `test/CLASS/…`, or `CLASS/…`.
pub(super) fn load(directory: &Path, options: &DataOptions) -> Result<Parts, DataError> {
    let top = folders(directory)?;
    let by_split: Vec<(Option<Split>, &PathBuf)> =
        top.iter().filter_map(|d| split_of(d).map(|s| (Some(s), d))).collect();
    let whole = directory.to_path_buf();
    let roots = if by_split.is_empty() { vec![(None, &whole)] } else { by_split };
    let mut found = Vec::new();
    for (split, root) in roots {
        for class in folders(root)? {
            let label = folder::name(&class);
            let files = images(&class)?;
            if files.is_empty() {
                let message = "at least one .jpg, .jpeg or .png file in every class folder";
                return Err(DataError::format(&class.display().to_string(), message, "none"));
            }
            found.extend(files.into_iter().map(|file| (label.clone(), split, file)));
        }
    }
    let labels: Vec<&str> = found.iter().map(|(label, ..)| label.as_str()).collect();
    let classes = gather::classes(&labels, options);
    let shown = directory.display().to_string();
    if classes.len() > MAX_CLASSES {
        return Err(DataError::format(
            &shown,
            format!("at most {MAX_CLASSES} classes"),
            classes.len().to_string(),
        ));
    }
    let entry = |(label, split, path): (String, Option<Split>, PathBuf)| {
        let Some(number) = classes.iter().position(|c| *c == label) else {
            let expected = format!("class folders of the network ({})", classes.join(", "));
            return Err(DataError::format(&shown, expected, format!("folder {label}")));
        };
        let name = path.strip_prefix(directory).unwrap_or(&path).display().to_string();
        let label = u32::try_from(number).unwrap_or(u32::MAX);
        Ok(Entry { path, name, label, split, source: None, patient: None })
    };
    let entries = found.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    gather::load(folder::name(directory), classes, entries, options)
}

/// Whether a folder holds images itself.
pub(super) fn is_flat(directory: &Path) -> bool {
    images(directory).is_ok_and(|files| !files.is_empty())
}

/// Loads the images of a folder, all of one class.
pub(super) fn load_flat(directory: &Path, options: &DataOptions) -> Result<Parts, DataError> {
    let entry = |path: PathBuf| Entry {
        name: folder::name(&path),
        path,
        label: 0,
        split: Some(Split::Train),
        source: None,
        patient: None,
    };
    let entries = images(directory)?.into_iter().map(entry).collect();
    gather::load(folder::name(directory), vec!["unlabelled".to_owned()], entries, options)
}

fn split_of(directory: &Path) -> Option<Split> {
    Split::parse(directory.file_name()?.to_str()?)
}

fn folders(directory: &Path) -> Result<Vec<PathBuf>, DataError> {
    list(directory, |kind, _| kind.is_dir())
}

fn images(directory: &Path) -> Result<Vec<PathBuf>, DataError> {
    list(directory, |kind, path| {
        let suffix = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        kind.is_file() && suffix.is_some_and(|s| SUFFIXES.contains(&s.as_str()))
    })
}

/// Entries in the order of their names, hidden ones left out. Links are not followed.
fn list(
    directory: &Path,
    keep: impl Fn(std::fs::FileType, &Path) -> bool,
) -> Result<Vec<PathBuf>, DataError> {
    let fail = |e| DataError::io(directory, e);
    let mut found = Vec::new();
    for (count, entry) in std::fs::read_dir(directory).map_err(fail)?.enumerate() {
        if count == MAX_ENTRIES {
            let expected = format!("at most {MAX_ENTRIES} entries");
            return Err(DataError::format(&directory.display().to_string(), expected, "more"));
        }
        let entry = entry.map_err(fail)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let path = entry.path();
        if !hidden && keep(entry.file_type().map_err(fail)?, &path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
