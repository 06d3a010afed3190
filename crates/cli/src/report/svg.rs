//! Small plots as SVG text: lines, points, bars and matrices, for a report without any script.

use std::fmt::Write as _;

/// A named set of points.
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Points in drawing order; those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// Points instead of a line.
    pub dots: bool,
}

impl Series {
    /// A line.
    pub fn line(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, dots: false }
    }

    /// Separate points.
    pub fn dots(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, dots: true }
    }
}

/// A stretch of the x axis with a name, shaded.
pub struct Band {
    /// Text at its top.
    pub name: String,
    /// Left end.
    pub from: f64,
    /// Right end.
    pub to: f64,
}

/// What stands around a plot.
pub struct Axes<'a> {
    /// Heading.
    pub title: &'a str,
    /// Below the x axis.
    pub x: &'a str,
    /// Beside the y axis.
    pub y: &'a str,
    /// Logarithmic y axis (values at or below zero are left out).
    pub log_y: bool,
}

const COLOURS: [&str; 8] =
    ["#1f6feb", "#d1571a", "#2a9d4a", "#8a4fd0", "#b8860b", "#c2255c", "#0b7f8a", "#6b7280"];
const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 44.0;

/// Lines and points over two axes.
pub fn plot(axes: &Axes<'_>, series: &[Series], bands: &[Band]) -> String {
    let usable = |p: &&(f64, f64)| p.0.is_finite() && p.1.is_finite() && (!axes.log_y || p.1 > 0.0);
    let all: Vec<(f64, f64)> = series.iter().flat_map(|s| s.points.iter().filter(usable).copied()).collect();
    // Below a factor of ten a logarithmic axis has hardly a mark.
    let low = all.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let log_y = axes.log_y && all.iter().any(|p| p.1 > 10.0 * low);
    let y_of = |v: f64| if log_y { v.log10() } else { v };
    let x = Scale::over(all.iter().map(|p| p.0), LEFT, WIDTH - RIGHT);
    let y = Scale::over(all.iter().map(|p| y_of(p.1)), HEIGHT - BOTTOM, TOP).padded();
    let mut svg = open(WIDTH, HEIGHT, axes.title);
    for band in bands {
        let (from, to) = (x.at(band.from.max(x.low)), x.at(band.to.min(x.high)));
        if to > from {
            let _ = write!(
                svg,
                "<rect class=\"band\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>\
                 <text class=\"small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                to - from,
                HEIGHT - TOP - BOTTOM,
                f64::midpoint(from, to),
                TOP + 12.0,
                escape(&band.name)
            );
        }
    }
    grid(&mut svg, axes, &x, &y, log_y);
    for (index, s) in series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points = s.points.iter().filter(usable).map(|p| (x.at(p.0), y.at(y_of(p.1))));
        if s.dots {
            for (px, py) in points {
                let _ = write!(
                    svg,
                    "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"2.2\" fill=\"{colour}\" fill-opacity=\"0.65\"/>"
                );
            }
        } else {
            let path: Vec<String> = points.map(|(px, py)| format!("{px:.1},{py:.1}")).collect();
            let _ = write!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"/>",
                path.join(" ")
            );
        }
    }
    let names: Vec<&str> = series.iter().map(|s| s.name.as_str()).collect();
    legend(&mut svg, &names);
    svg + "</svg>"
}

/// Horizontal bars, each with its value as text.
pub fn bars(title: &str, rows: &[(String, f64, String)]) -> String {
    const ROW: f64 = 20.0;
    const NAME: f64 = 170.0;
    let height = TOP + ROW * rows.len() as f64 + 8.0;
    let largest = rows.iter().map(|r| r.1).filter(|v| v.is_finite()).fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = open(WIDTH, height, title);
    for (index, (name, value, label)) in rows.iter().enumerate() {
        let top = TOP + ROW * index as f64;
        let length = (WIDTH - NAME - 90.0) * (value / largest).clamp(0.0, 1.0);
        let _ = write!(
            svg,
            "<text class=\"small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{NAME}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"{:.1}\" fill=\"{}\"/>\
             <text class=\"small\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            NAME - 6.0,
            top + 13.0,
            escape(name),
            top + 3.0,
            ROW - 6.0,
            COLOURS[0],
            NAME + length + 5.0,
            top + 13.0,
            escape(label)
        );
    }
    svg + "</svg>"
}

/// A confusion matrix: rows are the true classes, columns the predicted ones.
pub fn matrix(title: &str, names: &[String], counts: &[Vec<usize>]) -> String {
    let size = names.len().max(1) as f64;
    let cell = (330.0 / size).clamp(14.0, 60.0);
    let (left, top) = (110.0, TOP + 26.0);
    let (width, height) = (left + cell * size + 16.0, top + cell * size + 30.0);
    let mut svg = open(width.max(300.0), height, title);
    for (row, line) in counts.iter().enumerate() {
        let total = line.iter().sum::<usize>().max(1) as f64;
        let y = top + cell * row as f64;
        for (column, &count) in line.iter().enumerate() {
            let x = left + cell * column as f64;
            let share = count as f64 / total;
            let colour = if row == column { COLOURS[0] } else { COLOURS[1] };
            let shade = if count == 0 { 0.0 } else { (0.12 + 0.88 * share).min(1.0) };
            let (cx, cy) = (x + cell / 2.0, y + cell / 2.0 + 4.0);
            let class = if shade > 0.5 { "small light" } else { "small" };
            let _ = write!(
                svg,
                "<rect class=\"cell\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{cell:.1}\" height=\"{cell:.1}\" \
                 fill=\"{colour}\" fill-opacity=\"{shade:.2}\"/>\
                 <text class=\"{class}\" x=\"{cx:.1}\" y=\"{cy:.1}\" text-anchor=\"middle\">{count}</text>"
            );
        }
        let name = names.get(row).map_or("", String::as_str);
        let _ = write!(
            svg,
            "<text class=\"small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text class=\"small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            left - 6.0,
            y + cell / 2.0 + 4.0,
            escape(&shortened(name, 16)),
            left + cell * (row as f64 + 0.5),
            top - 6.0,
            escape(&shortened(name, (cell / 6.0) as usize))
        );
    }
    let _ = write!(
        svg,
        "<text class=\"small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">predicted (columns), true (rows)</text>",
        left + cell * size / 2.0,
        height - 8.0
    );
    svg + "</svg>"
}

