//! Published weights in our builders, on real images: the figures that others measured come out.
#![expect(clippy::unwrap_used, reason = "a failure to set up is a failed test")]

use std::path::PathBuf;

use polyveil_net::builders;
use polyveil_net::weights::{Naming, load_path};
use polyveil_train::data::{ImageSize, Normalise};
use polyveil_train::{DataOptions, DataSet, Split, evaluate, metrics};

/// A file below `POLYVEIL_DATA`; none, with a remark, where it is not there.
fn shared(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("POLYVEIL_DATA").map(|root| PathBuf::from(root).join(name));
    match path {
        Some(path) if path.exists() => Some(path),
        _ => {
            println!("skipped: POLYVEIL_DATA/{name} is not there");
            None
        }
    }
}

fn cifar(options: &DataOptions) -> Option<DataSet> {
    Some(DataSet::open_with(shared("cifar10")?.to_str().unwrap(), options).unwrap())
}

#[test]
fn resnet20_scores_as_measured_elsewhere() {
    let options = DataOptions { normalise: Normalise::Imagenet, ..DataOptions::default() };
    let (Some(data), Some(weights)) = (cifar(&options), shared("weights/resnet20_cifar10.safetensors"))
    else {
        return;
    };
    let mut graph = builders::resnet20(&[3, 32, 32], 10, 1).unwrap();
    load_path(&mut graph, &weights, Naming::Node).unwrap();
    // PyTorch: 81.0 % on 3,000 JPEG copies of test images, 99.85 % on 2,000 exact training images.
    let test = evaluate(&graph, &data, Split::Test).unwrap();
    assert!((test.accuracy - 0.81).abs() < 0.025, "{}", test.accuracy);
    let validation = evaluate(&graph, &data, Split::Validation).unwrap();
    assert!(validation.accuracy > 0.99, "{}", validation.accuracy);
    println!("test {:.4}, held-out training images {:.4}", test.accuracy, validation.accuracy);
}

#[test]
fn squeezenet_tells_animals_from_vehicles() {
    let options = DataOptions {
        image_size: Some(ImageSize::Square(224)),
        normalise: Normalise::Imagenet,
        ..DataOptions::default()
    };
    let Some(weights) = shared("weights/squeezenet1_1_imagenet.safetensors") else { return };
    let Some(file) = shared("cifar10/test_jpeg_1500.bin.gz") else { return };
    let data = DataSet::open_with(file.to_str().unwrap(), &options).unwrap();
    let mut graph = builders::squeezenet1_1(&[3, 224, 224], 1000, 1).unwrap();
    load_path(&mut graph, &weights, Naming::Node).unwrap();
    let executor = polyveil_net::exec::Executor::new(&graph).unwrap();
    // CIFAR: aeroplane, car, ship and truck are 0, 1, 8, 9. ImageNet: its first 398 classes are animals.
    // Enlarged from 32 pixels the images are blurred, so single classes say little; the groups do.
    let share_of_animals = |classes: &[u32]| {
        let of_class = |&class: &u32| {
            let mine = (0..data.len()).filter(|&i| data.labels()[i] == class);
            mine.take(16).map(|i| data.image(i)).collect::<Vec<_>>()
        };
        let images: Vec<_> = classes.iter().flat_map(of_class).collect();
        let scores = executor.run_batch(&images).unwrap();
        let animals = scores.iter().filter(|s| metrics::argmax(s.data()).is_some_and(|p| p < 398));
        animals.count() as f64 / images.len() as f64
    };
    let (animals, vehicles) = (share_of_animals(&[2, 3, 4, 5, 6, 7]), share_of_animals(&[0, 1, 8, 9]));
    println!("taken for an animal: {animals:.3} of animals, {vehicles:.3} of vehicles");
    assert!(animals > 2.0 * vehicles, "{animals} {vehicles}");
}
