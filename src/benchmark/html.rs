use std::fmt::Write as _;

use super::{
    Measured, Report, Workload,
    markdown::{capital, exponent, find_growth, growths, label, rate, rate_text, remarks, rows},
    svg::{self, COLOURS, Group, Row, escape},
    units,
};

/// One page that compares reports in plots and a table. It needs nothing but itself.
#[must_use]
pub fn html(reports: &[Report]) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <title>Which store?</title><style>\n{}</style></head><body>\n<h1>Which store?</h1>\n\
         <p>The same work through the engine of tower-upload on each pair of a blob store and a metadata store.</p>\n",
        include_str!("page.css")
    );
    keys(
        &mut out,
        reports.iter().enumerate().map(|(at, report)| (at, report.name.clone())),
    );
    out.push_str("<main>\n");
    for workload in Workload::ALL {
        section(&mut out, reports, workload);
    }
    table(&mut out, reports);
    out.push_str("</main>\n");
    for remark in remarks(reports) {
        let _ = writeln!(out, "<p>{}</p>", escape(&remark));
    }
    out + "</body></html>\n"
}

const fn about(workload: Workload) -> &'static str {
    match workload {
        Workload::Append => "One large file, one append after the other, from its creation to its publication.",
        Workload::Indexed => {
            "One large file in numbered chunks, several at once, from its creation to its publication."
        }
        Workload::Small => "Whole files of 64 KiB: created, stored, assembled.",
        Workload::Parts => "A small chunk, by the parts that are there. Flat is good.",
        Workload::Assembly => "From the request to the published blob, by the number of parts.",
        Workload::Read => {
            "A finished file that was just written: a local disk answers out of its cache, and memory copies nothing."
        }
        Workload::Metadata => "The metadata store alone. Flat lines: its cost does not depend on what it holds.",
    }
}

fn section(out: &mut String, reports: &[Report], workload: Workload) {
    let rows = rows(reports, workload);
    if rows.is_empty() {
        return;
    }
    let single: Vec<&Measured> = rows.into_iter().filter(|row| row.amount.is_none()).collect();
    let grown = || {
        growths(reports)
            .into_iter()
            .filter(|growth| growth.workload == workload)
    };
    let class = if single.is_empty() && grown().count() == 1 {
        "half"
    } else {
        "whole"
    };
    let _ = write!(
        out,
        "<section class=\"{class}\"><h2>{}</h2><p>{}</p>",
        capital(workload),
        about(workload)
    );
    if !single.is_empty() {
        let rates = groups(reports, &single, |row| (rate(row), rate_text(row, rate(row))));
        let latencies = groups(reports, &single, |row| {
            [row.latency.p50, row.latency.p90, row.latency.p99, row.latency.max]
        });
        let _ = write!(
            out,
            "<div class=\"pair\"><figure><h3>Throughput: longer is better, each operation has its own scale</h3>{}</figure>\
             <figure><h3>Latency: \u{25cf} p50, | p90, \u{25cb} p99, line to the longest</h3>{}</figure></div>",
            svg::bars(&format!("Throughput, {workload}"), &rates),
            svg::spans(&format!("Latency, {workload}"), &latencies),
        );
    }
    let plots: Vec<String> = grown()
        .map(|growth| {
            let mut lines = Vec::new();
            let mut names = Vec::new();
            for (series, report) in reports.iter().enumerate() {
                let Some(found) = find_growth(report, growth) else {
                    continue;
                };
                let points = found.points.iter().map(|point| (f64::from(point.amount), point.micros));
                lines.push(Row {
                    series,
                    name: report.name.clone(),
                    value: points.collect(),
                });
                names.push((series, format!("{}: exponent {}", report.name, exponent(found))));
            }
            let title = capital_text(&growth.operation);
            let mut figure = format!(
                "<figure><h3>{}: median</h3>{}",
                escape(&title),
                svg::lines(&title, &lines)
            );
            keys(&mut figure, names.into_iter());
            figure + "</figure>"
        })
        .collect();
    if !plots.is_empty() {
        let _ = write!(out, "<div class=\"growths\">{}</div>", plots.concat());
    }
    out.push_str("</section>\n");
}

/// The same operation of all reports, side by side.
fn groups<T>(reports: &[Report], rows: &[&Measured], value: impl Fn(&Measured) -> T) -> Vec<Group<T>> {
    let group = |row: &&Measured| {
        let same = reports.iter().enumerate().filter_map(|(series, report)| {
            Some(Row {
                series,
                name: report.name.clone(),
                value: value(report.find(row)?),
            })
        });
        (label(row), same.collect())
    };
    rows.iter().map(group).collect()
}

fn keys(out: &mut String, names: impl Iterator<Item = (usize, String)>) {
    out.push_str("<ul class=\"keys\">");
    for (series, name) in names {
        let _ = write!(
            out,
            "<li><i class=\"key s{}\"></i>{}</li>",
            series % COLOURS,
            escape(&name)
        );
    }
    out.push_str("</ul>");
}

fn table(out: &mut String, reports: &[Report]) {
    out.push_str(
        "<section><details><summary>All figures</summary><div class=\"scroll\"><table><thead><tr><th>Operation</th>\
         <th>Stores</th><th>Rate</th><th>p50</th><th>p90</th><th>p99</th><th>Longest</th><th>Operations</th>\
         <th>Bytes</th></tr></thead><tbody>\n",
    );
    for workload in Workload::ALL {
        for row in rows(reports, workload) {
            for report in reports {
                let Some(found) = report.find(row) else { continue };
                let times = [
                    found.latency.p50,
                    found.latency.p90,
                    found.latency.p99,
                    found.latency.max,
                ]
                .map(units::time);
                let _ = writeln!(
                    out,
                    "<tr><td>{workload}: {}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                    escape(&label(row)),
                    escape(&report.name),
                    rate_text(found, rate(found)),
                    times.join("</td><td>"),
                    units::count(found.operations as f64),
                    units::bytes(found.bytes as f64),
                );
            }
        }
    }
    out.push_str("</tbody></table></div></details></section>\n");
}

fn capital_text(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().collect::<String>());
    first.unwrap_or_default() + letters.as_str()
}
