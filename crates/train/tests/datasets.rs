//! Folders of images: what is read from them, what is refused and how, and the real sets.
#![expect(clippy::unwrap_used, reason = "a failure to set up is a failed test")]

use std::path::Path;

use image::{GrayImage, Luma, Rgb, RgbImage};
use polyveil_train::data::{Color, ImageSize, SplitRule};
use polyveil_train::{Augmentation, DataOptions, DataSet, Geometry, Split};

const SPLITS: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

fn gray(path: &Path, width: u32, height: u32, seed: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    GrayImage::from_fn(width, height, |x, y| Luma([(seed * 7 + x * 5 + y * 3) as u8])).save(path).unwrap();
}

fn counts(data: &DataSet) -> [usize; 3] {
    SPLITS.map(|s| data.indices(s).len())
}

fn spec(folder: &tempfile::TempDir) -> String {
    folder.path().to_str().unwrap().to_owned()
}

fn sized(side: usize) -> DataOptions {
    DataOptions { image_size: Some(ImageSize::Square(side)), ..DataOptions::default() }
}

fn refusal(folder: &tempfile::TempDir, options: &DataOptions) -> String {
    DataSet::open_with(&spec(folder), options).unwrap_err().to_string()
}

/// Twelve images of two patients a class, sizes that differ, and a manifest without splits.
fn manifest_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut table = String::from("file,label,source,patient\n");
    for i in 0..12 {
        let file = format!("images/{i}.{}", if i % 2 == 0 { "png" } else { "jpg" });
        gray(&folder.path().join(&file), 20 + i, 16, i);
        table += &format!("{file},{},s{},p{}\n", ["ill", "healthy"][i as usize % 2], i % 3, i / 2);
    }
    std::fs::write(folder.path().join("manifest.csv"), table).unwrap();
    folder
}

#[test]
fn a_manifest_brings_labels_sources_patients_and_sizes_together() {
    let folder = manifest_folder();
    let data = DataSet::open_with(&spec(&folder), &sized(14)).unwrap();
    assert_eq!((data.len(), data.shape(), data.class_names().len()), (12, [1, 14, 14], 2));
    assert_eq!(data.class_names(), ["healthy", "ill"]);
    assert_eq!((data.source(4), data.patient(4)), (Some("s1"), Some("p2")));
    assert_eq!(data.image_name(4), "images/4.png");
    // A short side of 16 is what 14 asks for (8/7): nothing is scaled.
    assert_eq!(data.stored(3).shape, [1, 16, 23]);
    assert_eq!(
        data.preprocessing().geometry,
        Some(Geometry { channels: 1, height: 14, width: 14, resize: 16 })
    );
    let png = data.stored(0).pixels;
    assert_eq!(png[..3], [0, 5, 10]);
    let centre = data.image(0);
    let normal = |byte: u8| {
        let p = data.preprocessing();
        (f32::from(byte) / 255.0 - p.mean[0]) / p.std[0]
    };
    // Row 1, column 3 of 16×20 is the corner of the central 14×14.
    assert!((centre.data()[0] - normal(png[20 + 3])).abs() < 1e-5);
    assert!(data.leaks().is_empty());
    // The same file is the same data set.
    let table = format!("{}/manifest.csv", spec(&folder));
    assert_eq!(DataSet::open_with(&table, &sized(14)).unwrap().fingerprint(), data.fingerprint());
}

#[test]
fn patients_stay_in_one_split() {
    let folder = manifest_folder();
    let options =
        DataOptions { split: SplitRule { validation: 0.3, test: 0.3, seed: 5 }, strict: true, ..sized(8) };
    let data = DataSet::open_with(&spec(&folder), &options).unwrap();
    assert_eq!(counts(&data).iter().sum::<usize>(), 12);
    assert!(counts(&data).iter().all(|&c| c > 0), "{:?}", counts(&data));
    assert_ne!(
        DataSet::open_with(
            &spec(&folder),
            &DataOptions { split: SplitRule { seed: 6, ..options.split }, ..sized(8) }
        )
        .unwrap()
        .indices(Split::Test),
        data.indices(Split::Test)
    );
}

