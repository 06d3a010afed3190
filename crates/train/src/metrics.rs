//! How good a network is: accuracy, macro F1, AUC, calibration, per class, per source, confusion,
//! confidence interval.

use polyveil_net::Graph;
use polyveil_net::exec::{ExecError, Executor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::{DataSet, Split};
use crate::error::TrainError;
use crate::metadata;

/// Images that are normalised and run together.
const CHUNK: usize = 64;

/// Figures on one list of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Images.
    pub n: usize,
    /// Images whose class was found.
    pub correct: usize,
    /// `correct / n`.
    pub accuracy: f64,
    /// Wilson's 95 % interval of the accuracy.
    pub interval: [f64; 2],
    /// Mean F1 over all classes, absent ones included as 0 unless never predicted either.
    pub macro_f1: f64,
    /// One entry a class.
    pub classes: Vec<ClassMetrics>,
    /// `confusion[truth][prediction]`; images without prediction are in no cell.
    pub confusion: Vec<Vec<usize>>,
    /// Images with a score that is not finite; they count as wrong.
    pub non_finite: usize,
    /// Area under the ROC curve, each class against the rest by its probability, mean over classes with
    /// images of both sides; over images with finite scores. None where scores are not known, or no class
    /// has both.
    #[serde(default)]
    pub auc: Option<f64>,
    /// Expected calibration error (Guo et al. 2017, arXiv 1706.04599, eq. 3) of the highest softmax
    /// probability, [`CALIBRATION_BINS`] bins of equal width; over images with finite scores.
    #[serde(default)]
    pub calibration_error: Option<f64>,
}

/// Bins of the calibration error.
pub const CALIBRATION_BINS: usize = 15;

/// Figures of all images, and of those of each source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// All images.
    pub whole: Metrics,
    /// By name of the source; empty where no image has one. Images without go under an empty name.
    pub sources: Vec<(String, Metrics)>,
    /// Whether each image was put into its class, in the order asked for.
    pub correct: Vec<bool>,
    /// The scores of each image, in that order; none where they are not finite.
    pub scores: Vec<Option<Vec<f32>>>,
}

/// Figures of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassMetrics {
    /// Name of the class.
    pub name: String,
    /// Images of the class.
    pub support: usize,
    /// Share of the predictions of this class that are right; 0 where there are none.
    pub precision: f64,
    /// Share of the images of this class that are found; 0 where there are none.
    pub recall: f64,
    /// Harmonic mean of precision and recall; 0 where both are.
    pub f1: f64,
}

impl Metrics {
    /// Figures from true classes and predictions (none: no finite score). Classes outside
    /// `class_names` count as wrong.
    #[must_use]
    pub fn new(class_names: &[String], truths: &[u32], predictions: &[Option<u32>]) -> Self {
        let count = class_names.len();
        let mut confusion = vec![vec![0usize; count]; count];
        let mut support = vec![0usize; count];
        for (&truth, prediction) in truths.iter().zip(predictions) {
            if let Some(s) = support.get_mut(truth as usize) {
                *s += 1;
            }
            let cell = prediction.and_then(|p| confusion.get_mut(truth as usize)?.get_mut(p as usize));
            if let Some(cell) = cell {
                *cell += 1;
            }
        }
        let n = truths.len().min(predictions.len());
        let correct = (0..count).map(|c| confusion[c][c]).sum();
        let classes: Vec<ClassMetrics> = (0..count)
            .map(|c| {
                let hits = confusion[c][c];
                let predicted = confusion.iter().map(|row| row[c]).sum();
                let (precision, recall) = (ratio(hits, predicted), ratio(hits, support[c]));
                let f1 = ratio(2 * hits, predicted + support[c]);
                ClassMetrics { name: class_names[c].clone(), support: support[c], precision, recall, f1 }
            })
            .collect();
        let seen: Vec<f64> = (0..count)
            .filter(|&c| support[c] > 0 || confusion.iter().any(|row| row[c] > 0))
            .map(|c| classes[c].f1)
            .collect();
        Self {
            n,
            correct,
            accuracy: ratio(correct, n),
            interval: wilson(correct, n),
            macro_f1: if seen.is_empty() { 0.0 } else { seen.iter().sum::<f64>() / seen.len() as f64 },
            classes,
            confusion,
            non_finite: predictions.iter().filter(|p| p.is_none()).count(),
            auc: None,
            calibration_error: None,
        }
    }