/// Text that is safe between tags and in attributes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if high - low <= 1e-12 * high.abs().max(1e-9) {
            (low, high) = (low - 0.5 * low.abs().max(1.0), high + 0.5 * high.abs().max(1.0));
        }
        Self { low, high, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// With a little room at both ends.
    fn padded(self) -> Self {
        let room = 0.03 * (self.high - self.low);
        Self { low: self.low - room, high: self.high + room, ..self }
    }

    /// Logarithms of 1, 2 and 5 times powers of ten within the range; of powers alone where it is wide.
    fn log_ticks(&self) -> Vec<f64> {
        let steps: &[f64] = if self.high - self.low > 2.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let decades = self.low.floor() as i32..=self.high.ceil() as i32;
        let ticks = decades.flat_map(|d| steps.iter().map(move |m| f64::from(d) + m.log10()));
        ticks.filter(|t| (self.low..=self.high).contains(t)).collect()
    }

    /// Four to nine round values within the range.
    fn ticks(&self) -> Vec<f64> {
        let raw = (self.high - self.low) / 5.0;
        let magnitude = 10f64.powf(raw.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|m| m * magnitude).into_iter().find(|s| *s >= raw).unwrap_or(raw);
        let first = (self.low / step).ceil();
        (0..20).map(|i| (first + f64::from(i)) * step).take_while(|t| *t <= self.high + 1e-9 * step).collect()
    }
}

fn open(width: f64, height: f64, title: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" role=\"img\" aria-label=\"{0}\">\
         <text class=\"title\" x=\"{1:.1}\" y=\"16\" text-anchor=\"middle\">{0}</text>",
        escape(title),
        width / 2.0
    )
}

fn grid(svg: &mut String, axes: &Axes<'_>, x: &Scale, y: &Scale, log_y: bool) {
    for tick in x.ticks() {
        let at = x.at(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <text class=\"small\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 14.0,
            number(tick)
        );
    }
    let ticks = if log_y { y.log_ticks() } else { y.ticks() };
    for tick in ticks {
        let at = y.at(tick);
        let label = if log_y { number(10f64.powf(tick)) } else { number(tick) };
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            WIDTH - RIGHT,
            LEFT - 5.0,
            at + 4.0
        );
    }
    let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
    let _ = write!(
        svg,
        "<text class=\"small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text class=\"small\" transform=\"translate(13 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 14.0,
        escape(axes.x),
        escape(axes.y)
    );
}

fn legend(svg: &mut String, names: &[&str]) {
    if names.len() < 2 {
        return;
    }
    let mut x = LEFT;
    for (index, name) in names.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let _ = write!(
            svg,
            "<rect x=\"{x:.1}\" y=\"22\" width=\"9\" height=\"9\" fill=\"{colour}\"/>\
             <text class=\"small\" x=\"{:.1}\" y=\"30\">{}</text>",
            x + 12.0,
            escape(name)
        );
        x += 24.0 + 6.2 * name.chars().count() as f64;
    }
}

fn number(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e5).contains(&size) {
        return format!("{value:.0e}");
    }
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-0" { "0".into() } else { text.into() }
}

fn shortened(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.into();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_survive_empty_constant_and_non_finite_data() {
        let axes = Axes { title: "a < b", x: "x", y: "y", log_y: true };
        for points in [vec![], vec![(1.0, 2.0)], vec![(f64::NAN, 1.0), (0.0, 0.0), (1.0, f64::INFINITY)]] {
            let svg = plot(&axes, &[Series::line("one", points.clone()), Series::dots("two", points)], &[]);
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"));
            assert!(svg.contains("a &lt; b") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let scale = Scale::over([0.13, 0.97].into_iter(), 0.0, 100.0);
        assert_eq!(
            scale.ticks().iter().map(|t| number(*t)).collect::<Vec<_>>(),
            ["0.2", "0.4", "0.6", "0.8"]
        );
    }

    #[test]
    fn matrix_and_bars_show_every_value() {
        let svg = matrix("m", &["cat".into(), "dog".into()], &[vec![11, 2], vec![3, 44]]);
        assert!([">11<", ">2<", ">3<", ">44<", ">cat<", ">dog<"].iter().all(|t| svg.contains(t)), "{svg}");
        let svg = bars("b", &[("conv1".into(), 0.5, "0.5 s".into()), ("fc".into(), 0.0, "0 s".into())]);
        assert!(svg.contains("conv1") && svg.contains("0.5 s"));
    }
}
