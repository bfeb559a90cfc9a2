//! Plots as inline SVG, coloured by the page's style sheet: `sN` is the colour of the Nth report.

use std::fmt::Write as _;

use super::units;

/// All plots are this wide, in units of their own.
const WIDTH: f64 = 560.0;
const LEFT: f64 = 150.0;
const ROW: f64 = 18.0;
const HEAD: f64 = 34.0;
/// Colours that the style sheet has.
pub(super) const COLOURS: usize = 8;

/// One bar or one span of a group.
pub(super) struct Row<T> {
    /// Which report.
    pub(super) series: usize,
    pub(super) name: String,
    pub(super) value: T,
}

/// Rows beneath a heading.
pub(super) type Group<T> = (String, Vec<Row<T>>);

/// Text that can stand in HTML, also in attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            control if control.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out
}

/// Horizontal bars from zero on, each with its value: (value, its text). Each group has its own scale.
pub(super) fn bars(title: &str, groups: &[Group<(f64, String)>]) -> String {
    plot(title, groups, "", |out, rows, row, y| {
        let longest = rows.iter().map(|row| row.value.0).fold(f64::MIN_POSITIVE, f64::max);
        let scale = (WIDTH - LEFT - 90.0) / longest;
        let (value, text) = &row.value;
        let (width, middle) = ((value * scale).max(1.0), y + ROW / 2.0);
        let _ = write!(
            out,
            "<rect class=\"fill s{}\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" rx=\"2\">\
             <title>{}: {}</title></rect><text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            row.series % COLOURS,
            y + 2.0,
            ROW - 4.0,
            escape(&row.name),
            escape(text),
            LEFT + width + 6.0,
            middle + 4.0,
            escape(text),
        );
    })
}

/// Spans of microseconds on a logarithmic axis: p50, p90, p99, max.
pub(super) fn spans(title: &str, groups: &[Group<[f64; 4]>]) -> String {
    let values = || groups.iter().flat_map(|(_, rows)| rows).flat_map(|row| row.value);
    let axis = Axis::over(values(), LEFT, WIDTH - 28.0);
    let height = height(groups);
    let mut grid = String::new();
    for (value, x) in axis.ticks() {
        let _ = write!(
            grid,
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"0\" x2=\"{x:.1}\" y2=\"{height:.1}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            height + 14.0,
            units::time(value),
        );
    }
    plot(title, groups, &grid, |out, _, row, y| {
        let [p50, p90, p99, max] = row.value.map(|value| axis.at(value));
        let (y, colour) = (y + ROW / 2.0, row.series % COLOURS);
        let texts = row.value.map(units::time);
        let _ = write!(
            out,
            "<g class=\"span s{colour}\"><title>{}: p50 {}, p90 {}, p99 {}, max {}</title>\
             <line class=\"thin\" x1=\"{p50:.1}\" y1=\"{y:.1}\" x2=\"{max:.1}\" y2=\"{y:.1}\"/>\
             <line class=\"thick\" x1=\"{p50:.1}\" y1=\"{y:.1}\" x2=\"{p99:.1}\" y2=\"{y:.1}\"/>\
             <line class=\"mark\" x1=\"{p90:.1}\" y1=\"{:.1}\" x2=\"{p90:.1}\" y2=\"{:.1}\"/>\
             <circle class=\"ring\" cx=\"{p99:.1}\" cy=\"{y:.1}\" r=\"4\"/>\
             <circle class=\"dot\" cx=\"{p50:.1}\" cy=\"{y:.1}\" r=\"4.5\"/></g>",
            escape(&row.name),
            texts[0],
            texts[1],
            texts[2],
            texts[3],
            y - 5.0,
            y + 5.0,
        );
    })
}

/// Lines of points (amount, microseconds) on logarithmic axes.
pub(super) fn lines(title: &str, rows: &[Row<Vec<(f64, f64)>>]) -> String {
    let (width, bottom) = (360.0, 200.0);
    let points = || rows.iter().flat_map(|row| &row.value);
    let across = Axis::over(points().map(|point| point.0), 62.0, width - 28.0);
    let up = Axis::over(points().map(|point| point.1), bottom, 12.0);
    let mut out = open(title, width, bottom + 26.0);
    for (value, x) in across.ticks() {
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"12\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 20.0,
            units::count(value),
        );
    }
    for (value, y) in up.ticks() {
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"62\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"56\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            width - 28.0,
            y + 4.0,
            units::time(value),
        );
    }
    for row in rows {
        let at: Vec<String> = row
            .value
            .iter()
            .map(|(x, y)| format!("{:.1},{:.1}", across.at(*x), up.at(*y)))
            .collect();
        let colour = row.series % COLOURS;
        let _ = write!(out, "<polyline class=\"path s{colour}\" points=\"{}\"/>", at.join(" "));
        for (x, y) in &row.value {
            let _ = write!(
                out,
                "<circle class=\"fill point s{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4.5\"><title>{}: {} at {}</title></circle>",
                across.at(*x),
                up.at(*y),
                escape(&row.name),
                units::time(*y),
                units::count(*x),
            );
        }
    }
    out + "</svg>"
}

fn open(title: &str, width: f64, height: f64) -> String {
    format!(
        "<svg viewBox=\"0 0 {width} {height:.0}\" role=\"img\" aria-label=\"{}\">",
        escape(title)
    )
}

fn height<T>(groups: &[Group<T>]) -> f64 {
    groups.iter().map(|(_, rows)| HEAD + rows.len() as f64 * ROW).sum()
}

/// Groups beneath each other; `draw` draws a row at its upper edge.
fn plot<T>(
    title: &str,
    groups: &[Group<T>],
    behind: &str,
    draw: impl Fn(&mut String, &[Row<T>], &Row<T>, f64),
) -> String {
    let mut out = open(title, WIDTH, height(groups) + 20.0);
    out.push_str(behind);
    let mut y = 0.0;
    for (heading, rows) in groups {
        let _ = write!(
            out,
            "<text class=\"heading\" x=\"0\" y=\"{:.1}\">{}</text>",
            y + 25.0,
            escape(heading)
        );
        y += HEAD;
        for row in rows {
            let _ = write!(
                out,
                "<text class=\"name\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 10.0,
                y + ROW / 2.0 + 4.0,
                escape(&short(&row.name)),
            );
            draw(&mut out, rows, row, y);
            y += ROW;
        }
    }
    out + "</svg>"
}

/// What fits beside a bar.
fn short(name: &str) -> String {
    const FITS: usize = 20;
    if name.chars().count() <= FITS {
        return name.to_owned();
    }
    name.chars().take(FITS - 1).chain(['…']).collect()
}

/// A logarithmic axis over whole decades.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let logs = values.filter(|value| *value > 0.0).map(f64::log10);
        let (low, high) = logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), log| {
            (low.min(log), high.max(log))
        });
        if low > high {
            return Self {
                low: 0.0,
                high: 1.0,
                from,
                to,
            };
        }
        // A hair of a decade does not open the next one.
        let low = (low + 1e-6).floor();
        let high = (high - 1e-6).ceil().max(low + 1.0);
        Self { low, high, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let log = if value > 0.0 { value.log10() } else { self.low };
        let part = ((log - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.from + part * (self.to - self.from)
    }

    /// Every power of ten, and where it is.
    fn ticks(&self) -> Vec<(f64, f64)> {
        let mut ticks = Vec::new();
        let mut log = self.low;
        while log <= self.high + 0.5 {
            let value = 10_f64.powf(log);
            ticks.push((value, self.at(value)));
            log += 1.0;
        }
        ticks
    }
}
