//! `polyveil report`: one HTML page of an experiment.

use std::path::PathBuf;

use clap::Args;
use polyveil_train::{Evaluation, Verdict};
use serde::Serialize;

use crate::error::{CliError, Exit};
use crate::experiment::store::{Row, Store, StudentRecord, TeacherRecord, named, read_json};
use crate::experiment::tables::{self, Group};
use crate::files;
use crate::output::{Table, percent};
use crate::pipeline::models;
use crate::report::{Report, plots, svg};
use crate::session::Session;

/// Arguments of `report`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  polyveil report mnist.results --out report.html\n\n\
    The page needs nothing else: no script, no font, no picture from elsewhere. Of each method it shows the\n\
    run of median test accuracy.")]
pub struct ReportArgs {
    /// Output folder of `polyveil experiment`.
    experiment: PathBuf,
    /// Where the page goes [default: report.html in that folder].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Serialize)]
struct Outcome {
    report: String,
    runs: usize,
    bytes: u64,
}

/// Reads rows and records, draws, writes.
pub fn run(args: &ReportArgs, session: &Session) -> Result<(), CliError> {
    let folder = &args.experiment;
    if !folder.is_dir() {
        return Err(CliError::new(Exit::File, "no such folder").at(folder));
    }
    let store = Store::read(folder)?;
    let Some(first) = store.rows().first() else {
        return Err(CliError::new(Exit::File, "no finished run is in this folder")
            .at(folder)
            .help("`polyveil experiment SUITE.toml` makes them"));
    };
    let out = args.out.clone().unwrap_or_else(|| folder.join("report.html"));
    files::check_target(&out, files::Access::Shared)?;
    let page = render(&store, &first.suite)?;
    files::write_bytes(&out, page.as_bytes())?;
    let outcome =
        Outcome { report: out.display().to_string(), runs: store.rows().len(), bytes: files::size(&out) };
    session.emit(&outcome, || format!("wrote {}\n", outcome.report))
}

fn render(store: &Store, suite: &str) -> Result<String, CliError> {
    let lead = "Networks with quadratic activations against the ReLU networks that they come from. Means over seeds ± half \
                of the 95 % interval (Student's t); accuracy, F1, AUC and calibration error on test images in percent, of \
                the exported network; a score that is not finite counts as wrong. Gap: teacher minus network, in points, \
                pairwise by seed.";
    let mut report = Report::new(&format!("Polyveil: {suite}"), lead);
    let all = tables::groups(store.rows());
    for here in tables::places(&all) {
        let title = format!("{} on {}", here[0].network, here[0].data);
        report.section(&title, "", Some(&tables::methods(&here)), &[]);
        if here.len() > 1 {
            let text = format!("Accuracy of {} minus that of the others, in points.", here[0].method);
            report.section(
                &format!("{title}: differences"),
                &text,
                Some(&tables::against(here[0], &here[1..])),
                &[],
            );
        }
        teacher(&mut report, store, &title, &here)?;
        for group in here {
            student(&mut report, store, &title, group)?;
        }
    }
    Ok(report.render())
}

fn teacher(report: &mut Report, store: &Store, title: &str, here: &[&Group<'_>]) -> Result<(), CliError> {
    let Some(row) = here.first().and_then(|g| median(&g.rows)) else { return Ok(()) };
    let stem = store.teacher(&row.network, &row.data, row.seed);
    let Some(record) = read_json::<TeacherRecord>(&named(&stem, "json"))? else { return Ok(()) };
    let mut pictures = record.history.as_ref().map_or(Vec::new(), |h| plots::training("ReLU teacher", h));
    pictures.push(confusion("ReLU teacher", &record.test));
    let heading = format!("{title}: ReLU teacher, seed {}", row.seed);
    report.section(&heading, "", sources(&record.test).as_ref(), &pictures);
    Ok(())
}

fn student(report: &mut Report, store: &Store, title: &str, group: &Group<'_>) -> Result<(), CliError> {
    let Some(row) = median(&group.rows) else { return Ok(()) };
    let Some(stem) = store.student_of(row) else { return Ok(()) };
    let Some(record) = read_json::<StudentRecord>(&named(&stem, "json"))? else { return Ok(()) };
    let graph = models::load(&named(&stem, "onnx"))?;
    let mut pictures = plots::training(group.method, &record.history);
    pictures.extend(plots::activations_over_time(&record.history));
    pictures.extend(plots::shapes(&graph));
    pictures
        .push(svg::bars("largest |x| entering each ReLU of the teacher", &labelled(&record.ranges_before)));
    let inputs: Vec<(String, f64)> = record
        .ranges
        .iter()
        .filter(|(name, _)| graph.node(name).is_some_and(|(id, _)| id != graph.output))
        .map(|(name, r)| (name.clone(), f64::from(r.max.abs().max(r.min.abs()))))
        .collect();
    pictures.push(plots::ranges(&inputs));
    pictures.push(confusion(group.method, &record.test));
    let ending = match &record.verdict {
        Verdict::Accepted => String::new(),
        _ => format!(" This network may not be exported: {}.", row.reason),
    };
    let text = format!(
        "Run of median test accuracy: {}, macro F1 {}; teacher {}.{ending}",
        percent(row.test_accuracy),
        percent(row.test_macro_f1),
        percent(row.teacher_accuracy)
    );
    let heading = format!("{title}: {}, seed {}", group.method, row.seed);
    report.section(&heading, &text, sources(&record.test).as_ref(), &pictures);
    let shares = within(&record);
    if let Some(shares) = shares {
        report.section(&format!("{heading}: share within the declared bound"), "", Some(&shares), &[]);
    }
    Ok(())
}

/// The run of median test accuracy (the lower one of two).
fn median<'a>(rows: &[&'a Row]) -> Option<&'a Row> {
    let mut sorted = rows.to_vec();
    sorted.sort_by(|l, r| l.test_accuracy.total_cmp(&r.test_accuracy));
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

fn labelled(rows: &[(String, f64)]) -> Vec<(String, f64, String)> {
    rows.iter().map(|(name, v)| (name.clone(), *v, format!("{v:.2}"))).collect()
}

fn confusion(title: &str, test: &Evaluation) -> String {
    let names: Vec<String> = test.whole.classes.iter().map(|c| c.name.clone()).collect();
    svg::matrix(&format!("{title} ({} test images)", test.whole.n), &names, &test.whole.confusion)
}

fn sources(test: &Evaluation) -> Option<Table> {
    let mut table = Table::new(["source", "images", "accuracy", "macro F1"]);
    for (name, figures) in &test.sources {
        let name = if name.is_empty() { "(none named)" } else { name };
        table.row([
            name.to_owned(),
            figures.n.to_string(),
            percent(figures.accuracy),
            percent(figures.macro_f1),
        ]);
    }
    (!test.sources.is_empty()).then_some(table)
}

/// Bound and shares of every layer.
fn within(record: &StudentRecord) -> Option<Table> {
    let mut table = Table::new(["layer", "bound", "train", "validation", "test"]);
    let mut any = false;
    for (name, range) in &record.ranges {
        let (Some(bound), Some(within)) = (range.bound, range.within) else { continue };
        any = true;
        let share = |s: Option<f64>| s.map_or("–".into(), |s| format!("{:.3} %", (s * 1e5).floor() / 1e3));
        table.row([
            name.clone(),
            format!("{bound:.2}"),
            share(within.train),
            share(within.validation),
            share(within.test),
        ]);
    }
    any.then_some(table)
}