    /// Figures from true classes and scores (none: not finite), with AUC and calibration.
    #[must_use]
    pub fn of_scores(class_names: &[String], truths: &[u32], scores: &[Option<Vec<f32>>]) -> Self {
        let predictions: Vec<Option<u32>> =
            scores.iter().map(|s| s.as_ref().and_then(|s| argmax(s))).collect();
        let finite: Vec<(u32, Vec<f64>)> = truths
            .iter()
            .zip(scores)
            .filter_map(|(&truth, s)| Some((truth, softmax(s.as_ref()?)?)))
            .collect();
        Self {
            auc: mean_auc(class_names.len(), &finite),
            calibration_error: calibration_error(&finite),
            ..Self::new(class_names, truths, &predictions)
        }
    }
}

/// Probabilities; none where a score is not finite or there are none.
fn softmax(scores: &[f32]) -> Option<Vec<f64>> {
    let powers: Vec<f64> = below_highest(scores)?.into_iter().map(f64::exp).collect();
    let sum: f64 = powers.iter().sum();
    Some(powers.into_iter().map(|p| p / sum).collect())
}

/// Their logarithms.
pub(crate) fn log_softmax(scores: &[f32]) -> Option<Vec<f64>> {
    let scores = below_highest(scores)?;
    let sum = scores.iter().map(|s| s.exp()).sum::<f64>().ln();
    Some(scores.into_iter().map(|s| s - sum).collect())
}

/// Scores less the highest; in double precision, as two finite ones may be further apart than a float reaches.
fn below_highest(scores: &[f32]) -> Option<Vec<f64>> {
    let highest = f64::from(scores[argmax(scores)? as usize]);
    Some(scores.iter().map(|&s| f64::from(s) - highest).collect())
}

