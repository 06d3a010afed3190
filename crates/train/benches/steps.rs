//! Images a second of whole training steps at 224 pixels:
//! `cargo bench -p polyveil-train --features bench -- [PART OF A NAME] [STEPS]`.
//!
//! One line a case: median and best of the steps timed.

use std::time::Instant;

use polyveil_train::bench::Case;

const IMAGES: usize = 16;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    let part = arguments.next().unwrap_or_default();
    let steps: usize = arguments.next().and_then(|s| s.parse().ok()).unwrap_or(5);
    for case in Case::all(IMAGES).into_iter().filter(|c| c.name.contains(&part)) {
        let result = case.run();
        let time = || {
            let start = Instant::now();
            std::hint::black_box(case.run());
            start.elapsed().as_secs_f64()
        };
        let mut times: Vec<f64> = (0..steps.max(1)).map(|_| time()).collect();
        times.sort_by(f64::total_cmp);
        let rate = |time: f64| IMAGES as f64 / time;
        println!(
            "{:<40} median {:6.1} best {:6.1} images/s  {result:?}",
            case.name,
            rate(times[times.len() / 2]),
            rate(times[0])
        );
    }
}
