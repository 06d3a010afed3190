//! How good scores are: the figures that commands print.

use polyveil_net::Graph;
use polyveil_train::{DataSet, Metrics, Split};
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
    /// Images with a score that is not finite; they count as wrong.
    pub non_finite: usize,
    /// Each class.
    pub per_class: Vec<ClassFigures>,
    /// Rows: true class; columns: predicted class.
    pub confusion: Vec<Vec<usize>>,
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
            non_finite: metrics.non_finite,
            per_class: metrics.classes.iter().map(class).collect(),
            confusion: metrics.confusion.clone(),
        }
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
        let mut text = format!("{}\n\n{}", self.line(), classes.render());
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
        let predicted = |s: &Vec<f64>| s.iter().all(|v| v.is_finite()).then(|| argmax(s) as u32);
        let predictions: Vec<Option<u32>> = scores.iter().map(predicted).collect();
        Self::new(&Metrics::new(data.class_names(), &truths, &predictions))
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