fn mean_auc(classes: usize, images: &[(u32, Vec<f64>)]) -> Option<f64> {
    let of_class = |class: usize| {
        let side = |own: bool| {
            let mine = images.iter().filter(move |(truth, _)| (*truth as usize == class) == own);
            mine.filter_map(|(_, p)| p.get(class).copied()).collect::<Vec<f64>>()
        };
        auc(&side(true), &side(false))
    };
    let all: Vec<f64> = (0..classes).filter_map(of_class).collect();
    (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
}

/// Probability that a positive scores higher than a negative, a tie counting one half (Mann, Whitney
/// 1947); none where one side is empty.
#[must_use]
pub fn auc(positives: &[f64], negatives: &[f64]) -> Option<f64> {
    if positives.is_empty() || negatives.is_empty() {
        return None;
    }
    let mut all: Vec<(f64, bool)> =
        positives.iter().map(|&p| (p, true)).chain(negatives.iter().map(|&n| (n, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Twice the number of pairs won: whole numbers, so exact.
    let (mut below, mut won) = (0u64, 0u64);
    for ties in all.chunk_by(|a, b| a.0 == b.0) {
        let up = ties.iter().filter(|t| t.1).count() as u64;
        let down = ties.len() as u64 - up;
        won += up * (2 * below + down);
        below += down;
    }
    Some(won as f64 / (2.0 * positives.len() as f64 * negatives.len() as f64))
}

fn calibration_error(images: &[(u32, Vec<f64>)]) -> Option<f64> {
    if images.is_empty() {
        return None;
    }
    // Confidence and hits of each bin.
    let mut bins = [(0.0f64, 0usize); CALIBRATION_BINS];
    for (truth, probabilities) in images {
        let (class, confidence) = probabilities
            .iter()
            .enumerate()
            .fold((0, f64::MIN), |best, (class, &p)| if p > best.1 { (class, p) } else { best });
        let bin = ((confidence * CALIBRATION_BINS as f64).ceil() as usize).clamp(1, CALIBRATION_BINS) - 1;
        bins[bin].0 += confidence;
        bins[bin].1 += usize::from(class == *truth as usize);
    }
    let gap: f64 = bins.iter().map(|&(confidence, hits)| (hits as f64 - confidence).abs()).sum();
    Some(gap / images.len() as f64)
}

/// Index of the largest score; none when a score is not finite or there are none. The first of
/// equals wins.
#[must_use]
pub fn argmax(scores: &[f32]) -> Option<u32> {
    if scores.iter().any(|s| !s.is_finite()) {
        return None;
    }
    let mut best: Option<(usize, f32)> = None;
    for (index, &score) in scores.iter().enumerate() {
        if best.is_none_or(|(_, b)| score > b) {
            best = Some((index, score));
        }
    }
    best.and_then(|(index, _)| u32::try_from(index).ok())
}

/// Wilson's 95 % score interval of a share (Wilson 1927).
#[must_use]
pub fn wilson(hits: usize, n: usize) -> [f64; 2] {
    if n == 0 {
        return [0.0, 1.0];
    }
    const Z: f64 = 1.959_963_984_540_054;
    let (n, p) = (n as f64, hits as f64 / n as f64);
    let centre = p + Z * Z / (2.0 * n);
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    [((centre - spread) / scale).max(0.0), ((centre + spread) / scale).min(1.0)]
}

/// Figures of a network on a split, by the plain executor. Images are pre-processed as the network
/// says; as the data set says where it says nothing.
///
/// # Errors
/// When network and data do not fit, or the split is empty.
pub fn evaluate(graph: &Graph, data: &DataSet, split: Split) -> Result<Metrics, TrainError> {
    let indices = data.indices(split);
    if indices.is_empty() {
        return Err(TrainError::EmptySplit { name: data.name().to_owned(), split });
    }
    evaluate_indices(graph, data, indices)
}

/// The same on any list of images; indices outside the set are left out.
///
/// # Errors
/// When network and data do not fit.
pub fn evaluate_indices(graph: &Graph, data: &DataSet, indices: &[usize]) -> Result<Metrics, TrainError> {
    let indices: Vec<usize> = indices.iter().copied().filter(|&i| i < data.len()).collect();
    let scores = logits(graph, data, &indices)?;
    let truths: Vec<u32> = indices.iter().map(|&i| data.labels()[i]).collect();
    Ok(Metrics::of_scores(data.class_names(), &truths, &scores))
}

/// Figures on any list of images, as a whole and by source; indices outside the set are left out.
///
/// # Errors
/// When network and data do not fit.
pub fn evaluate_by_source(
    graph: &Graph,
    data: &DataSet,
    indices: &[usize],
) -> Result<Evaluation, TrainError> {
    let indices: Vec<usize> = indices.iter().copied().filter(|&i| i < data.len()).collect();
    let scores = logits(graph, data, &indices)?;
    let figures = |keep: &dyn Fn(usize) -> bool| {
        let (truths, scores): (Vec<u32>, Vec<_>) = indices
            .iter()
            .zip(&scores)
            .filter(|(i, _)| keep(**i))
            .map(|(&i, s)| (data.labels()[i], s.clone()))
            .unzip();
        Metrics::of_scores(data.class_names(), &truths, &scores)
    };
    let names: std::collections::BTreeSet<&str> =
        indices.iter().map(|&i| data.source(i).unwrap_or_default()).collect();
    let known = names.iter().any(|n| !n.is_empty());
    let of = |name: &str| (name.to_owned(), figures(&|i| data.source(i).unwrap_or_default() == name));
    let found =
        |(&i, s): (&usize, &Option<Vec<f32>>)| s.as_deref().and_then(argmax) == Some(data.labels()[i]);
    Ok(Evaluation {
        correct: indices.iter().zip(&scores).map(found).collect(),
        whole: figures(&|_| true),
        sources: if known { names.into_iter().map(of).collect() } else { Vec::new() },
        scores,
    })
}

/// Scores of images by the plain executor, in order; none where they are not finite.
///
/// # Errors
/// When network and data do not fit, or an index is outside the set.
pub fn logits(graph: &Graph, data: &DataSet, indices: &[usize]) -> Result<Vec<Option<Vec<f32>>>, TrainError> {
    check_fit(graph, data)?;
    let preprocessing = metadata::preprocessing(graph)?.unwrap_or_else(|| data.preprocessing().clone());
    let executor = Executor::new(graph).map_err(|e| TrainError::Net(e.to_string()))?;
    let vector_input = graph.input_shape().len() == 1;
    if let Some(&index) = indices.iter().find(|&&i| i >= data.len()) {
        return Err(TrainError::Config {
            key: "image",
            value: index.to_string(),
            expected: "an index below the number of images",
        });
    }
    let chunks: Result<Vec<Vec<Option<Vec<f32>>>>, TrainError> = indices
        .par_chunks(CHUNK)
        .map(|chunk| {
            let images: Vec<_> = chunk
                .iter()
                .map(|&index| {
                    let image = data.image_with(index, &preprocessing);
                    let flat = vec![image.len()];
                    if vector_input { image.reshape(flat) } else { Ok(image) }
                })
                .collect::<Result<_, _>>()
                .map_err(|e| TrainError::Net(e.to_string()))?;
            match executor.run_batch(&images) {
                Ok(scores) => Ok(scores.into_iter().map(|t| Some(t.into_data())).collect()),
                // One image that overflows fails its batch: find out which.
                Err(ExecError::NonFinite { .. }) => images
                    .iter()
                    .map(|image| match executor.run(image) {
                        Ok(scores) => Ok(Some(scores.into_data())),
                        Err(ExecError::NonFinite { .. }) => Ok(None),
                        Err(e) => Err(TrainError::Net(e.to_string())),
                    })
                    .collect(),
                Err(e) => Err(TrainError::Net(e.to_string())),
            }
        })
        .collect();
    Ok(chunks?.into_iter().flatten().collect())
}

/// Refuses data that the network cannot take or score.
pub(crate) fn check_fit(graph: &Graph, data: &DataSet) -> Result<(), TrainError> {
    let shapes = graph.infer_shapes().map_err(|e| TrainError::Net(e.to_string()))?;
    let (network, shape) = (graph.input_shape(), data.shape());
    if network != shape && network != [shape.iter().product::<usize>()] {
        return Err(TrainError::InputShape {
            network: network.to_vec(),
            data: shape.to_vec(),
            name: data.name().to_owned(),
        });
    }
    let outputs = shapes.get(graph.output).map_or(0, |s| s.iter().product());
    if outputs != data.class_names().len() {
        return Err(TrainError::Classes {
            network: outputs,
            data: data.class_names().len(),
            name: data.name().to_owned(),
        });
    }
    Ok(())
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|c| format!("c{c}")).collect()
    }

    #[test]
    fn known_confusion_gives_known_figures() {
        // Truth 0: two right, one taken for 1. Truth 1: one right, one not finite. Class 2: absent.
        let truths = [0, 0, 0, 1, 1];
        let predictions = [Some(0), Some(0), Some(1), Some(1), None];
        let m = Metrics::new(&names(3), &truths, &predictions);
        assert_eq!((m.n, m.correct, m.non_finite), (5, 3, 1));
        assert_eq!(m.confusion, [[2, 1, 0], [0, 1, 0], [0, 0, 0]]);
        assert!((m.accuracy - 0.6).abs() < 1e-12);
        assert!((m.classes[0].f1 - 0.8).abs() < 1e-12);
        assert!((m.classes[1].precision - 0.5).abs() < 1e-12 && (m.classes[1].recall - 0.5).abs() < 1e-12);
        assert!((m.macro_f1 - 0.65).abs() < 1e-12, "{}", m.macro_f1);
    }

    #[test]
    fn auc_counts_pairs() {
        // Of nine pairs seven are won and one is a tie.
        assert_eq!(auc(&[0.9, 0.8, 0.4], &[0.1, 0.4, 0.5]), Some(7.5 / 9.0));
        assert_eq!(auc(&[1.0], &[0.0]), Some(1.0));
        assert_eq!(auc(&[0.5; 4], &[0.5; 3]), Some(0.5));
        assert_eq!(auc(&[], &[0.5]), None);
    }

    #[test]
    fn two_classes_have_the_auc_of_either() {
        let scores: Vec<Option<Vec<f32>>> =
            [[2.0, 0.0], [0.0, 1.0], [0.5, 0.0], [0.0, 3.0]].map(|s| Some(s.to_vec())).to_vec();
        let m = Metrics::of_scores(&names(2), &[0, 0, 1, 1], &scores);
        // Class 0 by difference: positives 2 and −1, negatives 0.5 and −3.
        assert_eq!(m.auc, Some(0.75));
        let three = Metrics::of_scores(&names(3), &[0, 0, 1, 1], &scores);
        assert_eq!(three.auc, Some(0.75));
        let single = Metrics::of_scores(&names(2), &[0, 0], &scores[..2]);
        assert_eq!(single.auc, None);
    }

    #[test]
    fn calibration_error_of_known_confidences() {
        // Always 0.75 sure, right in half of the cases: off by 0.25. A row that is not finite is left out.
        let sure = |first: bool| {
            let high = 3.0f32.ln();
            Some(if first { vec![high, 0.0] } else { vec![0.0, high] })
        };
        let scores = [sure(true), sure(true), sure(false), sure(false), None];
        let m = Metrics::of_scores(&names(2), &[0, 1, 0, 1, 1], &scores);
        assert!((m.calibration_error.unwrap() - 0.25).abs() < 1e-6, "{m:?}");
        assert_eq!((m.non_finite, m.correct), (1, 2));
        assert_eq!(Metrics::of_scores(&names(2), &[0], &[None]).calibration_error, None);
        // Sure and right: no error.
        let right = Metrics::of_scores(&names(2), &[0], &[Some(vec![200.0, 0.0])]);
        assert!(right.calibration_error.unwrap() < 1e-9);
    }

    proptest::proptest! {
        #[test]
        fn auc_agrees_with_all_pairs(
            positives in proptest::collection::vec(0u8..20, 1..30),
            negatives in proptest::collection::vec(0u8..20, 1..30),
        ) {
            let [p, n] = [&positives, &negatives].map(|v| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
            let won: f64 = p.iter().flat_map(|a| n.iter().map(move |b| match a.total_cmp(b) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            })).sum();
            let expected = won / (p.len() * n.len()) as f64;
            proptest::prop_assert!((auc(&p, &n).unwrap() - expected).abs() < 1e-12);
            proptest::prop_assert!((auc(&n, &p).unwrap() + expected - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn a_wrongly_predicted_absent_class_counts_in_macro_f1() {
        let m = Metrics::new(&names(2), &[0, 0], &[Some(0), Some(1)]);
        assert!((m.macro_f1 - (2.0 / 3.0) / 2.0).abs() < 1e-12, "{}", m.macro_f1);
    }

    #[test]
    fn wilson_matches_published_values() {
        // 8 of 10: 0.4902 to 0.9433; 0 of 20: 0 to 0.1611.
        let [low, high] = wilson(8, 10);
        assert!((low - 0.4902).abs() < 1e-4 && (high - 0.9433).abs() < 1e-4, "{low} {high}");
        let [low, high] = wilson(0, 20);
        assert!(low.abs() < 1e-12 && (high - 0.1611).abs() < 1e-4, "{low} {high}");
        assert_eq!(wilson(0, 0), [0.0, 1.0]);
    }

    #[test]
    fn argmax_refuses_what_is_not_finite() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(argmax(&[1.0, f32::NAN]), None);
        assert_eq!(argmax(&[]), None);
    }
}
