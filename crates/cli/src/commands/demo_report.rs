//! The report of a demonstration.

use super::demo::{Outcome, Story, network_table, run_table};
use crate::output::{Table, seconds};
use crate::pipeline::figures::Figures;
use crate::report::{Report, plots, svg};

/// The page.
pub fn render(outcome: &Outcome, story: &Story) -> String {
    let lead = format!(
        "A ReLU network was trained on {}, converted to quadratic activations, compiled, and run on {} encrypted test \
         images by a process that had neither the images nor the secret key.",
        outcome.data, outcome.encrypted.images
    );
    let mut report = Report::new("Polyveil: encrypted inference", &lead);
    let intervals = format!("Teacher: {}. HE-friendly: {}.", outcome.teacher.line(), outcome.student.line());
    report.section("Result", &intervals, Some(&network_table(outcome)), &[]);
    let text = "Sizes and peak memory are those of separate processes; the error is against plain f32 arithmetic. \
                Decrypted scores are rounded to the precision that the plan declares.";
    report.section("Encrypted run", text, Some(&run_table(outcome)), &[]);
    report.section("Time", "", Some(&times(outcome)), &[plots::layer_times(&story.layers)]);
    report.section(
        "Training the ReLU network",
        "",
        None,
        &plots::training("teacher", &story.teacher_history),
    );
    let text = "The shaded epochs are the transition from ReLU to quadratic activations.";
    let mut pictures = plots::training("conversion", &story.student_history);
    pictures.extend(plots::activations_over_time(&story.student_history));
    report.section("Conversion", text, None, &pictures);
    let mut pictures: Vec<String> = plots::shapes(&story.student).into_iter().collect();
    pictures.push(plots::ranges(&story.ranges));
    report.section("Activations", "", None, &pictures);
    report.section("Encrypted against plain scores", "", None, &plots::logits(&story.logits));
    report.section("Confusion matrices", "", None, &confusions(outcome));
    report.render()
}

fn times(o: &Outcome) -> Table {
    let mut table = Table::facts("step", "time");
    for (name, time) in [
        ("teacher training", o.train_s),
        ("conversion", o.convert_s),
        ("compilation", o.compile_s),
        ("key generation", o.keygen_s),
        ("encrypted inference, one image", o.encrypted.seconds_per_image),
        ("everything", o.total_s),
    ] {
        table.row([name.to_string(), seconds(time)]);
    }
    table
}

fn confusions(o: &Outcome) -> Vec<String> {
    let names: Vec<String> = o.teacher.per_class.iter().map(|c| c.class.clone()).collect();
    let of =
        |title: &str, f: &Figures| svg::matrix(&format!("{title} ({} images)", f.n), &names, &f.confusion);
    vec![
        of("ReLU teacher", &o.teacher),
        of("HE-friendly, f32", &o.student),
        of("HE-friendly, simulated", &o.simulated),
        svg::matrix(&format!("encrypted ({} images)", o.encrypted.images), &names, &o.encrypted.confusion),
    ]
}