#[test]
fn gray_files_feed_three_channels_and_colour_files_one() {
    let folder = manifest_folder();
    let rgb = DataSet::open_with(&spec(&folder), &DataOptions { color: Color::Rgb, ..sized(8) }).unwrap();
    assert_eq!((rgb.shape(), rgb.stored(0).shape[0]), ([3, 8, 8], 1));
    let image = rgb.image(0).into_data();
    assert_eq!(image[..64], image[64..128]);
    RgbImage::from_fn(30, 30, |x, y| Rgb([x as u8, y as u8, 9]))
        .save(folder.path().join("images/0.png"))
        .unwrap();
    let mixed = DataSet::open_with(&spec(&folder), &sized(8)).unwrap();
    assert_eq!((mixed.shape(), mixed.stored(0).shape[0], mixed.stored(1).shape[0]), ([3, 8, 8], 3, 1));
    let one = DataSet::open_with(&spec(&folder), &DataOptions { color: Color::Gray, ..sized(8) }).unwrap();
    assert_eq!((one.shape(), one.stored(0).shape[0]), ([1, 8, 8], 1));
}

#[test]
fn training_images_are_random_crops_of_the_stored_image() {
    let folder = manifest_folder();
    let data = DataSet::open_with(&spec(&folder), &sized(14)).unwrap();
    let settings = Augmentation { crop: 1.0, ..Augmentation::none() };
    let draw = |seed: u64| {
        use rand_core::SeedableRng;
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        data.training_image(11, data.preprocessing(), &settings, &mut rng).into_data()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let mut rng = <rand_chacha::ChaCha8Rng as rand_core::SeedableRng>::seed_from_u64(1);
    let still = data.training_image(11, data.preprocessing(), &Augmentation::none(), &mut rng);
    assert_eq!(still, data.image(11));
}

#[test]
fn folders_of_classes_with_and_without_splits() {
    let folder = tempfile::tempdir().unwrap();
    for (class, count) in [("10", 10), ("9", 20)] {
        for i in 0..count {
            gray(&folder.path().join(format!("{class}/{i}.png")), 12, 12, i + count);
        }
    }
    let data = DataSet::open(&spec(&folder)).unwrap();
    // Numbers are sorted as numbers.
    assert_eq!((data.class_names(), data.shape()), (["9", "10"].map(str::to_owned).as_slice(), [1, 12, 12]));
    assert_eq!(counts(&data), [21, 3, 6]);

    let split = tempfile::tempdir().unwrap();
    for (part, count) in [("train", 3), ("val", 1), ("test", 2)] {
        for class in ["a", "b"] {
            for i in 0..count {
                gray(
                    &split.path().join(format!("{part}/{class}/{i}.jpg")),
                    40,
                    40,
                    i * 31 + part.len() as u32,
                );
            }
        }
    }
    let data = DataSet::open(&spec(&split)).unwrap();
    assert_eq!((counts(&data), data.class_names().len()), ([6, 2, 4], 2));
    // Both classes hold the same pixels, but within one split: no leak.
    assert!(data.leaks().images.iter().all(|l| l.splits != [Split::Train, Split::Train]));
    std::fs::create_dir(split.path().join("test/c")).unwrap();
    assert!(refusal(&split, &DataOptions::default()).contains("test/c: expected at least one"));
}

#[test]
fn wrong_folders_are_refused_by_name() {
    let table = |text: &str| {
        let folder = manifest_folder();
        std::fs::write(folder.path().join("manifest.csv"), text).unwrap();
        folder
    };
    let empty = tempfile::tempdir().unwrap();
    assert!(refusal(&empty, &DataOptions::default()).contains("manifest.csv"));
    let mixed = refusal(&manifest_folder(), &DataOptions::default());
    assert!(mixed.contains("20×16 and 21×16") && mixed.contains("--image-size"), "{mixed}");
    let missing = refusal(&table("file,label\nimages/99.png,x\n"), &sized(8));
    assert!(missing.contains("images/99.png"), "{missing}");
    let twice = refusal(&table("file,label\nimages/0.png,x\nimages/0.png,y\n"), &sized(8));
    assert!(twice.contains("images/0.png twice"), "{twice}");
    let folder = refusal(&table("file,label\nimages,x\n"), &sized(8));
    assert!(folder.contains("a directory"), "{folder}");

    let known = DataOptions { classes: Some(vec!["healthy".into(), "sick".into()]), ..sized(8) };
    let label = refusal(&manifest_folder(), &known);
    assert!(label.contains("(healthy, sick)") && label.contains("\"ill\""), "{label}");
    // With the network's classes the network's order holds, also of classes that do not occur.
    let all =
        DataOptions { classes: Some(["ill", "new", "healthy"].map(str::to_owned).to_vec()), ..sized(8) };
    let data = DataSet::open_with(&spec(&manifest_folder()), &all).unwrap();
    assert_eq!((data.class_names().len(), data.labels()[0], data.labels()[1]), (3, 0, 2));

    let broken = manifest_folder();
    let jpeg = broken.path().join("images/1.jpg");
    let bytes = std::fs::read(&jpeg).unwrap();
    std::fs::write(&jpeg, &bytes[..30]).unwrap();
    assert!(refusal(&broken, &sized(8)).contains("images/1.jpg: expected"));
    std::fs::write(&jpeg, b"hello").unwrap();
    assert!(refusal(&broken, &sized(8)).contains("a PNG or JPEG image"));

    // A strip that scaling would blow up to gigabytes.
    let strip = manifest_folder();
    gray(&strip.path().join("images/0.png"), 1, 16_000, 1);
    let message = refusal(&strip, &sized(4096));
    assert!(message.contains("images/0.png") && message.contains("after scaling"), "{message}");
}

#[cfg(unix)]
#[test]
fn links_out_of_the_folder_are_refused() {
    let folder = manifest_folder();
    let other = tempfile::tempdir().unwrap();
    gray(&other.path().join("secret.png"), 20, 16, 1);
    let link = folder.path().join("images/0.png");
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(other.path().join("secret.png"), &link).unwrap();
    let message = refusal(&folder, &sized(8));
    assert!(message.contains("a file below the folder, found a link to"), "{message}");
}

#[test]
fn the_real_sets_open_with_their_published_splits() {
    let Some(root) = std::env::var_os("POLYVEIL_DATA") else {
        println!("skipped: POLYVEIL_DATA is not set");
        return;
    };
    let root = Path::new(&root);
    // Counts as published with the data.
    let sets = [
        ("covid_ct", [425, 118, 151], 2),
        ("sarscov2_ct", [1738, 245, 366], 2),
        ("covid_cxr", [1092, 152, 244], 3),
    ];
    for (name, splits, classes) in sets {
        let path = root.join(name);
        if !path.is_dir() {
            println!("skipped: {} is not there", path.display());
            continue;
        }
        let data = DataSet::open_with(path.to_str().unwrap(), &sized(224)).unwrap();
        assert_eq!((counts(&data), data.class_names().len()), (splits, classes), "{name}");
        assert_eq!(data.shape(), [1, 224, 224]);
        assert!((0..data.len()).all(|i| data.stored(i).shape[1].min(data.stored(i).shape[2]) == 256));
        assert!(data.leaks().patients.is_empty(), "{}", data.leaks());
        println!("{name}: {}", data.leaks());
    }
    let path = root.join("cifar10");
    if path.is_dir() {
        let data = DataSet::open(path.to_str().unwrap()).unwrap();
        assert_eq!((counts(&data), data.shape()), ([3600, 400, 1500], [3, 32, 32]));
        assert_eq!(data.class_names()[3], "cat");
    } else {
        println!("skipped: {} is not there", path.display());
    }
}
