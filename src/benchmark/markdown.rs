use std::fmt::Write as _;

use super::{Growth, Measured, Report, Workload, units};

/// Tables of Markdown that set reports side by side: the rate, and the latencies p50 / p90 / p99 / max.
#[must_use]
pub fn markdown(reports: &[Report]) -> String {
    let mut out = String::new();
    let names: Vec<String> = reports.iter().map(|report| report.name.replace('|', "\\|")).collect();
    let head = |first: &str| {
        format!(
            "| {first} | {} |\n|{}\n",
            names.join(" | "),
            " --- |".repeat(names.len() + 1)
        )
    };
    for workload in Workload::ALL {
        let rows = rows(reports, workload);
        if rows.is_empty() {
            continue;
        }
        let _ = write!(
            out,
            "### {}\n\n{}",
            capital(workload),
            head("rate; p50 / p90 / p99 / max")
        );
        for row in rows {
            let cells = reports
                .iter()
                .map(|report| report.find(row).map_or_else(String::new, cell));
            let cells: Vec<String> = cells.collect();
            let _ = writeln!(out, "| {} | {} |", label(row), cells.join(" | "));
        }
        out.push('\n');
    }
    let growths = growths(reports);
    if !growths.is_empty() {
        let _ = write!(out, "### Growth\n\n{}", head("exponent: 0 is constant, 1 is linear"));
        for growth in growths {
            let cells = reports.iter().map(|report| {
                let found = find_growth(report, growth);
                found.map_or_else(String::new, exponent)
            });
            let cells: Vec<String> = cells.collect();
            let _ = writeln!(
                out,
                "| {}: {} | {} |",
                growth.workload,
                growth.operation,
                cells.join(" | ")
            );
        }
        out.push('\n');
    }
    for remark in remarks(reports) {
        let _ = writeln!(out, "{remark}\n");
    }
    out
}

/// Where it was measured, and what was done otherwise than asked for.
pub(super) fn remarks(reports: &[Report]) -> Vec<String> {
    let mut remarks: Vec<String> = reports.iter().map(|report| report.setting.clone()).collect();
    for report in reports {
        remarks.extend(report.notes.iter().map(|note| format!("{}: {note}.", report.name)));
    }
    remarks.retain(|remark| !remark.is_empty());
    remarks.dedup();
    remarks
}

/// Every operation of this work that any report has; one operation by several amounts stands together.
pub(super) fn rows(reports: &[Report], workload: Workload) -> Vec<&Measured> {
    let mut rows: Vec<&Measured> = Vec::new();
    for report in reports {
        for row in report.measured.iter().filter(|row| row.workload == workload) {
            let key = |row: &Measured| (row.operation.clone(), row.at_once, row.amount);
            if !rows.iter().any(|there| key(there) == key(row)) {
                let same = |there: &&Measured| (&there.operation, there.at_once) == (&row.operation, row.at_once);
                let behind = rows.iter().rposition(same).map_or(rows.len(), |last| last + 1);
                rows.insert(behind, row);
            }
        }
    }
    rows
}

/// Every growth that any report has.
pub(super) fn growths(reports: &[Report]) -> Vec<&Growth> {
    let mut growths: Vec<&Growth> = Vec::new();
    for growth in reports.iter().flat_map(|report| &report.growths) {
        let key = |growth: &Growth| (growth.workload, growth.operation.clone());
        if !growths.iter().any(|there| key(there) == key(growth)) {
            growths.push(growth);
        }
    }
    growths
}

pub(super) fn find_growth<'a>(report: &'a Report, growth: &Growth) -> Option<&'a Growth> {
    let mut growths = report.growths.iter();
    growths.find(|found| (found.workload, &found.operation) == (growth.workload, &growth.operation))
}

/// Between an operation and what there are amounts of.
const BY: &str = ", by ";

/// An operation with all that tells it from others.
pub(super) fn label(row: &Measured) -> String {
    let mut label = match (row.operation.split_once(BY), row.amount) {
        (Some((operation, what)), Some(1)) => format!("{operation}, 1 {}", what.trim_end_matches('s')),
        (Some((operation, what)), Some(amount)) => format!("{operation}, {} {what}", units::count(amount.into())),
        _ => row.operation.clone(),
    };
    if row.at_once > 1 {
        let _ = write!(label, ", {} at once", row.at_once);
    }
    label
}

pub(super) fn exponent(growth: &Growth) -> String {
    // Without the sign of a zero.
    format!("{:.2}", (growth.exponent * 100.0).round() / 100.0 + 0.0)
}

/// How fast it was, in what tells most of this work.
pub(super) fn rate(row: &Measured) -> f64 {
    if moves_bytes(row) {
        row.bytes_per_second()
    } else {
        row.operations_per_second()
    }
}

pub(super) fn rate_text(row: &Measured, rate: f64) -> String {
    if moves_bytes(row) {
        format!("{}/s", units::bytes(rate))
    } else if rate >= 1000.0 {
        format!("{}/s", units::count(rate))
    } else {
        format!("{}/s", units::three(rate))
    }
}

const fn moves_bytes(row: &Measured) -> bool {
    matches!(row.workload, Workload::Append | Workload::Indexed | Workload::Read)
}

fn cell(row: &Measured) -> String {
    let times = [row.latency.p50, row.latency.p90, row.latency.p99, row.latency.max].map(units::time);
    format!("{}; {}", rate_text(row, rate(row)), times.join(" / "))
}

pub(super) fn capital(workload: Workload) -> String {
    let name = workload.to_string();
    let (first, rest) = name.split_at(1);
    first.to_uppercase() + rest
}
