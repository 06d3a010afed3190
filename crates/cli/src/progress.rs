//! Progress with the time left: a bar on a terminal, an occasional line elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between two lines where standard error is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows how far a piece of work is. Dropping it removes the bar.
pub struct Progress {
    label: String,
    total: u64,
    started: Instant,
    display: Display,
}

enum Display {
    None,
    Bar(ProgressBar),
    Lines(Mutex<Instant>),
}

impl Progress {
    /// Progress over `total` units (epochs, keys, layers, ...).
    pub fn new(label: &str, total: u64, quiet: bool) -> Self {
        let started = Instant::now();
        let display = if quiet {
            Display::None
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(total.max(1)), ProgressDrawTarget::stderr());
            let template = "{prefix:<12} [{bar:30}] {percent:>3} %  {elapsed} elapsed, {eta} left  {msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(label.to_string());
            bar.enable_steady_tick(Duration::from_millis(500));
            Display::Bar(bar)
        } else {
            Display::Lines(Mutex::new(started))
        };
        Self { label: label.to_string(), total, started, display }
    }

    /// Progress of work whose end cannot be foreseen: the time that has passed, and what is under way.
    pub fn open(label: &str, quiet: bool) -> Self {
        let progress = Self::new(label, 0, quiet);
        if let Display::Bar(bar) = &progress.display
            && let Ok(style) =
                ProgressStyle::with_template("{prefix:<12} {spinner}  {elapsed} elapsed  {msg}")
        {
            bar.set_style(style);
        }
        progress
    }

    /// `done` of the total are done; `message` says what is under way.
    pub fn set(&self, done: u64, message: &str) {
        match &self.display {
            Display::None => {}
            Display::Bar(bar) => {
                bar.set_position(done.min(self.total));
                bar.set_message(message.to_string());
            }
            Display::Lines(last) => {
                let Ok(mut last) = last.lock() else { return };
                if last.elapsed() < LINE_EVERY {
                    return;
                }
                *last = Instant::now();
                eprintln!("{}: {}{message}", self.label, self.summary(done));
            }
        }
    }

    fn summary(&self, done: u64) -> String {
        let elapsed = self.started.elapsed().as_secs_f64();
        let left = elapsed / done.max(1) as f64 * self.total.saturating_sub(done) as f64;
        let share = 100.0 * done as f64 / self.total.max(1) as f64;
        if done == 0 {
            return format!("{elapsed:.0} s elapsed  ");
        }
        format!("{share:.0} %, {elapsed:.0} s elapsed, {left:.0} s left  ")
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}
