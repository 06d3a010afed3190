//! Means, intervals and paired differences over the rows of an experiment, as Markdown.

use std::fmt::Write as _;

use polyveil_train::statistics::mean_interval;

use super::store::Row;
use crate::output::Table;

/// Rows that belong together: one method on one network and data set, one row a seed.
pub struct Group<'a> {
    /// Name of the network.
    pub network: &'a str,
    /// Name of the data set.
    pub data: &'a str,
    /// Name of the method.
    pub method: &'a str,
    /// One a seed, of the learning rate that validation chose.
    pub rows: Vec<&'a Row>,
}

/// Groups in the order of first appearance. Of several learning rates that one stays whose run with the
/// first seed that has them all did best on validation.
pub fn groups(rows: &[Row]) -> Vec<Group<'_>> {
    let mut all: Vec<Group<'_>> = Vec::new();
    for row in rows {
        let same =
            |g: &&mut Group<'_>| g.network == row.network && g.data == row.data && g.method == row.method;
        match all.iter_mut().find(same) {
            Some(group) => group.rows.push(row),
            None => all.push(Group {
                network: &row.network,
                data: &row.data,
                method: &row.method,
                rows: vec![row],
            }),
        }
    }
    for group in &mut all {
        if let Some(rate) = best_rate(&group.rows) {
            group.rows.retain(|r| r.learning_rate == rate);
        }
        group.rows.sort_by_key(|r| r.seed);
    }
    all
}

/// The learning rate that did best on validation among the runs of the first row's seed.
pub fn best_rate(rows: &[&Row]) -> Option<f32> {
    let seed = rows.first()?.seed;
    let candidates = rows.iter().filter(|r| r.seed == seed);
    let score = |r: &Row| (r.verdict == "accepted", r.val_accuracy);
    let mut best: Option<&Row> = None;
    for row in candidates {
        if best.is_none_or(|b| score(row) > score(b)) {
            best = Some(row);
        }
    }
    best.map(|r| r.learning_rate)
}

/// Groups of one network and data set each, in order; none is empty.
pub fn places<'g, 'r>(all: &'g [Group<'r>]) -> Vec<Vec<&'g Group<'r>>> {
    let mut places: Vec<Vec<&Group<'_>>> = Vec::new();
    for group in all {
        let same = |p: &&mut Vec<&Group<'_>>| p[0].network == group.network && p[0].data == group.data;
        match places.iter_mut().find(same) {
            Some(place) => place.push(group),
            None => places.push(vec![group]),
        }
    }
    places
}

/// The tables.
pub fn markdown(suite: &str, rows: &[Row]) -> String {
    let all = groups(rows);
    let mut text = format!(
        "# {suite}\n\nMean over seeds ± half of the 95 % interval (Student's t). Accuracy, macro F1, AUC and calibration \
         error (ECE) on the test split in percent, of the exported network in plain arithmetic; a score that is not \
         finite counts as wrong. Gap: ReLU teacher minus network, in points, pairwise by seed. Epoch and learning rate \
         are chosen on validation images.\n"
    );
    for here in places(&all) {
        let group = here[0];
        let images = group.rows.first().map_or(0, |r| r.test_images);
        let _ = write!(text, "\n## {} on {} ({images} test images)\n\n", group.network, group.data);
        text += &pipe(&methods(&here));
        if here.len() > 1 {
            let _ = write!(
                text,
                "\nAccuracy of {} minus that of the others, in points, pairwise by seed:\n\n",
                here[0].method
            );
            text += &pipe(&against(here[0], &here[1..]));
        }
    }
    text
}

/// One row a method, the teacher first.
pub fn methods(groups: &[&Group<'_>]) -> Table {
    let mut table = Table::new([
        "method",
        "seeds",
        "accuracy",
        "macro F1",
        "AUC",
        "ECE",
        "gap",
        "gap F1",
        "accepted",
        "not finite",
        "within bound",
        "s a run",
        "images/s",
    ]);
    if let Some(longest) = groups.iter().max_by_key(|g| g.rows.len()) {
        let of = |value: &dyn Fn(&Row) -> f64| {
            interval(longest.rows.iter().map(|r| 100.0 * value(r)).collect(), 2)
        };
        table.row([
            "ReLU teacher".to_owned(),
            longest.rows.len().to_string(),
            of(&|r| r.teacher_accuracy),
            of(&|r| r.teacher_macro_f1),
            interval(longest.rows.iter().filter_map(|r| Some(100.0 * r.teacher_auc?)).collect(), 2),
            interval(longest.rows.iter().filter_map(|r| Some(100.0 * r.teacher_ece?)).collect(), 2),
            "–".into(),
            "–".into(),
            "–".into(),
            "–".into(),
            "–".into(),
            mean(longest.rows.iter().map(|r| r.teacher_seconds).collect(), 0),
            "–".into(),
        ]);
    }
    for group in groups {
        let rows = &group.rows;
        let of = |value: &dyn Fn(&Row) -> f64| interval(rows.iter().map(|r| value(r)).collect(), 2);
        let accepted = rows.iter().filter(|r| r.verdict == "accepted").count();
        let within = rows.iter().filter_map(|r| r.within_bound).reduce(f64::min);
        table.row([
            group.method.to_owned(),
            rows.len().to_string(),
            of(&|r| 100.0 * r.test_accuracy),
            of(&|r| 100.0 * r.test_macro_f1),
            interval(rows.iter().filter_map(|r| Some(100.0 * r.test_auc?)).collect(), 2),
            interval(rows.iter().filter_map(|r| Some(100.0 * r.test_ece?)).collect(), 2),
            of(&|r| r.gap),
            of(&|r| r.gap_macro_f1),
            format!("{accepted} of {}", rows.len()),
            rows.iter().map(|r| r.non_finite).sum::<usize>().to_string(),
            // Rounded down: 100 % must mean all.
            within.map_or("–".into(), |w| format!("{:.3} %", (w * 1e5).floor() / 1e3)),
            mean(rows.iter().map(|r| r.seconds).collect(), 0),
            mean(rows.iter().map(|r| r.images_per_second).collect(), 1),
        ]);
    }
    table
}

/// Paired differences of one method to the others, over the seeds that both have.
pub fn against(first: &Group<'_>, others: &[&Group<'_>]) -> Table {
    let mut table = Table::new(["against", "seeds", "difference"]);
    for other in others {
        let pairs = first.rows.iter().filter_map(|r| {
            let same = other.rows.iter().find(|o| o.seed == r.seed)?;
            Some(100.0 * (r.test_accuracy - same.test_accuracy))
        });
        let differences: Vec<f64> = pairs.collect();
        table.row([other.method.to_owned(), differences.len().to_string(), interval(differences, 2)]);
    }
    table
}

fn interval(values: Vec<f64>, digits: usize) -> String {
    match mean_interval(&values) {
        None => "–".into(),
        Some((mean, None)) => format!("{mean:.digits$}"),
        Some((mean, Some(width))) => format!("{mean:.digits$} ± {width:.digits$}"),
    }
}

fn mean(values: Vec<f64>, digits: usize) -> String {
    mean_interval(&values).map_or("–".into(), |(mean, _)| format!("{mean:.digits$}"))
}

/// A table in Markdown.
fn pipe(table: &Table) -> String {
    let mut text = String::new();
    for (index, row) in table.rows().iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if index == 0 {
            let rule: Vec<&str> = (0..row.len()).map(|c| if c == 0 { "---" } else { "---:" }).collect();
            let _ = writeln!(text, "| {} |", rule.join(" | "));
        }
    }
    text
}
