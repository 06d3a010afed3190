//! How good scores are: the figures that commands print.

use polyveil_net::Graph;
use polyveil_train::{DataSet, Evaluation, Metrics, Split};
use serde::Serialize;

use crate::error::CliError;
use crate::output::{Table, percent};
use crate::pipeline::training;

/// The figures of a network on a set of images, in the `--json` form.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Share of images whose largest score is that of their class.
    pub accuracy: f64,
    /// Mean over classes of the harmonic mean of precision and recall.
    pub macro_f1: f64,
    /// Images.
    pub n: usize,
    /// 95 % interval of the accuracy (Wilson).
    pub accuracy_interval: [f64; 2],
    /// Area under the ROC curve, each class against the rest, mean over classes; null where one class is
    /// all there is.
    pub auc: Option<f64>,
    /// Expected calibration error, 15 bins.
    pub calibration_error: Option<f64>,
    /// Images with a score that is not finite; they count as wrong.
    pub non_finite: usize,
    /// Each class.
    pub per_class: Vec<ClassFigures>,
    /// Rows: true class; columns: predicted class.
    pub confusion: Vec<Vec<usize>>,
    /// Each source of images, where sources are known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceFigures>,
}

/// The images of one source.
#[derive(Clone, Debug, Serialize)]
pub struct SourceFigures {
    /// Its name; empty for images without one.
    pub source: String,
    /// Images.
    pub n: usize,
    /// Share of them whose class was found.
    pub accuracy: f64,
    /// 95 % interval of the accuracy (Wilson).
    pub accuracy_interval: [f64; 2],
    /// Mean F1 over the classes that occur.
    pub macro_f1: f64,
    /// As for all images.
    pub auc: Option<f64>,
}

/// One class.
#[derive(Clone, Debug, Serialize)]
pub struct ClassFigures {
    /// Its name.
    pub class: String,
    /// Share of the images put into this class that belong there.
    pub precision: f64,
    /// Share of the images of this class that were found.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
    /// Images of this class.
    pub n: usize,
}

impl Figures {
    /// From measured metrics.
    pub fn new(metrics: &Metrics) -> Self {
        let class = |c: &polyveil_train::ClassMetrics| ClassFigures {
            class: c.name.clone(),
            precision: c.precision,
            recall: c.recall,
            f1: c.f1,
            n: c.support,
        };
        Self {
            accuracy: metrics.accuracy,
            macro_f1: metrics.macro_f1,
            n: metrics.n,
            accuracy_interval: metrics.interval,
            auc: metrics.auc,
            calibration_error: metrics.calibration_error,
            non_finite: metrics.non_finite,
            per_class: metrics.classes.iter().map(class).collect(),
            confusion: metrics.confusion.clone(),
            sources: Vec::new(),
        }
    }

    /// From measured metrics, by source as well.
    pub fn by_source(evaluation: &Evaluation) -> Self {
        let source = |(name, m): &(String, Metrics)| SourceFigures {
            source: name.clone(),
            n: m.n,
            accuracy: m.accuracy,
            accuracy_interval: m.interval,
            macro_f1: m.macro_f1,
            auc: m.auc,
        };
        Self { sources: evaluation.sources.iter().map(source).collect(), ..Self::new(&evaluation.whole) }
    }

    /// Of a network on a split; none where the split holds no image.
    pub fn of_split(graph: &Graph, data: &DataSet, split: Split) -> Result<Option<Self>, CliError> {
        if data.indices(split).is_empty() {
            return Ok(None);
        }
        Ok(Some(Self::new(&training::evaluate(graph, data, split)?)))
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let [low, high] = self.accuracy_interval;
        let (accuracy, f1) = (percent(self.accuracy), percent(self.macro_f1));
        format!(
            "accuracy {accuracy} (95 % interval {} to {}), macro F1 {f1}, {} images",
            percent(low),
            percent(high),
            self.n
        )
    }

    /// For people: figures, classes, confusion.
    pub fn text(&self) -> String {
        let mut classes = Table::new(["class", "images", "precision", "recall", "F1"]);
        for c in &self.per_class {
            classes.row([
                c.class.clone(),
                c.n.to_string(),
                percent(c.precision),
                percent(c.recall),
                percent(c.f1),
            ]);
        }
        let mut text = format!("{}\n", self.line());
        if let Some(auc) = self.auc {
            text += &format!("AUC {auc:.4} (each class against the rest)");
            let error =
                self.calibration_error.map_or(String::new(), |e| format!(", calibration error {e:.4}"));
            text += &format!("{error}\n");
        }
        text += &format!("\n{}", classes.render());
        if !self.sources.is_empty() {
            let mut sources =
                Table::new(["source", "images", "accuracy", "95 % interval", "macro F1", "AUC"]);
            for s in &self.sources {
                let [low, high] = s.accuracy_interval.map(percent);
                sources.row([
                    if s.source.is_empty() { "(none)".into() } else { s.source.clone() },
                    s.n.to_string(),
                    percent(s.accuracy),
                    format!("{low} to {high}"),
                    percent(s.macro_f1),
                    s.auc.map_or("–".into(), |a| format!("{a:.4}")),
                ]);
            }
            text += &format!("\n{}", sources.render());
        }
        // Wider than a terminal, a matrix only confuses.
        if self.confusion.len() <= 20 {
            let names = self.per_class.iter().map(|c| c.class.clone());
            let mut matrix = Table::new(std::iter::once("true \\ predicted".to_string()).chain(names));
            for (class, row) in self.per_class.iter().zip(&self.confusion) {
                matrix.row(std::iter::once(class.class.clone()).chain(row.iter().map(usize::to_string)));
            }
            text += &format!("\n{}", matrix.render());
        }
        if self.non_finite > 0 {
            text += &format!("\n{} images gave scores that are not finite\n", self.non_finite);
        }
        text
    }

    /// Of scores against the labels of a data set.
    pub fn of_scores(data: &DataSet, indices: &[usize], scores: &[Vec<f64>]) -> Self {
        let truths: Vec<u32> = indices.iter().map(|&i| data.labels()[i]).collect();
        let narrow = |s: &Vec<f64>| s.iter().map(|&v| v as f32).collect::<Vec<f32>>();
        let finite = |s: Vec<f32>| s.iter().all(|v| v.is_finite()).then_some(s);
        let scores: Vec<Option<Vec<f32>>> = scores.iter().map(|s| finite(narrow(s))).collect();
        Self::new(&Metrics::of_scores(data.class_names(), &truths, &scores))
    }
}

/// Position of the largest score; the first of equals.
pub fn argmax(scores: &[f64]) -> usize {
    let mut best = 0;
    for (index, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = index;
        }
    }
    best
}
