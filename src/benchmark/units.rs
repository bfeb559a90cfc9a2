//! Figures as people read them.

/// Of bytes, with a binary unit.
pub(super) fn bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut value = bytes;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three(value), units[unit])
}

/// Of microseconds.
pub(super) fn time(micros: f64) -> String {
    match micros {
        _ if micros < 1e3 => format!("{} µs", three(micros)),
        _ if micros < 1e6 => format!("{} ms", three(micros / 1e3)),
        _ => format!("{} s", three(micros / 1e6)),
    }
}

/// Of a whole number, in groups of three digits.
pub(super) fn count(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Three significant digits, and no zeros after the point.
pub(super) fn three(value: f64) -> String {
    let places = match value.abs() {
        large if large >= 99.95 => 0,
        large if large >= 9.995 => 1,
        large if large >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.places$}");
    if places == 0 {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(65_536.0), "64 KiB");
        assert_eq!(bytes(1_234_567_890.0), "1.15 GiB");
        assert_eq!(time(0.25), "0.25 µs");
        assert_eq!(time(99.96), "100 µs");
        assert_eq!(time(1_500.0), "1.5 ms");
        assert_eq!(time(12_345_678.0), "12.3 s");
        assert_eq!(three(100.0), "100");
        assert_eq!(count(999.0), "999");
        assert_eq!(count(1_234_567.0), "1,234,567");
    }
}
